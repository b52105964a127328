"""A SQLite file as a database: opened and brought up to date, or refused; transactions that are durable.

WAL mode with ``synchronous=FULL``: what was committed survives the loss of power. There is one connection,
used by one thread at a time (``worker``), and each transaction takes the write lock when it begins, so what
it reads stays so until it ends.
"""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from services.auth.database import Database, Generation, StoreError, generation, reason
from services.auth.errors import StartError
from services.auth.migrations import upgrade

_BUSY_SECONDS: Final = 5.0
#: secure_delete overwrites what is deleted: a forgotten root is gone, even for a thief of database and KEK.
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF")

_R = TypeVar("_R")


class Sqlite(Database):
    """A SQLite file, of one auth alone."""

    def __init__(self, connection: Connection) -> None:
        """Take the one connection."""
        super().__init__()
        self._connection = connection
        self.known = self.transact(generation)

    @classmethod
    def open(cls, path: Path, *, new: bool = False) -> Self:
        """Open a file and bring it to the newest schema; raise ``StartError``.

        Makes no file; ``new`` says that the one there is empty, and is to be.
        """
        if not path.is_file() or not (new or path.stat().st_size):
            raise StartError(f"no database {path}: restore it from a backup, or make a new mesh elsewhere")
        engine = _engine(path)
        try:
            connection = engine.connect()
            _check(connection, path, new)
        except SQLAlchemyError as error:
            engine.dispose()
            raise StartError(
                f"cannot use {path}: {reason(error)}: let this user write it, or restore it from a backup"
            ) from None
        except BaseException:
            engine.dispose()
            raise
        return cls(connection)

    def close(self) -> None:
        """Close, which merges the write-ahead log into the file."""
        self._connection.close()
        self._connection.engine.dispose()

    def read(self, work: Callable[[Connection], _R]) -> _R:
        """Do ``work``, which only reads; raise ``StoreError``."""
        return self.transact(work)

    def look(self) -> Generation:
        """Give what there is to take up: nothing, but after this process's own changes."""
        return self.known

    async def listen(self, _told: Callable[[], None]) -> None:
        """Tell nothing: nobody else changes it."""

    def tell(self, _connection: Connection) -> None:
        """Tell nobody."""

    def wall(self) -> float:
        """Give the time of this machine."""
        return time.time()

    def _transact(self, work: Callable[[Connection], _R]) -> _R:
        with self._connection.begin():
            return work(self._connection)

    def checkpoint(self) -> bool:
        """Merge the write-ahead log into the file and empty it; whether that was possible now."""
        raw: Any = self._connection.connection.driver_connection
        try:
            busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        return not busy

    def snapshot(self, _replica: str) -> bytes:
        """Give the whole database as of one moment, as a file's bytes; raise ``StoreError``."""
        raw: Any = self._connection.connection.driver_connection
        try:
            with closing(sqlite3.connect(":memory:")) as copy:
                raw.backup(copy)
                return copy.serialize()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read the database: {error}") from None


def _check(connection: Connection, path: Path, new: bool) -> None:
    with connection.begin():
        if connection.scalar(text("PRAGMA quick_check")) != "ok":
            raise StartError(f"{path} is damaged: restore it from a backup")
        upgrade(connection, new=new)


def _engine(path: Path) -> Engine:
    # mode=rw: SQLite would otherwise make the file that is missing.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False),
        poolclass=StaticPool,
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun below, not by the driver, which would leave reads and DDL outside of them.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
