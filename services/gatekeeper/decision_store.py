"""Recorded decisions on the disk, or in memory: alike ones of a minute are one row, within a bound.

Rows go when they are older than wanted, and when there are too many: then the oldest ones of the service that
has most of them, so that one that makes up callers pushes out nobody's but its own. What goes that way is
counted, by service and hour, as calls that were not recorded.

A file that is no database of this kind is moved aside. One connection, used by one thread at a time. What was
written in the last moments before a loss of power may be lost with it: nothing else is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from mesh.core.latency import Latency
from mesh.core.observed import MAX_COUNT, Gap, Seen
from services.gatekeeper import latency_rows
from services.gatekeeper.decision_rows import ROW, TABLES, as_row, seen_in

log = logging.getLogger("mesh.gatekeeper")

#: Rows that a file holds, and memory: some 200 MB, and 20 MB.
MOST_IN_FILE: Final = 500_000
MOST_IN_MEMORY: Final = 50_000
#: What part of the rows goes at once when there are too many.
_PART: Final = 20
_VERSION: Final = 1
_BUSY_SECONDS: Final = 5.0
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=NORMAL", "trusted_schema=OFF")
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_C: Final = ROW.c


class StoreError(OSError):
    """The store cannot be read or written now; ``damaged`` if it never will be."""

    def __init__(self, why: str, *, damaged: bool = False) -> None:
        """Take why."""
        super().__init__(f"cannot use the recorded decisions: {why}")
        self.damaged = damaged

    @classmethod
    def of(cls, error: SQLAlchemyError) -> Self:
        """Take what the database says, without the statement and its values."""
        original = getattr(error, "orig", None)
        code = getattr(original, "sqlite_errorcode", None)
        return cls(str(original or type(error).__name__), damaged=code in _DAMAGED)


class DecisionStore:
    """An open store."""

    def __init__(self, engine: Engine, most: int) -> None:
        """Take an engine of one connection, and how many rows there may be."""
        self._engine, self._most = engine, most
        try:
            self._connection = engine.connect()
            with self._connection.begin():
                _prepare(self._connection)
                self._rows = self._connection.scalar(select(func.count()).select_from(ROW)) or 0
        except SQLAlchemyError as error:
            engine.dispose()
            raise StoreError.of(error) from None
        except StoreError:
            engine.dispose()
            raise

    @classmethod
    def open(cls, path: Path | None, most: int = 0) -> Self:
        """Open a file, or memory for ``None``; where the file cannot be used, say so and use memory."""
        if path is None:
            return cls(_engine("file::memory:"), most or MOST_IN_MEMORY)
        try:
            return cls._open_file(path, most or MOST_IN_FILE)
        except OSError as error:
            reason = error.strerror or error
            log.error("%s: %s: recorded decisions are kept in memory, until the next start", path, reason)  # noqa: TRY400
            return cls.open(None, most)

    @classmethod
    def _open_file(cls, path: Path, most: int) -> Self:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        uri = f"{path.absolute().as_uri()}?mode=rw"
        try:
            return cls(_engine(uri), most)
        except StoreError as error:
            if not error.damaged:
                raise
            aside = path.with_name(f"{path.name}.damaged")
            log.error("%s is damaged: moved to %s, and begun anew", path, aside.name)  # noqa: TRY400
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        return cls._open_file(path, most)

    def close(self) -> None:
        """Close."""
        self._connection.close()
        self._engine.dispose()

    def add(self, seen: Sequence[Seen], oldest_ms: int) -> None:
        """Add what was seen, and let go what was last seen before a time; raise ``StoreError``."""
        try:
            with self._connection.begin():
                gone = self._connection.execute(ROW.delete().where(_C.last_ms < oldest_ms))
                self._rows -= gone.rowcount
                self._rows += self._insert([as_row(one) for one in seen])
                while self._rows > self._most and self._push_out():
                    pass
        except SQLAlchemyError as error:
            raise StoreError.of(error) from None

    def page(
        self, since_ms: int, until_ms: int, destinations: Iterable[str], after: int, most: int
    ) -> list[tuple[int, Seen]]:
        """Give rows with calls in a span of time, each with its id; raise ``StoreError``."""
        wanted = select(ROW).where(_C.id > after, _C.last_ms >= since_ms, _C.first_ms < until_ms)
        if names := list(destinations):
            wanted = wanted.where(_C.destination.in_(names))
        try:
            with self._connection.begin():
                found = self._connection.execute(wanted.order_by(_C.id).limit(most)).mappings().all()
        except SQLAlchemyError as error:
            raise StoreError.of(error) from None
        return [(row["id"], seen_in(row)) for row in found]

    def add_latencies(self, latencies: Sequence[Latency], oldest_ms: int) -> None:
        """Add how long calls took, and let go what ended before a time; raise ``StoreError``."""
        try:
            with self._connection.begin():
                latency_rows.add(
                    self._connection, latencies, oldest_ms, max(1, self._most // latency_rows.PART)
                )
        except SQLAlchemyError as error:
            raise StoreError.of(error) from None

    def latencies(self, since_ms: int, until_ms: int, after: int, most: int) -> list[tuple[int, Latency]]:
        """Give histograms of a span of time, each with its id; raise ``StoreError``."""
        try:
            with self._connection.begin():
                return latency_rows.page(self._connection, since_ms, until_ms, after, most)
        except SQLAlchemyError as error:
            raise StoreError.of(error) from None

    def _insert(self, rows: list[dict[str, object]]) -> int:
        """Add rows, or their counts to those that are there; give how many rows are new."""
        if not rows:
            return 0
        newest = select(func.coalesce(func.max(_C.id), 0))
        before = self._connection.scalar(newest) or 0
        adding = insert(ROW)
        more = adding.excluded
        adding = adding.on_conflict_do_update(
            index_elements=[_C.bucket_ms, _C.digest],
            set_={
                "calls": func.min(_C.calls + more.calls, MAX_COUNT),
                "first_ms": func.min(_C.first_ms, more.first_ms),
                "last_ms": func.max(_C.last_ms, more.last_ms),
            },
        )
        self._connection.execute(adding, rows)
        return (self._connection.scalar(newest) or 0) - before

    def _push_out(self) -> bool:
        count = func.count().label("rows")
        largest = (
            select(_C.destination, count)
            .where(_C.source != "")
            .group_by(_C.destination)
            .order_by(count.desc(), _C.destination)
            .limit(1)
        )
        found = self._connection.execute(largest).first()
        if found is None:
            return False
        oldest = (
            select(_C.id)
            .where(_C.destination == found.destination, _C.source != "")
            .order_by(_C.last_ms, _C.id)
            .limit(max(1, self._most // _PART))
        )
        # Not sum(), which fails where it overflows.
        sums = select(func.total(_C.calls), func.min(_C.first_ms), func.max(_C.last_ms))
        lost, first_ms, last_ms = self._connection.execute(sums.where(_C.id.in_(oldest))).one()
        lost = min(int(lost), MAX_COUNT)
        self._rows -= self._connection.execute(ROW.delete().where(_C.id.in_(oldest))).rowcount
        self._rows += self._insert([as_row(Gap(found.destination, first_ms, last_ms, lost))])
        log.warning(
            "recorded decisions: over %d rows: the oldest %d calls to %s are only counted now",
            self._most,
            lost,
            found.destination,
        )
        return True


def _prepare(connection: Connection) -> None:
    if connection.scalar(text("PRAGMA quick_check")) != "ok" or not _is_ours(connection):
        raise StoreError("it is damaged, or of another kind", damaged=True)
    TABLES.create_all(connection)
    connection.execute(text(f"PRAGMA user_version={_VERSION}"))


def _is_ours(connection: Connection) -> bool:
    version = connection.scalar(text("PRAGMA user_version"))
    tables = connection.scalar(text("SELECT count(*) FROM sqlite_master"))
    return bool(version == _VERSION or (version == 0 and tables == 0))


def _engine(uri: str) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False),
        poolclass=StaticPool,
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun above, not by the driver.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()
    latency_rows.give_function(connection)
