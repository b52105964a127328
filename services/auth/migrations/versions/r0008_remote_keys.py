"""Auth keeps the keys of some instances, seals for them, and hands out their sequence numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Note of each instance that it has its own keys, and begin to remember sequence numbers."""
    remote = sa.Column("remote_keys", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("instance", remote)
    op.create_table(
        "sequence",
        sa.Column("source", sa.LargeBinary(16), nullable=False),
        sa.Column("destination", sa.LargeBinary(16), nullable=False),
        sa.Column("next", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "destination", name="pk_sequence"),
    )
