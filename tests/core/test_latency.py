"""Histograms of how long calls took: right to a bound, added up without loss, and bounded."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.latency import (
    BOUNDS,
    ERROR,
    LEAST,
    MOST,
    MOST_OF_CALLER,
    OTHER,
    Latencies,
    Latency,
    added,
    bucket,
    check,
    decode,
    encode,
    merged,
    quantile,
)

M = "/p.S/M"
TIMES = st.lists(st.floats(LEAST, BOUNDS[-1]), min_size=1, max_size=200)
HISTOGRAMS = st.dictionaries(st.integers(0, len(BOUNDS)), st.integers(1, 10**9)).map(
    lambda found: tuple(sorted(found.items()))
)


def counted(times: list[float]) -> tuple[tuple[int, int], ...]:
    latencies = Latencies("orders")
    for seconds in times:
        latencies.note("a", M, seconds, 0, failed=False)
    (one,) = latencies.take()
    return one.buckets


@given(TIMES, st.floats(0, 1))
def test_quantiles_against_sorting(times: list[float], part: float) -> None:
    """What is read is the time of the same rank, but for the stated part of it."""
    true = sorted(times)[max(1, ceil(part * len(times))) - 1]
    # Floats round where a time lies on a bound itself.
    assert abs(quantile(counted(times), part) - true) <= ERROR * true * (1 + 1e-9)


def test_the_error_is_what_is_said() -> None:
    """A tenth, and no more."""
    assert ERROR < 0.1
    assert BOUNDS[-1] > 900


@pytest.mark.parametrize(("seconds", "said"), [(0.0, LEAST), (1e-9, LEAST), (1e9, BOUNDS[-1])])
def test_outermost(seconds: float, said: float) -> None:
    """What is shorter or longer than all bounds is told as the bound."""
    assert quantile(counted([seconds]), 0.5) == said


def test_bounds_belong_to_the_bucket_that_they_end() -> None:
    """Each bound is the last of its bucket."""
    assert [bucket(bound) for bound in BOUNDS] == list(range(len(BOUNDS)))
    assert bucket(BOUNDS[-1] * 1.01) == len(BOUNDS)


def test_no_calls() -> None:
    """Of nothing there is no quantile."""
    with pytest.raises(ValueError, match="no calls"):
        quantile((), 0.5)


@given(TIMES, TIMES)
def test_adding_up(some: list[float], more: list[float]) -> None:
    """Histograms of parts are, added up, the histogram of all."""
    assert added(counted(some), counted(more)) == counted(some + more)


@given(HISTOGRAMS)
def test_text(histogram: tuple[tuple[int, int], ...]) -> None:
    """What is written is read."""
    assert decode(encode(histogram)) == histogram


def test_merged() -> None:
    """Counts are added, and times are of all."""
    one, more = Latency("a", "b", M, 5, 9, ((1, 2),), 1), Latency("a", "b", M, 3, 7, ((1, 1), (2, 1)), 2)
    assert merged(one, more) == Latency("a", "b", M, 3, 9, ((1, 3), (2, 1)), 3)
    assert merged(one, more).count == 4


def test_counting() -> None:
    """Callers and methods are apart; times and failures are theirs. What was taken is gone."""
    latencies = Latencies("orders")
    latencies.note("a", M, 0.001, 7, failed=False)
    latencies.note("a", M, 0.001, 5, failed=True)
    latencies.note("b", M, 2.0, 6, failed=False)
    found = latencies.take()
    assert found == [
        Latency("a", "orders", M, 5, 7, ((bucket(0.001), 2),), 1),
        Latency("b", "orders", M, 6, 6, ((bucket(2.0), 1),), 0),
    ]
    assert latencies.take() == []
    latencies.note("a", M, 2.0, 6, failed=False)
    latencies.give_back(found)
    assert {one.source: (one.count, one.failed, one.first_ms) for one in latencies.take()} == {
        "a": (3, 1, 5),
        "b": (1, 0, 6),
    }


def test_a_caller_that_tries_methods() -> None:
    """Its calls are all counted, of its methods only so many are told apart, and nobody else's are fewer."""
    latencies = Latencies("orders")
    for number in range(10 * MOST):
        latencies.note("a", f"/p.S/M{number}", 0.001, 0, failed=False)
    latencies.note("b", M, 0.001, 0, failed=False)
    found = latencies.take()
    assert len(found) == MOST_OF_CALLER + 2
    assert sum(one.count for one in found) == 10 * MOST + 1
    assert {one.count for one in found if one.source == "b"} == {1}
    assert [one.count for one in found if one.method == ""] == [10 * MOST - MOST_OF_CALLER]


def test_many_callers() -> None:
    """Past the bound of all, calls are counted for callers that are not told apart."""
    latencies = Latencies("orders")
    for number in range(MOST + 10):
        latencies.note(f"a{number}", M, 0.001, 0, failed=False)
    found = latencies.take()
    assert len(found) == MOST + 1
    assert [(one.method, one.count) for one in found if one.source == OTHER] == [("", 10)]
    for one in found:
        check(one)


@pytest.mark.parametrize(
    "changed",
    [
        {"destination": "mesh.auth"},
        {"destination": "No"},
        {"source": "??"},
        {"method": "no"},
        {"first_ms": -1},
        {"first_ms": 8},
        {"last_ms": 2**60},
        {"failed": 2},
        {"failed": -1},
        {"buckets": ()},
        {"buckets": ((-1, 1),)},
        {"buckets": ((97, 1),)},
        {"buckets": ((1, 0),)},
        {"buckets": ((1, 2**60),)},
    ],
)
def test_check(changed: dict[str, Any]) -> None:
    """What no node counts is refused."""
    good: dict[str, Any] = {
        "source": "a",
        "destination": "orders",
        "method": M,
        "first_ms": 5,
        "last_ms": 7,
        "buckets": ((1, 1),),
    }
    check(Latency(**good))
    with pytest.raises(ValueError, match=r"."):
        check(Latency(**good | changed))
