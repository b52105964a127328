"""Auth's clock, by which all times of the mesh are told. It never runs backwards.

It follows the machine's clock forwards. Where that is set back, it goes on at the pace of the monotonic
clock, so that an expired token stays expired. Across restarts ``authority`` sets it to no earlier than the
newest entry of the audit log; a full high-water mark in the store is left to later.
"""

import threading
import time
from collections.abc import Callable

from mesh.rpc import membership


class Clock(membership.Clock):
    """Milliseconds of Unix time, never less than before. Any thread may ask."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the two clocks of the machine, in seconds."""
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._ahead = wall() - monotonic()
        self._told = 0

    def now_ms(self) -> int:
        """Give the time."""
        with self._lock:
            monotonic = self._monotonic()
            self._ahead = max(self._ahead, self._wall() - monotonic)
            # Adding floats may lose a millisecond that was told before.
            self._told = max(self._told, int((monotonic + self._ahead) * 1000))
            return self._told

    def set(self, now_ms: int) -> None:
        """Never again tell a time before ``now_ms``."""
        with self._lock:
            self._ahead = max(self._ahead, now_ms / 1000 - self._monotonic())
            self._told = max(self._told, now_ms)
