"""How many calls each caller may make: a bucket of tokens for each, filled at a rate up to a brim.

A bucket that is full again says nothing that a new one would not, so those are dropped when there are many:
no more are held than callers that came lately. Times are seconds of one clock that never runs backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh.core.traffic import Rate

#: Buckets that are held before full ones are looked for.
MANY: Final = 64


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """One for each caller."""

    def __init__(self, rate: Rate) -> None:
        """Take calls a second, and how many at once after a rest."""
        self.rate = rate
        self._held: dict[str, _Bucket] = {}
        self._many = MANY

    def take(self, caller: str, now: float) -> float:
        """Take a token; give 0, or in how many seconds there will be one, and then none is taken."""
        held = self._held.get(caller) or self._new(caller, now)
        tokens = self._tokens(held, now)
        if tokens < 1:
            return (1 - tokens) / self.rate.calls
        held.tokens, held.at = tokens - 1, now
        return 0.0

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def _new(self, caller: str, now: float) -> _Bucket:
        if len(self._held) >= self._many:
            brim = self.rate.burst
            self._held = {one: held for one, held in self._held.items() if self._tokens(held, now) < brim}
            self._many = max(MANY, 2 * len(self._held))
        return self._held.setdefault(caller, _Bucket(self.rate.burst, now))

    def _tokens(self, held: _Bucket, now: float) -> float:
        return min(self.rate.burst, held.tokens + (now - held.at) * self.rate.calls)
