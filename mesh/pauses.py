"""How long to wait before auth or gatekeeper is asked again: not in step with others who have lost it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

RETRY_FIRST: Final = 0.2
RETRY_MOST: Final = 2.0
#: Over how many seconds nodes that have lost auth spread their coming back, where they have the time: so many
#: that 500 come back as 100 a second. Who has less waits for a part of what is left.
SPREAD: Final = 5.0
URGENT: Final = 0.1
#: The same of those that have lost gatekeeper, whose changes are to reach them within a second.
REJOIN: Final = 1.0


def backoff() -> Iterator[float]:
    """Give delays in seconds, doubling from the first to the most, each with jitter, for ever."""
    delay = RETRY_FIRST
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311
        delay = min(delay * 2, RETRY_MOST)


def rejoining() -> Iterator[float]:
    """Give delays in seconds for who was served until now, as others were: first anywhere in ``REJOIN``."""
    yield random.uniform(0.0, REJOIN)  # noqa: S311
    yield from backoff()


def renewing(left: Callable[[], float]) -> Iterator[float]:
    """Give delays in seconds between attempts to renew what lasts ``left()`` seconds more, for ever.

    The first is anywhere within the spread, for others have lost auth at the same moment; those that follow
    are about as long as that, so that they stay apart. Who has little left waits as ``backoff``.
    """
    least, delays = 0.0, backoff()
    while True:
        yield max(next(delays), min(SPREAD, URGENT * left()) * random.uniform(least, 1.0))  # noqa: S311
        least = 0.8
