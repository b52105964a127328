"""Transactions that write to the audit logs: the entry is on the disk before the rest of it commits.

``audit`` is what writes the files; it is set once the data directory is open, and nothing is logged before.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from sqlalchemy import Connection, delete, func, select

from mesh.core.audit import Entry
from services.auth import rows
from services.auth.audit_log import ACTIONS, AuditLog
from services.auth.database import Database
from services.auth.failpoints import reach
from services.auth.records import LogRow
from services.auth.schema import AUDIT, AUDIT_LOG

#: Entries of an older version that are moved in one transaction.
MOVED_AT_ONCE: Final = 256

_R = TypeVar("_R")


class LogStore:
    """The audit logs, as far as the database has to do with them."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database
        self.audit: AuditLog | None = None

    def close(self) -> None:
        """Close the files."""
        if self.audit is not None:
            self.audit.close()

    def rows(self) -> list[LogRow]:
        """Give the ends of the logs."""
        return self._database.transact(
            lambda connection: [rows.log_of(row) for row in connection.execute(select(AUDIT_LOG))]
        )

    def begin(self, logs: Iterable[LogRow]) -> None:
        """Begin the logs of a database that is older than they are."""

        def work(connection: Connection) -> None:
            for log in logs:
                rows.put_log(connection, log)

        self._database.transact(work)

    def logged(self, work: Callable[[Connection], bool], entry: Entry) -> bool:
        """Do all of ``work`` and log it, or nothing of both; nothing is logged if it gives False.

        Raises ``AuditError`` where the log cannot be written.
        """
        return bool(self.logged_all(lambda connection: (entry,) if work(connection) else ()))

    def logged_all(self, work: Callable[[Connection], Sequence[Entry]]) -> Sequence[Entry]:
        """Do all of ``work`` and log the entries that it gives, or nothing of both; give them, too.

        Raises ``AuditError`` where the log cannot be written.
        """

        def both(connection: Connection) -> Sequence[Entry]:
            if entries := work(connection):
                self.open.append(connection, ACTIONS, entries)
                reach("logged")
            return entries

        return self._settled(both)

    def log(self, log: str, entries: Sequence[Entry]) -> None:
        """Write entries to a log; raise ``AuditError``."""
        self._settled(lambda connection: self.open.append(connection, log, entries))

    def recover(self, now_ms: int) -> list[Entry]:
        """Make the logs fit their ends after a crash or a change; give what was found."""
        return self._settled(lambda connection: self.open.recover(connection, now_ms))

    def move_old_entries(self) -> None:
        """Move the entries of an older version of this database to the log."""
        oldest = select(AUDIT).order_by(AUDIT.c.id).limit(MOVED_AT_ONCE)

        def work(connection: Connection) -> bool:
            found = connection.execute(oldest).all()
            if found:
                self.open.append(connection, ACTIONS, [rows.old_entry_of(row) for row in found])
                connection.execute(delete(AUDIT).where(AUDIT.c.id <= found[-1].id))
            return bool(found)

        while self._settled(work):
            pass

    def forget_old_keys(self) -> None:
        """Empty the database's write-ahead log, which holds keys that the audit logs have left behind."""
        if self.open.stale_keys and self._database.checkpoint():
            self.open.stale_keys = False

    def newest_ms(self) -> int:
        """When the newest entry of any log was written; 0 without any."""
        newest = select(func.max(AUDIT_LOG.c.at_ms)), select(func.max(AUDIT.c.at_ms))
        return self._database.transact(
            lambda connection: max(int(connection.scalar(one) or 0) for one in newest)
        )

    def _settled(self, work: Callable[[Connection], _R]) -> _R:
        return self.open.settle(lambda: self._database.transact(work))

    @property
    def open(self) -> AuditLog:
        """The logs, open for writing."""
        if self.audit is None:
            raise AssertionError
        return self.audit
