"""What may happen a thousand times a second, and is told once a minute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

#: Seconds between two tellings.
QUIET: Final = 60.0


class Seldom:
    """Counts one thing."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take a clock of seconds that never runs backwards."""
        self._now, self._told, self._times = now, -math.inf, 0

    def count(self) -> int:
        """Count it; give how often it was since it was told last, if it is to be told now, else 0."""
        self._times += 1
        if self._now() < self._told + QUIET:
            return 0
        self._told, times, self._times = self._now(), self._times, 0
        return times
