"""Whether two kinds of calls can be told apart by how long they take: a test that cannot be fooled by noise.

In every round each kind is tried once, in random order, so whatever a busy machine does it does to all alike.
If two kinds take equally long, which of them took longer in a round is a fair coin, whatever the times are
distributed like: the number of rounds then lies within ``BOUND`` standard deviations of the half, but for one
run in 1.7 million. To show that a difference would be seen, a third kind takes ``PLANTED`` seconds more. It
is tried in the same rounds, and there are as many as it takes to see it, and no fewer than ``TRIES``.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

TRIES: Final = 5_000
MOST: Final = 40_000
PLANTED: Final = 50e-6
BOUND: Final = 5.0
_WARM: Final = 50
_LOOK: Final = 500

Calls = Mapping[str, Callable[[], Awaitable[object]]]


def spin() -> None:
    """Take the planted time."""
    end = time.perf_counter() + PLANTED
    while time.perf_counter() < end:
        pass


async def told_apart(calls: Calls) -> float:
    """Give how many standard deviations ``forbidden`` taking longer than ``nowhere`` is off a fair coin.

    ``calls`` has these two, and ``planted``, which takes as long as ``nowhere`` and the planted time besides.
    """
    longer = dict.fromkeys(("forbidden", "planted"), 0)
    tries = -_WARM
    while tries < TRIES or _deviations(longer["planted"], tries) <= BOUND:
        assert tries < MOST, f"the machine is too noisy to see {PLANTED * 1e6:.0f} us in {MOST} tries"
        for _ in range(_LOOK):
            times = await _round(calls)
            tries += 1
            for kind in longer if tries > 0 else ():
                longer[kind] += times[kind] > times["nowhere"]
    return _deviations(longer["forbidden"], tries)


def _deviations(heads: int, tosses: int) -> float:
    return (heads - tosses / 2) / math.sqrt(tosses / 4)


async def _round(calls: Calls) -> dict[str, float]:
    times = {}
    for kind in random.sample(list(calls), len(calls)):
        await asyncio.sleep(0)
        began = time.perf_counter()
        await calls[kind]()
        times[kind] = time.perf_counter() - began
    return times
