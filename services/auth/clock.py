"""Auth's clock, by which all times of the mesh are told. It never runs backwards, and is not made to leap.

It follows the machine's clock forwards. Where that is set back, it goes on at the pace of the clock that
counts from the boot, so that an expired token stays expired. Where that leaps by more than ``LEAP_SECONDS``,
it goes on at that pace, too, until the machine's clock has stayed there for ``HOLD_SECONDS``: what a wrong
clock ends in a day is soon made anew, but a leap of a year would end the CA, and there is no way back. Across
restarts time is ``timekeeping``'s.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from mesh.rpc import membership
from mesh.rpc.membership import since_boot

log = logging.getLogger("mesh.auth")

LEAP_SECONDS: Final = 86_400.0
HOLD_SECONDS: Final = 600.0


class Clock(membership.Clock):
    """Milliseconds of Unix time, never less than before. Any thread may ask."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = since_boot
    ) -> None:
        """Take the two clocks of the machine, in seconds."""
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._ahead = wall() - monotonic()
        self._leapt_at: float | None = None
        self._told = 0

    def now_ms(self) -> int:
        """Give the time."""
        with self._lock:
            monotonic = self._monotonic()
            self._follow(self._wall() - monotonic, monotonic)
            # Adding floats may lose a millisecond that was told before.
            self._told = max(self._told, int((monotonic + self._ahead) * 1000))
            return self._told

    def set(self, now_ms: int) -> None:
        """Never again tell a time before ``now_ms``."""
        with self._lock:
            self._ahead = max(self._ahead, now_ms / 1000 - self._monotonic())
            self._told = max(self._told, now_ms)

    def _follow(self, ahead: float, monotonic: float) -> None:
        if ahead - self._ahead <= LEAP_SECONDS:
            self._leapt_at = None
        elif self._leapt_at is None:
            self._leapt_at = monotonic
            seconds = ahead - self._ahead
            log.error("the machine's clock leapt %.0f s ahead, not followed for now: is it right?", seconds)
        if self._leapt_at is None or monotonic - self._leapt_at >= HOLD_SECONDS:
            self._leapt_at = None
            self._ahead = max(self._ahead, ahead)
