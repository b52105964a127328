"""The audit log moves to files: what stays are the ends of the logs, alarms raised, policies applied."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables, filled from the old entries. Those move to the log when auth starts."""
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
    op.create_table(
        "policy_applied",
        sa.Column("version", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("instance", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_policy_applied"),
    )
    op.execute(
        "INSERT INTO policy_applied (version, instance) "
        "SELECT CAST(detail AS BIGINT), MAX(instance) FROM audit "
        "WHERE event = 'policy applied' AND token_id = '' GROUP BY CAST(detail AS BIGINT)"
    )
