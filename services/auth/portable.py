"""The rows of a database as those of another, whichever engines they have: for backups and for moving."""

import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, create_engine, delete, event, insert, select
from sqlalchemy.pool import StaticPool

from services.auth.migrations import upgrade
from services.auth.schema import AUDIT_LOG, METADATA

#: Rows that are read and written at once.
PIECE: Final = 1000


def as_sqlite(source: Connection, replica: str) -> bytes:
    """Give the bytes of a SQLite file with the rows of a database of the newest schema; see ``copy_rows``."""
    raw = sqlite3.connect(":memory:", check_same_thread=False)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    event.listen(engine, "connect", _by_hand)
    try:
        with engine.connect() as connection:
            with connection.begin():
                upgrade(connection, new=True)
                copy_rows(source, connection, replica, "")
            return raw.serialize()
    finally:
        engine.dispose()
        raw.close()


def copy_rows(source: Connection, target: Connection, replica: str, becomes: str) -> None:
    """Put the rows of a database in the place of those of another; both have the newest schema.

    Of the ends of audit logs, those of one auth alone, which gets another name.
    """
    for table in METADATA.sorted_tables:
        target.execute(delete(table))
        found = select(table)
        if table is AUDIT_LOG:
            found = found.where(AUDIT_LOG.c.replica == replica)
        renamed = {"replica": becomes} if table is AUDIT_LOG else {}
        rows = source.execute(found).mappings()
        while some := rows.fetchmany(PIECE):
            target.execute(insert(table), [dict(row) | renamed for row in some])


def _by_hand(connection: Any, _record: object) -> None:
    connection.isolation_level = None
