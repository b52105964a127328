"""A PostgreSQL database, for several auths.

Every writing transaction holds the lock on the one row of ``generation`` from its first statement on, so
writers come one after the other, in whatever process, and each reads what the one before has committed (READ
COMMITTED, for that lock). Under another KEK than this process knows nothing is written at all: it would be
sealed under the old one.

A commit whose answer was lost is asked about anew, for files are written beside it (``log_store``). If that
cannot be found out (nobody answers, or the server knows nothing of the transaction any more), this process
ends at once, as in a crash, which its next start knows how to recover from.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from services.auth.database import Database, Generation, OvertakenError, StoreError, failing, reason
from services.auth.errors import StartError
from services.auth.migrations import upgrade
from services.auth.notices import CHANNEL, conninfo, listen
from services.auth.portable import as_sqlite

log = logging.getLogger("mesh.auth")

#: How long it is tried to find out what became of a commit.
DOUBT_SECONDS: Final = 30.0
#: The first release with ``pg_current_xact_id``.
OLDEST: Final = 130_000

#: Of each connection: what was committed is on the disk, and no auth that stands still keeps others waiting.
_SETTINGS: Final = (
    ("synchronous_commit", "on"),
    ("lock_timeout", "15s"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("default_transaction_isolation", "read committed"),
    ("client_min_messages", "warning"),
)
_LOCK: Final = text(
    "SELECT changes, keks, CAST(pg_current_xact_id() AS text) AS xid FROM generation FOR UPDATE"
)
_LOOK: Final = text("SELECT changes, keks, extract(epoch FROM clock_timestamp()) AS now FROM generation")
_TELL: Final = text(f"NOTIFY {CHANNEL}")
_STATUS: Final = text("SELECT pg_xact_status(CAST(:xid AS xid8))")
#: Held while a schema is brought up to date; "mesh".
_UPGRADING: Final = text("SELECT pg_advisory_xact_lock(1835365224)")
#: Held while a mesh is founded, or an auth added where one may just be founded; the number before it.
_FOUNDING: Final = text("SELECT pg_advisory_xact_lock(1835365223)")
_FOUNDING_TIME: Final = text("SET LOCAL idle_in_transaction_session_timeout = '60s'")

_R = TypeVar("_R")


class Postgres(Database):
    """A PostgreSQL database."""

    shared = True

    def __init__(self, engine: Engine, url: str) -> None:
        """Take an engine, and the URL that it connects to."""
        super().__init__()
        self._engine, self._url = engine, url
        self._ahead = 0.0
        self.known = self.look()

    @classmethod
    def open(cls, url: str, *, new: bool = False) -> Self:
        """Connect, and bring the schema up to date; raise ``StartError``. ``new``: it is empty."""
        engine = _engine(url)
        try:
            with engine.begin() as connection:
                _check(connection, new)
            return cls(engine, url)
        except SQLAlchemyError as error:
            engine.dispose()
            raise StartError(f"cannot use the database: {reason(error)}") from None
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, work: Callable[[Connection], _R]) -> _R:
        """Do ``work``, which only reads; raise ``StoreError``."""
        return self._again(lambda: self._read(work))

    def look(self) -> Generation:
        """Give what there is to take up, and the server's time with it."""
        asked = time.monotonic()
        row = self.read(lambda connection: connection.execute(_LOOK).one())
        self._ahead = float(row.now) - asked
        return Generation(row.changes, row.keks)

    async def listen(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever an auth may have changed something, for ever."""
        await listen(self._url, told)

    def tell(self, connection: Connection) -> None:
        """Tell all auths once it is committed."""
        connection.execute(_TELL)

    def wall(self) -> float:
        """Give the server's time, as of the last look: so all auths have one."""
        return time.monotonic() + self._ahead

    def checkpoint(self) -> bool:
        """Nothing can be done from here: VACUUM and the removal of WAL are the server's."""
        return True

    def snapshot(self, replica: str) -> bytes:
        """Give the database as of one moment, as the bytes of a SQLite file; raise ``StoreError``."""

        def work(connection: Connection) -> bytes:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return as_sqlite(connection, replica)

        return self.read(work)

    def _transact(self, work: Callable[[Connection], _R]) -> _R:
        connection, xid = self._again(self._lock)
        try:
            result = work(connection)
            self._commit(connection, xid)
        finally:
            connection.close()
        return result

    def _read(self, work: Callable[[Connection], _R]) -> _R:
        with self._engine.begin() as connection:
            return work(connection)

    def _lock(self) -> tuple[Connection, str]:
        connection = self._engine.connect()
        try:
            return connection, self._lock_of(connection)
        except BaseException:
            connection.close()
            raise

    def _lock_of(self, connection: Connection) -> str:
        row = connection.execute(_LOCK).first()
        if row is None:
            raise StoreError("the database was changed: restore it from a backup")
        if row.keks != self.known.keks:
            raise OvertakenError
        return str(row.xid)

    def _again(self, work: Callable[[], _R]) -> _R:
        # A connection may have been lost while it was idle, as when the server was started anew.
        with failing():
            try:
                return work()
            except SQLAlchemyError as error:
                if not getattr(error, "connection_invalidated", False):
                    raise
            return work()

    def _commit(self, connection: Connection, xid: str) -> None:
        try:
            connection.commit()
        except SQLAlchemyError:
            if not self._was_committed(xid):
                raise

    def _was_committed(self, xid: str) -> bool:
        until = time.monotonic() + DOUBT_SECONDS
        while time.monotonic() < until:
            with suppress(SQLAlchemyError), self._engine.begin() as connection:
                status = connection.scalar(_STATUS, {"xid": xid})
                if status is None:
                    break
                if status != "in progress":
                    return bool(status == "committed")
            time.sleep(0.1)
        log.critical(
            "whether the last commit was made cannot be found out: ending, to recover at the next start"
        )
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@contextmanager
def alone(url: str) -> Iterator[bool]:
    """Let nobody else found a mesh there meanwhile, and give whether there is one; raise ``StartError``."""
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(_FOUNDING_TIME)
            connection.execute(_FOUNDING)
            yield _holds_a_mesh(connection)
    except SQLAlchemyError as error:
        raise StartError(f"cannot use the database: {reason(error)}") from None
    finally:
        engine.dispose()


def _holds_a_mesh(connection: Connection) -> bool:
    # Tables alone are none: whoever made them was killed before it had written a row.
    if connection.scalar(text("SELECT to_regclass('trust_domain')")) is None:
        return False
    return bool(connection.scalar(text("SELECT count(*) FROM trust_domain")))


def _engine(url: str) -> Engine:
    try:
        import psycopg  # noqa: PLC0415  an extra
    except ImportError:
        raise StartError("PostgreSQL needs its driver: pip install 'sealmesh[postgres]'") from None
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(conninfo(url)),
        pool_size=1,
    )
    event.listen(engine, "connect", _on_connect)
    return engine


def _on_connect(connection: Any, _record: object) -> None:
    for name, value in _SETTINGS:
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()


def _check(connection: Connection, new: bool) -> None:
    if int(connection.scalar(text("SHOW server_version_num")) or 0) < OLDEST:
        raise StartError("the server's PostgreSQL is too old: use 13 or newer")
    connection.execute(_UPGRADING)
    if new and _holds_a_mesh(connection):
        raise StartError(
            "the database holds a mesh already: name an empty one, or add an auth with mesh replica"
        )
    upgrade(connection, new=new)
