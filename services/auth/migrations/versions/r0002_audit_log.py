"""The audit log moves to files: what stays here is the end of each log, and which alarms were raised."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make both tables, and note the alarms that there were. The old entries move when auth starts."""
    op.create_table(
        "audit_log",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("first_segment", sa.BigInteger, nullable=False),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_audit_log"),
    )
    op.create_table(
        "alarm",
        sa.Column("token_id", sa.String(16), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("token_id", "event", name="pk_alarm"),
    )
    op.execute(
        "INSERT INTO alarm (token_id, event) "
        "SELECT DISTINCT token_id, event FROM audit WHERE alarm AND token_id <> ''"
    )
