"""Who is measured when: every variant under every load once a round, each round in another order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bench.direct import Variant
from bench.figures import Percentiles, Sample
from bench.process import NotMeasuredError

WARM_SECONDS: Final = 0.4


@dataclass(frozen=True, slots=True)
class Load:
    """What a client is asked to do; ``seconds`` in each round.

    ``stream``: all messages in one stream, ``at_once`` of them under way.
    """

    name: str
    size: int
    at_once: int
    seconds: float
    stream: bool = False


@dataclass(slots=True)
class Rounds:
    """What was measured: samples by load and variant in order of rounds; why a variant has none."""

    samples: dict[str, dict[str, list[Sample]]]
    failures: dict[str, str] = field(default_factory=dict)

    def drop(self, variant: str, reason: str) -> None:
        """Forget a variant that failed: half of its rounds cannot be compared with all of another's."""
        self.failures[variant] = reason
        for by_variant in self.samples.values():
            by_variant.pop(variant, None)


async def measure(
    variants: Mapping[str, Variant], loads: Sequence[Load], rounds: int, deadline: float
) -> Rounds:
    """Warm everything up, then take the rounds; fewer, but at least one, if ``deadline`` comes before."""
    result = Rounds({load.name: {name: [] for name in variants} for load in loads})
    for load in loads:
        warm_up = replace(load, seconds=WARM_SECONDS)
        await _round(result, variants, warm_up, list(variants), keep=False)
    for turn in range(rounds):
        if turn and time.monotonic() > deadline:
            break
        order = sorted(variants, key=lambda name: (list(variants).index(name) - turn) % len(variants))
        for load in loads:
            await _round(result, variants, load, order)
    return result


async def _round(
    result: Rounds, variants: Mapping[str, Variant], load: Load, order: Sequence[str], *, keep: bool = True
) -> None:
    for name in order:
        if name in result.failures:
            continue
        try:
            taken = await sample(variants[name], load)
        except NotMeasuredError as error:
            result.drop(name, str(error))
        else:
            result.samples[load.name][name] += [taken] if keep else []


async def sample(variant: Variant, load: Load) -> Sample:
    """Put a load on a variant; read every clock right before and right after, and what is held halfway."""
    processes = variant.processes.items()
    before = {place: process.cpu_seconds() for place, process in processes}
    asked = {"size": load.size, "at_once": load.at_once, "seconds": load.seconds, "stream": load.stream}
    await variant.client.ask(asked)
    await asyncio.sleep(load.seconds / 2)
    held = variant.resident()
    done = await variant.client.answer()
    cpu = {place: process.cpu_seconds() - before[place] for place, process in processes}
    await variant.client.ask({})
    return Sample(done["calls"], done["seconds"], Percentiles(**await variant.client.answer()), cpu, held)
