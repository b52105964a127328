"""Sealed secrets name their KEK, and a secret of the trust domain has versions beside each other."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

#: The KEK's id in what was sealed before there were ids.
_NO_ID: Final = bytes(8)
_SEALED: Final = {"secret": "name", "epoch": "number", "token": "id", "audit_log": "name"}


def upgrade() -> None:
    """Put the id in front of every sealed secret, and make the version a part of a secret's key."""
    connection = op.get_bind()
    for name, key in _SEALED.items():
        table = sa.table(name, sa.column(key), sa.column("sealed", sa.LargeBinary))
        for row in connection.execute(sa.select(table)).all():
            named = sa.update(table).where(table.c[key] == row[0]).values(sealed=_NO_ID + row.sealed)
            connection.execute(named)
    op.rename_table("secret", "secret_before")
    if connection.dialect.name == "postgresql":
        # There an index keeps its name, which is the schema's, not its table's.
        op.execute("ALTER TABLE secret_before RENAME CONSTRAINT pk_secret TO pk_secret_before")
    op.create_table(
        "secret",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("public", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_secret"),
    )
    op.execute(
        "INSERT INTO secret (name, version, public, sealed) "
        "SELECT name, version, public, sealed FROM secret_before"
    )
    op.drop_table("secret_before")
