"""The arithmetic of the bench."""

from __future__ import annotations

import pytest

from bench.figures import Added, Percentiles, Sample, Summary, added_cpu, added_latency, percentile


def sample(p50: float, cpu: float, calls: int = 10) -> Sample:
    """Give a round of two processes that share ``cpu`` seconds per call evenly."""
    half = cpu * calls / 2
    return Sample(calls, 2.0, Percentiles(p50, p50 * 2, p50 * 3), {"client": half, "server": half})


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (1, 1), (10, 1), (11, 2), (50, 5), (90, 9), (99, 10), (100, 10)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    """It is the smallest value that at least that share of all values does not exceed."""
    assert percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    """A single call has the same latency at every percentile."""
    assert {percentile([3.0], share) for share in (0, 50, 99, 100)} == {3.0}


def test_percentiles_take_latencies_in_any_order() -> None:
    """Calls that run at once end in any order."""
    assert Percentiles.of([0.3, 0.1, 0.2]) == Percentiles(p50=0.2, p90=0.3, p99=0.3)


def test_summary_is_the_median_round() -> None:
    """One disturbed round changes no figure of the summary."""
    summary = Summary.of([sample(1, 4), sample(900, 800, calls=1), sample(2, 6)])
    assert summary.latency == Percentiles(2, 4, 6)
    assert summary.calls_per_second == 5
    assert summary.cpu == {"client": 3, "server": 3}
    assert summary.cpu_total == 6


def test_what_is_added_is_compared_within_each_round() -> None:
    """A round in which the whole machine is slow does not count for more than another."""
    direct = [sample(1, 10), sample(101, 110), sample(1, 10)]
    variant = [sample(3, 14), sample(104, 116), sample(2, 15)]
    assert added_latency(variant, direct) == Added(median=2, low=1, high=3)
    assert added_cpu(variant, direct) == Added(median=5, low=4, high=6)


def test_rounds_that_do_not_match_are_not_compared() -> None:
    """A variant that missed a round has no figure rather than a wrong one."""
    with pytest.raises(ValueError, match="argument 2"):
        added_cpu([sample(1, 1)], [sample(1, 1), sample(1, 1)])


def test_ratio_is_that_of_the_medians() -> None:
    """Half of what the yardstick adds is 0.5; of a yardstick that adds nothing there is no ratio."""
    assert Added(2, 0, 9).against(Added(4, 3, 5)) == 0.5
    assert Added(2, 0, 9).against(Added(0, -1, 1)) is None
