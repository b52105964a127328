"""Instances that fail are left out for a while: as one node sees them, for its own calls.

    in ──failures in a row──▶ out, for a time ──over──▶ on trial: one call
     ▲                         ▲                         │
     └────────── answered ─────┼─────────────────────────┤
                               └──── failed: for longer ─┘

The n-th time out in a row lasts n times as long, up to ``LONGEST`` times. A call on trial that is never
heard of again makes room for the next one after a time. No more than so many of a hundred are out by failing
(of two or more always one may be), and where all who are left are out, all are in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from mesh.core.balance import C
from mesh.core.names import InstanceId
from mesh.core.traffic import Eject

#: How many times the first time out the longest one lasts.
LONGEST: Final = 10

#: The statuses of gRPC that an instance is to blame for, if its own node said so.
_SAID: Final = frozenset({"UNAVAILABLE"})
#: Those that this side's transport makes of a limit of its own.
_OWN: Final = frozenset({"RESOURCE_EXHAUSTED"})


def answered(status: str, *, sealed: bool, begun: bool) -> bool | None:
    """Whether a call's end speaks for its instance, against it, or says nothing of it (``None``).

    ``status``: the name of gRPC's. ``sealed``: the instance said so itself; whatever it then says it is
    alive, but for UNAVAILABLE. ``begun``: some of the reply came, so that a deadline alone is no failure.
    """
    if sealed:
        return status not in _SAID
    if status in _OWN:
        return None
    return begun and status == "DEADLINE_EXCEEDED"


@dataclass(slots=True)
class _Seen:
    failures: int = 0
    times: int = 0
    until: float = 0.0
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Ejected:
    """An instance was put out: after so many failures in a row, for so many seconds."""

    failures: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Returned:
    """An instance that was out has answered."""


class Ejection:
    """The instances of one service. Times are seconds of one clock that never runs backwards."""

    def __init__(self, eject: Eject) -> None:
        """Start with all of them in."""
        self._eject = eject
        self._seen: dict[InstanceId, _Seen] = {}

    def among(self, candidates: Sequence[C], now: float) -> Sequence[C]:
        """Give those that may have the next call: all, if none of them would be left."""
        out = {instance for instance, seen in self._seen.items() if now < seen.until}
        if not out:
            return candidates
        return [one for one in candidates if one.instance not in out] or candidates

    def chosen(self, instance: InstanceId, now: float) -> None:
        """Take note that a call goes to an instance: on trial, no other does for a time."""
        seen = self._seen.get(instance)
        if seen is not None and seen.times and seen.until <= now:
            seen.trial, seen.until = True, now + self._seconds(seen.times)

    def ended(
        self, instance: InstanceId, answer: bool | None, known: Collection[InstanceId], now: float
    ) -> Ejected | Returned | None:
        """Take note of a call's end (``answered``); say so if it puts the instance out, or in again.

        ``known``: all instances there are; what was seen of others is forgotten.
        """
        if answer is None:
            return None
        if answer:
            before = self._seen.pop(instance, None)
            return Returned() if before and before.times else None
        seen = self._seen.get(instance) or self._room(instance, known)
        seen.failures += 1
        return self._put_out(seen, now) if self._is_due(seen, known) else None

    def _room(self, instance: InstanceId, known: Collection[InstanceId]) -> _Seen:
        self._seen = {one: seen for one, seen in self._seen.items() if one in known}
        return self._seen.setdefault(instance, _Seen())

    def _is_due(self, seen: _Seen, known: Collection[InstanceId]) -> bool:
        if seen.times:
            # Of calls that were on their way when it was put out nothing new is learned.
            return seen.trial
        out = sum(bool(other.times) for other in self._seen.values())
        return seen.failures >= self._eject.failures and out < self._most(len(known))

    def _most(self, known: int) -> int:
        return max(1, known * self._eject.most // 100) if known > 1 else 0

    def _put_out(self, seen: _Seen, now: float) -> Ejected:
        seen.times, seen.trial = seen.times + 1, False
        seconds = self._seconds(seen.times)
        seen.until = now + seconds
        return Ejected(seen.failures, seconds)

    def _seconds(self, times: int) -> float:
        return self._eject.for_ms / 1000 * min(times, LONGEST)
