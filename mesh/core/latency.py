"""How long calls took, counted: histograms of few buckets that can be added up, by caller and method.

Each bucket ends 2^(1/4) times further than the one before, from 64 us to a quarter of an hour, so what is
read of one is wrong by a bounded part of itself: ``ERROR``. What is shorter or longer is counted with the
outermost buckets, and told as their bounds. Only calls that policy permitted are counted: those that it
denies take no time to speak of, and would make a service look fast.

There are bounds to how many histograms are kept apart, so that no caller can fill what is kept here by trying
methods: past one, calls of a caller are counted under no method, and past another under no caller's name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from mesh.core.names import full_method, service_name
from mesh.core.observed import MAX_COUNT, MAX_TIME

#: Where the first bucket ends, in seconds; how many buckets double that; how many there are but for the last.
LEAST: Final = 64e-6
_PER_DOUBLING: Final = 4
BOUNDS: Final = tuple(LEAST * 2 ** (number / _PER_DOUBLING) for number in range(96))
#: By what part of itself a time that is read from a histogram may be wrong, between the outermost bounds.
ERROR: Final = 2 ** (0.5 / _PER_DOUBLING) - 1
#: How many histograms one node keeps apart, and of one caller.
MOST: Final = 512
MOST_OF_CALLER: Final = 128
#: Stands for callers that were too many.
OTHER: Final = "?"


@dataclass(frozen=True, slots=True)
class Latency:
    """Calls of a service to a method of another that have ended, within a span of time.

    ``buckets``: number of the bucket and how many calls, in order. ``failed``: how many of them ended in an
    error that is the callee's. An empty ``method`` is calls to many methods.
    """

    source: str
    destination: str
    method: str
    first_ms: int
    last_ms: int
    buckets: tuple[tuple[int, int], ...]
    failed: int = 0

    @property
    def count(self) -> int:
        """How many calls."""
        return sum(count for _, count in self.buckets)


def bucket(seconds: float) -> int:
    """Give the number of the bucket that a time falls into."""
    return bisect_left(BOUNDS, seconds)


def added(*histograms: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Add histograms up; a bucket that is full stays ``MAX_COUNT``."""
    total: Counter[int] = Counter()
    for histogram in histograms:
        for number, count in histogram:
            total[number] = min(MAX_COUNT, total[number] + count)
    return tuple(sorted(total.items()))


def merged(one: Latency, more: Latency) -> Latency:
    """Give the first with the calls of the second added to it."""
    return replace(
        one,
        first_ms=min(one.first_ms, more.first_ms),
        last_ms=max(one.last_ms, more.last_ms),
        buckets=added(one.buckets, more.buckets),
        failed=min(MAX_COUNT, one.failed + more.failed),
    )


def quantile(buckets: Iterable[tuple[int, int]], part: float) -> float:
    """Give seconds within which ``part`` of the calls ended, 0 to 1; raise ``ValueError`` for none."""
    counted = sorted(buckets)
    rank = max(1, ceil(part * sum(count for _, count in counted)))
    for number, count in counted:
        rank -= count
        if rank <= 0:
            return _middle(number)
    raise ValueError("no calls: nothing to say of how long they took")


def _middle(number: int) -> float:
    # As far from both ends, as parts of itself.
    if number in (0, len(BOUNDS)):
        return BOUNDS[min(number, len(BOUNDS) - 1)]
    return float((BOUNDS[number - 1] * BOUNDS[number]) ** 0.5)


def check(one: Latency) -> None:
    """Raise ``ValueError`` for what ``Latencies`` would not have given."""
    if service_name(one.destination).reserved:
        raise ValueError("calls to the mesh's own services are not timed here")
    if one.source != OTHER:
        service_name(one.source)
    if one.method:
        full_method(one.method)
    if not 0 <= one.first_ms <= one.last_ms <= MAX_TIME or not 0 <= one.failed <= one.count <= MAX_COUNT:
        raise ValueError("the times or the counts are out of range")
    if not one.buckets or any(not 0 <= number <= len(BOUNDS) or count < 1 for number, count in one.buckets):
        raise ValueError("the histogram is none")


class _Held:
    """A histogram that is being filled."""

    __slots__ = ("buckets", "failed", "first_ms", "last_ms")

    def __init__(self, now_ms: int) -> None:
        self.buckets: dict[int, int] = {}
        self.failed, self.first_ms, self.last_ms = 0, now_ms, now_ms


class Latencies:
    """Counts how long calls to one service took, until that is taken out."""

    def __init__(self, destination: str) -> None:
        """Begin with nothing."""
        self.destination = destination
        self._held: dict[tuple[str, str], _Held] = {}
        self._of_caller: Counter[str] = Counter()

    def note(self, source: str, method: str, seconds: float, now_ms: int, *, failed: bool) -> None:
        """Count a call that has ended now."""
        held = self._held.get((source, method)) or self._room(source, method, now_ms)
        number = bisect_left(BOUNDS, seconds)
        held.buckets[number] = held.buckets.get(number, 0) + 1
        held.failed += failed
        held.last_ms = max(held.last_ms, now_ms)
        held.first_ms = min(held.first_ms, now_ms)

    def take(self) -> list[Latency]:
        """Take out all that was counted."""
        found = [self._latency(*key, held) for key, held in self._held.items()]
        self._held.clear()
        self._of_caller.clear()
        return found

    def give_back(self, latencies: Iterable[Latency]) -> None:
        """Count again what could not be told."""
        for one in latencies:
            held = self._held.get((one.source, one.method)) or self._room(
                one.source, one.method, one.first_ms
            )
            _add(held.buckets, one.buckets)
            held.failed += one.failed
            held.first_ms, held.last_ms = min(held.first_ms, one.first_ms), max(held.last_ms, one.last_ms)

    def _room(self, source: str, method: str, now_ms: int) -> _Held:
        if self._of_caller[source] >= MOST_OF_CALLER:
            method = ""
        if len(self._held) >= MOST:
            source, method = OTHER, ""
        held = self._held.get((source, method))
        if held is None:
            held = self._held[source, method] = _Held(now_ms)
            self._of_caller[source] += 1
        return held

    def _latency(self, source: str, method: str, held: _Held) -> Latency:
        buckets = tuple(sorted(held.buckets.items()))
        return Latency(source, self.destination, method, held.first_ms, held.last_ms, buckets, held.failed)


def _add(into: dict[int, int], more: Iterable[tuple[int, int]]) -> None:
    for number, count in more:
        into[number] = into.get(number, 0) + count


def encode(buckets: Iterable[tuple[int, int]]) -> str:
    """Give a histogram as text, such as ``40:3 41:1``."""
    return " ".join(f"{number}:{count}" for number, count in buckets)


def decode(text: str) -> tuple[tuple[int, int], ...]:
    """Read what ``encode`` gave."""
    pairs: Mapping[str, str] = dict(one.split(":") for one in text.split())
    return tuple((int(number), int(count)) for number, count in pairs.items())
