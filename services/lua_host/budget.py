"""How often something may be done: a token bucket. Pure; seconds come in, seconds to wait come out.

A script that asks too often is not refused but slowed, at its own expense: its time runs on while it waits.
"""

from __future__ import annotations


class Budget:
    """``rate`` times a second on average, and ``burst`` at once."""

    __slots__ = ("_burst", "_left", "_rate", "_seen")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Begin full. ``now``: seconds of any clock that does not run backwards."""
        self._rate, self._burst = rate, burst
        self._left, self._seen = burst, now

    def spend(self, now: float) -> float:
        """Take one; give the seconds to wait before it may be used, 0 if none."""
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate) - 1.0
        self._seen = now
        return max(0.0, -self._left / self._rate)
