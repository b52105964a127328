"""What auth keeps in memory of the database, kept to what is there: other auths may change it at any time.

Before every answer: what others have changed is taken up, then what is due by the clock is turned. If another
auth turns the same at that moment, one of them finds that it was overtaken, and takes up what the other made.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from services.auth.authorities import Authorities
from services.auth.clock import Clock
from services.auth.database import OvertakenError
from services.auth.directory import DataDirectory
from services.auth.errors import AuthError
from services.auth.policies import Policies
from services.auth.roots import Roots

#: How often it is tried to turn keys that other auths turn as well.
TRIES: Final = 5

_R = TypeVar("_R")


class Following:
    """Keeps an authority's parts to what is in the database."""

    def __init__(
        self,
        directory: DataDirectory,
        authorities: Authorities,
        roots: Roots,
        policies: Policies,
        clock: Clock,
    ) -> None:
        """Take the directory, what is in memory of it, and auth's clock."""
        self._directory, self._clock = directory, clock
        self._authorities, self._roots, self._policies = authorities, roots, policies
        self.also: Callable[[], None] = lambda: None
        """Takes up what else there is."""
        self.shared, self.listen = directory.store.shared, directory.store.listen
        """Whether there may be other auths, and what calls back when one tells of a change, for ever."""
        self.looked_ms = 0
        """As of when all is taken up."""

    def now(self) -> int:
        """Take up and turn what there is, and give the time; raise ``AuthError`` where that cannot be."""
        return self.alone(lambda now_ms: now_ms)

    def alone(self, work: Callable[[int], _R]) -> _R:
        """Do work that changes keys, given the time, and anew where another auth was faster."""
        for _ in range(TRIES):
            with suppress(OvertakenError):
                self._take_up()
                # Another auth may have followed a clock that leapt before this one does: its time is told.
                self._clock.set(self._roots.begun_ms)
                now_ms = self._clock.now_ms()
                self._roots.turn(now_ms)
                self._authorities.turn(now_ms)
                return work(now_ms)
        raise OvertakenError

    def _take_up(self) -> None:
        asked_ms, store = self._clock.now_ms(), self._directory.store
        news = store.news()
        if news is not None:
            try:
                self._read()
            except AuthError:
                # What was read while it changed does not fit together, and means nothing.
                if store.news() != news:
                    raise OvertakenError from None
                raise
            store.taken_up(news)
        self.looked_ms = asked_ms

    def _read(self) -> None:
        self._directory.take_up()
        self._authorities.take_up(self._directory.authorities)
        self._roots.take_up()
        self._policies.take_up()
        self.also()
