"""What is to be told, bounded, with exact counts of what is not told one by one.

Things that are alike while they wait are one, with a count. A source that brings too many different ones (a
hostile member that tries every method) has them counted, not kept: a bucket of ``burst``, filled again by
``per_second``, and the counts themselves are told once in ``counts_every_ms``. What was told and comes
again may be held for ``again_every_ms``, with a count. What is above ``capacity`` is counted by source as
well, and the sources above ``sources`` together. So what this holds and what comes out of it are bounded
whatever is put in, and the counts that come out add up to it.

Budgets go by the ``now_ms`` of whoever keeps the tally, never by the times in what is told; a time before one
that was seen is taken for that one, so nobody gains by a clock that goes back.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)

#: The source of what is counted together.
ALL: Final = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept and told. ``burst`` and ``per_second`` are in the unit of a thing's cost."""

    burst: int = 50
    per_second: int = 1
    capacity: int = 256
    sources: int = 64
    counts_every_ms: int = 10_000
    again_every_ms: int = 0


@dataclass(frozen=True, slots=True)
class Told(Generic[_T]):
    """A thing, or (``None``) the things of a source that were only counted; ``id`` is the first one's."""

    what: _T | None
    source: str
    id: str
    count: int
    first_ms: int
    last_ms: int


@dataclass(slots=True)
class _Bucket:
    left: float
    at_ms: int


class Tally(Generic[_T]):
    """Counts things by their sources."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Begin with nothing."""
        self._limits = limits or Limits()
        self._waiting: dict[tuple[str, _T | None], Told[_T]] = {}
        self._counted = 0
        self._buckets: dict[str, _Bucket] = {}
        self._due_at_ms: dict[tuple[str, _T | None], int] = {}
        self._latest_ms = 0

    def __len__(self) -> int:
        """How many different things wait, counts not among them."""
        return len(self._waiting) - self._counted

    def note(self, told: Told[_T], now_ms: int, cost: int = 1) -> bool:
        """Take a thing, or counts from elsewhere; give whether it will be told by itself."""
        now_ms = self._reach(now_ms)
        key = (told.source, told.what)
        itself = told.what is not None and (
            key in self._waiting
            or (len(self) < self._limits.capacity and self._spend(told.source, now_ms, cost))
        )
        self._add(told if itself else self._as_count(told))
        return itself

    def take(self, most: int, now_ms: int, *, everything: bool = False) -> list[Told[_T]]:
        """Take out up to ``most`` of what is due; with ``everything``, also what is before its time."""
        now_ms = self._reach(now_ms)
        due = [key for key in self._waiting if everything or self._is_due(key, now_ms)][:most]
        for key in due:
            is_count = key[1] is None
            self._counted -= is_count
            every_ms = self._limits.counts_every_ms if is_count else self._limits.again_every_ms
            if every_ms:
                self._due_at_ms[key] = now_ms + every_ms
        self._forget(now_ms)
        return [self._waiting.pop(key) for key in due]

    def give_back(self, told: Iterable[Told[_T]]) -> None:
        """Take again what could not be told: nothing is lost, and it is due at once."""
        for one in told:
            self._due_at_ms.pop((one.source, one.what), None)
            self._add(one)

    def copy(self) -> Tally[_T]:
        """Give another one that is as this is now."""
        other = Tally[_T](self._limits)
        other._waiting, other._counted = dict(self._waiting), self._counted
        other._buckets = {source: replace(bucket) for source, bucket in self._buckets.items()}
        other._due_at_ms, other._latest_ms = dict(self._due_at_ms), self._latest_ms
        return other

    def is_due(self, now_ms: int) -> bool:
        """Whether there is anything to take."""
        now_ms = max(self._latest_ms, now_ms)
        return any(self._is_due(key, now_ms) for key in self._waiting)

    def _reach(self, now_ms: int) -> int:
        self._latest_ms = max(self._latest_ms, now_ms)
        return self._latest_ms

    def _is_due(self, key: tuple[str, _T | None], now_ms: int) -> bool:
        return self._due_at_ms.get(key, 0) <= now_ms

    def _add(self, told: Told[_T]) -> None:
        key = (told.source, told.what)
        before = self._waiting.get(key)
        if before is not None:
            told = replace(
                before if before.first_ms <= told.first_ms else told,
                count=before.count + told.count,
                first_ms=min(before.first_ms, told.first_ms),
                last_ms=max(before.last_ms, told.last_ms),
            )
        elif told.what is None:
            self._counted += 1
        self._waiting[key] = told

    def _as_count(self, told: Told[_T]) -> Told[_T]:
        known = (told.source, None) in self._waiting or self._counted < self._limits.sources
        return replace(told, what=None, source=told.source if known else ALL, id="")

    def _spend(self, source: str, now_ms: int, cost: int) -> bool:
        bucket = self._buckets.get(source)
        if bucket is None:
            self._forget(now_ms)
            if len(self._buckets) >= self._limits.sources:
                return False
            bucket = self._buckets[source] = _Bucket(self._limits.burst, now_ms)
        passed = now_ms - bucket.at_ms
        bucket.left = min(self._limits.burst, bucket.left + passed * self._limits.per_second / 1000)
        bucket.at_ms = now_ms
        if bucket.left < cost:
            return False
        bucket.left -= cost
        return True

    def _forget(self, now_ms: int) -> None:
        # A bucket that is full again says nothing; so does a time that has come.
        rate = self._limits.per_second / 1000
        full = [
            source
            for source, bucket in self._buckets.items()
            if bucket.left + (now_ms - bucket.at_ms) * rate >= self._limits.burst
        ]
        for source in full:
            del self._buckets[source]
        for key in [key for key, at_ms in self._due_at_ms.items() if at_ms <= now_ms]:
            del self._due_at_ms[key]
