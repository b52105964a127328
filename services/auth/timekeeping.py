"""Auth's time across restarts: never before what was told, as far as the database knows of that.

It knows of it by the newest entry of an audit log, and by a mark that is written every ``MARK_EVERY_MS``. If
the machine's clock is behind the mark when auth starts, it was set back, and auth goes on from the mark and
what may have been told after it. Far behind means that the clock is wrong now, or was then; certificates made
by a clock that is wrong by days are of no use to anybody, so auth does not start.
"""

from typing import Final

from services.auth.clock import Clock
from services.auth.errors import StartError
from services.auth.store import Store

MARK_EVERY_MS: Final = 10_000
MAX_BEHIND_MS: Final = 86_400_000


class Timekeeping:
    """Keeps the mark of a clock."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Take both, and set the clock; raise ``StartError`` if it is days behind."""
        self._store, self._clock = store, clock
        self._mark_at_ms = 0
        machine_ms, marked_ms = clock.now_ms(), store.marked_ms()
        known_ms = max(store.logs.newest_ms(), marked_ms)
        behind_ms = known_ms - machine_ms
        if behind_ms > MAX_BEHIND_MS:
            days = behind_ms // MAX_BEHIND_MS
            raise StartError(
                f"this machine's clock is {days} days behind the database: set it right, or restore a backup"
                " from before the clock was wrong"
            )
        clock.set(max(known_ms, marked_ms + MARK_EVERY_MS) if machine_ms < marked_ms else known_ms)

    def turn(self, now_ms: int) -> None:
        """Write the mark, if that is due."""
        if now_ms >= self._mark_at_ms:
            self._store.mark(now_ms)
            self._mark_at_ms = now_ms + MARK_EVERY_MS
