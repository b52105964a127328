"""Instances are revoked, and services banned."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "revoked",
        sa.Column("instance", sa.LargeBinary(16), nullable=False),
        sa.Column("service", sa.String(125), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(160), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("instance", name="pk_revoked"),
    )
    op.create_index("ix_revoked_until_ms", "revoked", ["until_ms"])
    op.create_table(
        "ban",
        sa.Column("service", sa.String(125), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String(160), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("service", name="pk_ban"),
    )
