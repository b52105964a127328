"""Whether a call is made again, and when: the decisions of one call, without doing anything.

Only what a route declares safe to repeat comes here. A call that was provably never processed is repeated
whatever the route says, elsewhere (``mesh.rpc.caller``). Pauses and pushback are those of gRFC A6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.core.budget import Budget
from mesh.core.traffic import Hedge, Retry
from mesh.core.traffic_routes import RETRIED

#: gRFC A6, "pushback": milliseconds without needless zeros. Anything else, a minus among it, is a no.
_PUSHBACK = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended.

    ``pushback``: what the server says of the next one, as it came. ``overtime``: it was given up because it
    took longer than one attempt may.
    """

    code: str
    pushback: tuple[str, ...] = ()
    overtime: bool = False


class Repeats:
    """The attempts of one call, one after the other."""

    __slots__ = ("_budget", "_grown", "_left", "_retry")

    def __init__(self, retry: Retry, budget: Budget) -> None:
        """Begin with the first attempt, which nobody has to ask for."""
        self._retry, self._budget = retry, budget
        self._left, self._grown = retry.attempts - 1, 0

    def pause(self, end: Ended, left_ms: float, now: float, chance: float) -> float | None:
        """Give the milliseconds to wait before the next attempt; ``None`` if there is none.

        ``left_ms`` is the time that the call has, ``chance`` evenly drawn from 0 to 1, 1 left out.
        """
        if not self._left or not (end.overtime or end.code in self._retry.codes):
            return None
        pause = self._pushed(end) if end.pushback else self._backoff(chance)
        if pause is None or pause >= left_ms or not self._budget.take(now):
            return None
        self._left -= 1
        return pause

    def _pushed(self, end: Ended) -> float | None:
        # The server has said when, so the pauses begin anew.
        self._grown = 0
        return pushed(end.pushback)

    def _backoff(self, chance: float) -> float:
        most = min(self._retry.longest_ms, self._retry.backoff_ms << self._grown)
        self._grown += 1
        return most * chance


class Hedges:
    """The attempts of one call, beside one another."""

    __slots__ = ("_budget", "_hedge", "_left")

    def __init__(self, hedge: Hedge, budget: Budget) -> None:
        """Begin with the first attempt, which nobody has to ask for."""
        self._hedge, self._budget, self._left = hedge, budget, hedge.attempts - 1

    @property
    def open(self) -> bool:
        """Whether there may be more attempts."""
        return self._left > 0

    @property
    def after_ms(self) -> float:
        """How long an attempt has before the next one is made beside it."""
        return self._hedge.after_ms

    def more(self, now: float) -> bool:
        """Whether there is one more attempt, now. If not, there is none any more."""
        if not self._left or not self._budget.take(now):
            self._left = 0
            return False
        self._left -= 1
        return True

    def wait(self, end: Ended, left_ms: float) -> float:
        """Give the milliseconds until the next attempt, for one has failed: at once, or when the server says.

        If the server wants no more, or later than the call has time, there are no more.
        """
        pause = pushed(end.pushback) if end.pushback else 0.0
        if pause is None or pause >= left_ms:
            self._left = 0
            return 0.0
        return pause


def answers(end: Ended) -> bool:
    """Whether that end is the call's, though others of its attempts go on: they would come to the same."""
    return end.code not in RETRIED


def pushed(values: Iterable[str]) -> float | None:
    """Give the milliseconds that a server wants to have before the next attempt; ``None``: it wants none."""
    said = list(values)
    return float(said[0]) if len(said) == 1 and _PUSHBACK.fullmatch(said[0]) else None
