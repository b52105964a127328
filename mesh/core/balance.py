"""Which of the instances that can take a call is to have it.

    least-loaded   the less loaded of two random ones (Mitzenmacher 2001, "The Power of Two Choices")
    round-robin    the next after the one before, in the order of their ids: whoever comes or goes
    hash           the one that weighs most for a value (Thaler and Ravishankar 1998, "rendezvous hashing"):
                   every node finds the same; without it only its own values go elsewhere

Who can take a call is for others to say; the candidates are never none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol, TypeVar

from mesh.core.metadata import Entries, Value
from mesh.core.names import InstanceId
from mesh.core.traffic import Balance, By

_WEIGHT: Final = 8


class Candidate(Protocol):
    """An instance that can take a call, and what else is known of it."""

    @property
    def instance(self) -> InstanceId:
        """Its id."""


C = TypeVar("C", bound=Candidate)
Load = Callable[[C], int]
Sample = Callable[[Sequence[Any], int], list[Any]]


class Balancer(Protocol):
    """Chooses instances for one node's calls to one service."""

    def choose(self, candidates: Sequence[C], load: Load[C], entries: Entries) -> C:
        """Choose for a call with such metadata; ``load`` gives how many calls of this node one has."""


class LeastLoaded:
    """The less loaded of two random ones."""

    def __init__(self, sample: Sample) -> None:
        """Take what draws two different ones."""
        self._sample = sample

    def choose(self, candidates: Sequence[C], load: Load[C], _entries: Entries) -> C:
        """Draw two, and compare."""
        drawn: list[C] = self._sample(candidates, min(2, len(candidates)))
        return min(drawn, key=load)


class RoundRobin:
    """Each in turn."""

    def __init__(self, begin: bytes) -> None:
        """Take 16 bytes, from which on the first is looked for: others for each node."""
        self._last = begin

    def choose(self, candidates: Sequence[C], _load: Load[C], _entries: Entries) -> C:
        """Give the next one after the last, and after the last of all the first."""
        after = [one for one in candidates if one.instance.raw > self._last]
        chosen = min(after or candidates, key=_raw)
        self._last = chosen.instance.raw
        return chosen


class Hashed:
    """The same for the same value of a key of the metadata; for calls without one, another way."""

    def __init__(self, key: str, otherwise: Balancer) -> None:
        """Take the key, and the way for calls without it."""
        self._key, self._otherwise = key, otherwise

    def choose(self, candidates: Sequence[C], load: Load[C], entries: Entries) -> C:
        """Look at the first value of the key."""
        for key, value in entries:
            if key == self._key:
                return heaviest(candidates, value)
        return self._otherwise.choose(candidates, load, entries)


def heaviest(candidates: Sequence[C], value: Value) -> C:
    """Give the candidate that weighs most for a value, whatever their order."""
    begun = blake2b(value.encode() if isinstance(value, str) else value, digest_size=_WEIGHT)

    def weight(candidate: Candidate) -> tuple[bytes, bytes]:
        weighed = begun.copy()
        weighed.update(candidate.instance.raw)
        return weighed.digest(), candidate.instance.raw

    return max(candidates, key=weight)


def balancer(balance: Balance, begin: bytes, sample: Sample) -> Balancer:
    """Give what a policy asks for; ``begin`` and ``sample`` as for the classes above."""
    least = LeastLoaded(sample)
    if balance.by is By.ROUND_ROBIN:
        return RoundRobin(begin)
    return Hashed(balance.key, least) if balance.by is By.HASH else least


def _raw(candidate: Candidate) -> bytes:
    return candidate.instance.raw
