"""Rates of callers, against a twin that remembers every call."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.buckets import MANY, Buckets
from mesh.core.traffic import Rate


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=60),
)
def test_like_the_twin(calls: int, burst: int, moves: list[tuple[str, int]]) -> None:
    """Each caller has its own, in exact numbers: time goes by in 64ths of a second."""
    buckets, now = Buckets(Rate(calls, burst)), 0
    twin = {caller: (Fraction(burst), 0) for caller in "ab"}
    for caller, passes in moves:
        now += passes
        tokens, at = twin[caller]
        tokens = min(Fraction(burst), tokens + Fraction(now - at, 64) * calls)
        wait = buckets.take(caller, now / 64)
        if tokens >= 1:
            assert wait == 0
            twin[caller] = tokens - 1, now
        else:
            assert abs(wait - float((1 - tokens) / calls)) < 1e-9
            twin[caller] = tokens, now


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.lists(st.floats(0, 0.3), max_size=200))
def test_never_more_than_burst_and_rate(calls: int, burst: int, passes: list[float]) -> None:
    """Over any time from the first call on."""
    buckets, now, taken = Buckets(Rate(calls, burst)), 0.0, 0
    for seconds in passes:
        now += seconds
        taken += buckets.take("caller", now) == 0
        assert taken <= burst + now * calls + 1e-6


def test_after_the_wait_that_was_told_there_is_one() -> None:
    """And a moment before there is none."""
    buckets = Buckets(Rate(4, 1))
    assert buckets.take("caller", 0) == 0
    assert buckets.take("caller", 0) == 0.25
    assert buckets.take("caller", 0.2) > 0
    assert buckets.take("caller", 0.25) == 0


def test_those_that_came_lately_are_held_and_no_others() -> None:
    """A thousand that came once are forgotten; whoever has none left is not."""
    buckets = Buckets(Rate(1, 2))
    for _ in range(2):
        assert buckets.take("greedy", 1000) == 0
    for number in range(1000):
        assert buckets.take(f"caller-{number}", number) == 0
    assert len(buckets) <= MANY + 1
    assert buckets.take("greedy", 1000) > 0
    for number in range(3 * MANY):
        assert buckets.take(f"other-{number}", 2000) == 0
    assert len(buckets) == 3 * MANY
