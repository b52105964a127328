"""How long calls took, in the store of recorded decisions: a histogram of each minute, caller and method.

It is a table of its own in the same file, added when a file without it is opened; a gatekeeper that is older
leaves it alone, so the file's version stays what it was. Histograms of a row are added up by a function that
every connection is given.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    RowMapping,
    String,
    Table,
    UniqueConstraint,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from mesh.core.latency import Latency, added, decode, encode
from mesh.core.observed import MAX_COUNT
from services.gatekeeper.decision_rows import MINUTE_MS, TABLES

#: Rows in a file and in memory are together less than that part of decisions: a fifth.
PART: Final = 5
#: What part of the rows goes at once when there are too many.
_SLICE: Final = 20

TIMED: Final = Table(
    "latency",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("bucket_ms", BigInteger, nullable=False),
    Column("destination", String(125), nullable=False),
    Column("source", String(125), nullable=False),
    Column("method", String(512), nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False, index=True),
    Column("failed", BigInteger, nullable=False),
    Column("buckets", String, nullable=False),
    UniqueConstraint("bucket_ms", "destination", "source", "method"),
)
_C: Final = TIMED.c
_ADDED: Final = "mesh_added"


def give_function(connection: sqlite3.Connection) -> None:
    """Let a connection add histograms up."""
    connection.create_function(
        _ADDED, 2, lambda one, more: encode(added(decode(one), decode(more))), deterministic=True
    )


def add(connection: Connection, latencies: Sequence[Latency], oldest_ms: int, most: int) -> None:
    """Add histograms, and let go what ended before a time or is over ``most`` rows."""
    connection.execute(TIMED.delete().where(_C.last_ms < oldest_ms))
    if not latencies:
        return
    adding = insert(TIMED)
    more = adding.excluded
    adding = adding.on_conflict_do_update(
        index_elements=[_C.bucket_ms, _C.destination, _C.source, _C.method],
        set_={
            "failed": func.min(_C.failed + more.failed, MAX_COUNT),
            "first_ms": func.min(_C.first_ms, more.first_ms),
            "last_ms": func.max(_C.last_ms, more.last_ms),
            "buckets": getattr(func, _ADDED)(_C.buckets, more.buckets),
        },
    )
    connection.execute(adding, [_row(one) for one in latencies])
    while (connection.scalar(select(func.count()).select_from(TIMED)) or 0) > most:
        _push_out(connection, most)


def page(
    connection: Connection, since_ms: int, until_ms: int, after: int, most: int
) -> list[tuple[int, Latency]]:
    """Give rows with calls in a span of time, each with its id."""
    wanted = select(TIMED).where(_C.id > after, _C.last_ms >= since_ms, _C.first_ms < until_ms)
    found = connection.execute(wanted.order_by(_C.id).limit(most)).mappings().all()
    return [(row["id"], _latency(row)) for row in found]


def _latency(row: RowMapping) -> Latency:
    edge = (row["source"], row["destination"], row["method"])
    return Latency(*edge, row["first_ms"], row["last_ms"], decode(row["buckets"]), row["failed"])


def _push_out(connection: Connection, most: int) -> None:
    # The oldest of the service that has most, so that it pushes out nobody's but its own.
    count = func.count()
    largest = select(_C.destination).group_by(_C.destination).order_by(count.desc(), _C.destination).limit(1)
    oldest = (
        select(_C.id)
        .where(_C.destination == connection.scalar(largest))
        .order_by(_C.last_ms, _C.id)
        .limit(max(1, most // _SLICE))
    )
    connection.execute(TIMED.delete().where(_C.id.in_(oldest)))


def _row(one: Latency) -> dict[str, object]:
    return {
        "bucket_ms": one.first_ms // MINUTE_MS * MINUTE_MS,
        "destination": one.destination,
        "source": one.source,
        "method": one.method,
        "first_ms": one.first_ms,
        "last_ms": one.last_ms,
        "failed": one.failed,
        "buckets": encode(one.buckets),
    }
