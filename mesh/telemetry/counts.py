"""Plain counters of one node's calls: no lock, no SDK, a bounded number of them.

Written by the event loop alone; who exports them reads from a thread of its own, and may see a call
counted whose duration is not yet added. Methods take a name of their own only once a call to them was
served, so that a caller who tries methods at random cannot use the names up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from mesh.telemetry.names import OTHER

#: Upper bounds of the buckets, in seconds: the conventions' own, and three below them, where the mesh lives.
BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075),
    *(0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
#: Methods that have a name of their own, and sets of attributes that have a counter of their own.
MAX_METHODS: Final = 256
MAX_KEYS: Final = 2000


class CallKey(NamedTuple):
    """What calls are told apart by. ``side``: ``server`` or ``client``."""

    side: str
    peer: str
    method: str
    status: str


class Durations:
    """How many calls took how long."""

    __slots__ = ("buckets", "least", "most", "total")

    def __init__(self) -> None:
        """Start with none."""
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total, self.least, self.most = 0.0, inf, 0.0

    def add(self, seconds: float) -> None:
        """Count a call."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.most = max(self.most, seconds)
        self.least = min(self.least, seconds)


class Counts:
    """All counters of a node."""

    def __init__(self, record: Callable[[CallKey, float], None] | None = None) -> None:
        """Start at nothing. ``record`` is told of each call as well, with its seconds."""
        self._record = record
        self.calls: dict[CallKey, Durations] = {}
        self.verdicts: dict[tuple[str, str], int] = {}
        self.causes: dict[str, int] = {}
        self.open = {"server": 0, "client": 0}
        self.replays = self.retries = self.hedges = 0
        self.faults: dict[str, int] = {}
        self.ejections: dict[str, int] = {}
        self.overloads: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self._methods: dict[str, str] = {}

    def method(self, path: str, *, served: bool) -> str:
        """Give the name to count a method under: ``package.Service/Method``, or ``_OTHER``."""
        known = self._methods.get(path)
        if known is None:
            if not served or len(self._methods) >= MAX_METHODS:
                return OTHER
            known = self._methods[path] = path.removeprefix("/")
        return known

    def call(self, side: str, peer: str, method: str, status: str, seconds: float) -> None:
        """Count a call that has ended."""
        key = CallKey(side, peer, method, status)
        held = self.calls.get(key)
        if held is None:
            key, held = self._room(key)
        held.add(seconds)
        if self._record is not None:
            self._record(key, seconds)

    def verdict(self, verdict: str, reason: str) -> None:
        """Count a verdict."""
        key = (verdict, reason)
        self.verdicts[key] = self.verdicts.get(key, 0) + 1

    def cause(self, cause: str) -> None:
        """Count a call, or a reply, that was not believed."""
        self.causes[cause] = self.causes.get(cause, 0) + 1

    def ejection(self, cause: str, endpoints: int = 1) -> None:
        """Count instances that were left out."""
        self.ejections[cause] = self.ejections.get(cause, 0) + endpoints

    def overload(self, destination: str) -> None:
        """Count a call for which there was no place."""
        self.overloads[destination] = self.overloads.get(destination, 0) + 1

    def limit(self, source: str) -> None:
        """Count a call beyond the rate of its caller, of which there are as many as policy admits."""
        self.limits[source] = self.limits.get(source, 0) + 1

    def again(self, *, hedge: bool) -> None:
        """Count an attempt that is not a call's first: after another one, or beside it."""
        if hedge:
            self.hedges += 1
        else:
            self.retries += 1

    def disturbed(self, fault: str) -> None:
        """Count something that policy has done to a call on purpose."""
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def _room(self, key: CallKey) -> tuple[CallKey, Durations]:
        if len(self.calls) >= MAX_KEYS:
            key = CallKey(key.side, OTHER, OTHER, key.status)
        return key, self.calls.setdefault(key, Durations())
