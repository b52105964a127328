"""Which version's text a rollback has put on record again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column, empty: of earlier rollbacks it is not known."""
    op.add_column("policy_applied", sa.Column("restores", sa.BigInteger))
