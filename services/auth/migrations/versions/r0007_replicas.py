"""Several auths on one database: each has audit logs of its own, and they tell each other of changes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Name whose each audit log is, and begin to count changes."""
    connection = op.get_bind()
    op.rename_table("audit_log", "audit_log_before")
    if connection.dialect.name == "postgresql":
        op.execute("ALTER TABLE audit_log_before RENAME CONSTRAINT pk_audit_log TO pk_audit_log_before")
    op.create_table(
        "audit_log",
        sa.Column("replica", sa.String(16), nullable=False),
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("first_segment", sa.BigInteger, nullable=False),
        sa.Column("segment", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("replica", "name", name="pk_audit_log"),
    )
    op.execute(
        "INSERT INTO audit_log (replica, name, first_segment, segment, sequence, size, mac, at_ms, sealed) "
        "SELECT '', name, first_segment, segment, sequence, size, mac, at_ms, sealed FROM audit_log_before"
    )
    op.drop_table("audit_log_before")
    made = op.create_table(
        "generation",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
        sa.Column("keks", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_generation"),
    )
    op.bulk_insert(made, [{"name": "all", "changes": 0, "keks": 0}])
