"""Sequence numbers of calls whose keys auth keeps: each given out once, whichever auth gives it.

A number belongs to a pair of instances. Auth takes a block of them from the database and hands it out; what
is left of it when auth ends, or after ``KEEP_MS``, is never used. A block is small and short-lived because
another auth may hand out later ones meanwhile, and no receiver takes one further behind than its window.

A pair's numbers begin with the time, in 2^20ths of a millisecond, so that they go on from there where the
database does not know those that it had: after a restore, which drops the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from mesh.core.names import InstanceId
from services.auth.database import Database
from services.auth.schema import INSTANCE, SEQUENCE

#: Numbers of a block, and how long it may be used. Both far within a receiver's window of 8192 numbers.
BLOCK: Final = 256
KEEP_MS: Final = 1_000
#: Below it, the number of a pair's first call in a millisecond; no pair makes as many calls in one.
TIME_BITS: Final = 20


@dataclass(slots=True)
class _Block:
    next: int
    end: int
    until_ms: int


class Sequences:
    """Hands out sequence numbers, for one thread."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database
        self._blocks: dict[tuple[InstanceId, InstanceId], _Block] = {}

    def next(self, source: InstanceId, destination: InstanceId, now_ms: int) -> int:
        """Give a number that no call between the two had; it is above all that were given here before."""
        block = self._blocks.get((source, destination))
        if block is None or block.next >= block.end or now_ms >= block.until_ms:
            first = self._database.transact(_taking(source, destination, now_ms))
            block = self._blocks[source, destination] = _Block(first, first + BLOCK, now_ms + KEEP_MS)
        block.next += 1
        return block.next - 1

    def sweep(self, now_ms: int) -> None:
        """Forget the pairs of which an end is forgotten, and blocks that are over."""
        self._blocks = {pair: block for pair, block in self._blocks.items() if now_ms < block.until_ms}
        known = select(INSTANCE.c.id)
        gone = SEQUENCE.c.source.not_in(known) | SEQUENCE.c.destination.not_in(known)
        self._database.transact(lambda connection: connection.execute(delete(SEQUENCE).where(gone)))


def _taking(source: InstanceId, destination: InstanceId, now_ms: int) -> Callable[[Connection], int]:
    which = (SEQUENCE.c.source == source.raw) & (SEQUENCE.c.destination == destination.raw)

    def work(connection: Connection) -> int:
        known = connection.scalar(select(SEQUENCE.c.next).where(which))
        if known is not None:
            connection.execute(update(SEQUENCE).where(which).values(next=known + BLOCK))
            return int(known)
        first = now_ms << TIME_BITS
        pair = {"source": source.raw, "destination": destination.raw}
        connection.execute(insert(SEQUENCE).values(next=first + BLOCK, **pair))
        return first

    return work
