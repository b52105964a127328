"""The latest time that auth is known to have told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, without a mark: there was none."""
    op.create_table(
        "clock",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_clock"),
    )
