"""How many calls to one destination may be made again: a part of all its calls, and a few in reserve.

A destination that fails is not helped by more calls. Each call that may be made again adds its part of a
token (``budget`` of a route, in hundredths), each repetition takes a whole one. A reserve, which fills up by
the second, lets a destination with few calls have repetitions as well.
"""

from __future__ import annotations

from typing import Final

#: Tokens that a destination begins with, and that one without calls comes back to, one a second.
RESERVE: Final = 10.0
#: The most that calls can save up.
MOST: Final = 100.0
_TOKEN: Final = 100


class Budget:
    """The tokens of one destination. Times are seconds that never run backwards."""

    __slots__ = ("_at", "_hundredths")

    def __init__(self, now: float) -> None:
        """Begin with the reserve."""
        self._hundredths, self._at = _TOKEN * RESERVE, now

    def called(self, percent: int) -> None:
        """Count a call of which so many in a hundred may be made again."""
        self._hundredths = min(_TOKEN * MOST, self._hundredths + percent)

    def take(self, now: float) -> bool:
        """Whether a call may be made again, now: it takes a token if there is one."""
        if self._hundredths < _TOKEN * RESERVE:
            self._hundredths = min(_TOKEN * RESERVE, self._hundredths + _TOKEN * (now - self._at))
        self._at = now
        if self._hundredths < _TOKEN:
            return False
        self._hundredths -= _TOKEN
        return True
