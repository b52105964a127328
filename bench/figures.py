"""The arithmetic of the bench: no process, no clock.

A variant is measured in short rounds, in turn with the others, because a machine is never quiet. What it
adds to direct is taken within each round, where both saw the same neighbours; the median over the rounds
is what is reported. All times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies of single calls."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, latencies: Iterable[float]) -> Percentiles:
        """Take them from the latencies of at least one call."""
        ordered = sorted(latencies)
        return cls(*(percentile(ordered, share) for share in (50, 90, 99)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One variant under one load in one round."""

    calls: int
    seconds: float
    latency: Percentiles
    cpu: Mapping[str, float]  # of each process, over all calls
    resident: Mapping[str, float] = field(default_factory=dict)  # bytes of each process, halfway


@dataclass(frozen=True, slots=True)
class Summary:
    """One variant under one load: the median of each figure over its rounds. CPU is per call."""

    latency: Percentiles
    calls_per_second: float
    cpu: Mapping[str, float]
    cpu_total: float
    resident: Mapping[str, float]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Summary:
        """Summarise at least one round."""
        latency = Percentiles(
            median(sample.latency.p50 for sample in samples),
            median(sample.latency.p90 for sample in samples),
            median(sample.latency.p99 for sample in samples),
        )
        names = samples[0].cpu
        return cls(
            latency,
            median(sample.calls / sample.seconds for sample in samples),
            {name: median(sample.cpu[name] / sample.calls for sample in samples) for name in names},
            median(cpu_per_call(sample) for sample in samples),
            {name: median(sample.resident[name] for sample in samples) for name in samples[0].resident},
        )


@dataclass(frozen=True, slots=True)
class Added:
    """What a variant adds to a direct call: median over the rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def between(cls, variant: Sequence[float], direct: Sequence[float]) -> Added:
        """Compare round by round."""
        rounds = [mine - its for mine, its in zip(variant, direct, strict=True)]
        return cls(median(rounds), min(rounds), max(rounds))

    def against(self, other: Added) -> float | None:
        """Give the ratio to what another variant adds; ``None`` if that one adds nothing."""
        return self.median / other.median if other.median > 0 else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Give the smallest of the sorted values that at least ``share`` percent do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def cpu_per_call(sample: Sample) -> float:
    """Give the CPU time of all processes together, per call."""
    return sum(sample.cpu.values()) / sample.calls


def added_cpu(variant: Sequence[Sample], direct: Sequence[Sample]) -> Added:
    """Give the CPU time per call that a variant adds."""
    return Added.between([cpu_per_call(one) for one in variant], [cpu_per_call(one) for one in direct])


def added_latency(variant: Sequence[Sample], direct: Sequence[Sample]) -> Added:
    """Give the median latency that a variant adds."""
    return Added.between([one.latency.p50 for one in variant], [one.latency.p50 for one in direct])
