"""``mesh stat``: what is recorded, put together by edge and method, with rates that are not flattering."""

from __future__ import annotations

import pytest

from mesh.cli.stat import as_json, per_second, percent, seconds, stats_of
from mesh.core.latency import ERROR, Latency, bucket
from mesh.core.observed import ALLOW, AUDIT, DENY, Gap, Observation, Seen

BUY = Observation("front", "orders", "/a.B/Buy", 100_000, 140_000, 50, ALLOW, "buys")
TRIED = Observation("front", "orders", "/a.B/Buy", 150_000, 190_000, 30, AUDIT, "buys", "no-try")
DENIED = Observation("front", "orders", "/a.B/Buy", 160_000, 170_000, 20, DENY, "no-purge")
COUNT = Observation("orders", "stock", "/a.B/Count", 180_000, 180_000, 1, ALLOW, "counts")
UNKNOWN = Gap("orders", 0, 195_000, 9)


def test_stats_of() -> None:
    """What is alike in source, destination and method is one row; audit is permitted, and told."""
    buy, count = stats_of([COUNT, TRIED, BUY, DENIED], 100_000, 200_000)
    assert (count.source, count.destination, count.method) == ("orders", "stock", "/a.B/Count")
    assert (buy.permitted, buy.audited, buy.denied, buy.last_ms) == (80, 30, 20, 190_000)
    assert buy.success == 0.8
    assert buy.rate == 1.0


def test_a_service_is_caller_and_callee() -> None:
    """One service has its own calls, those to it, and those of which nobody knows whose they were."""
    seen: list[Seen] = [COUNT, BUY, UNKNOWN]
    assert [one.source for one in stats_of(seen, 0, 1, "orders")] == ["?", "front", "orders"]
    assert [one.source for one in stats_of(seen, 0, 1, "front")] == ["front"]
    assert stats_of(seen, 0, 1, "other") == []


def test_the_span_holds_all_calls() -> None:
    """Calls from before and behind the span are not told as if they had been within it."""
    (buy,) = stats_of([BUY], 139_000, 140_000)
    assert (buy.from_ms, buy.to_ms, buy.rate) == (100_000, 140_000, 1.25)
    (later,) = stats_of([TRIED], 100_000, 160_000)
    assert later.rate == pytest.approx(30 / 90)
    (once,) = stats_of([COUNT], 180_000, 180_000)
    assert once.rate == 1.0


def test_what_is_only_counted() -> None:
    """Calls without a verdict neither succeeded nor failed; an hour of them does not slow another row."""
    unknown, buy = stats_of([UNKNOWN, BUY], 100_000, 200_000)
    assert (unknown.success, unknown.unknown, as_json(unknown)["method"]) == (None, 9, None)
    assert unknown.rate == pytest.approx(9 / 200)
    assert buy.rate == 0.5


@pytest.mark.parametrize(
    ("permitted", "denied", "said"),
    [
        (1, 0, "100.00 %"),
        (0, 3, "0.00 %"),
        (2, 1, "66.66 %"),
        (99_999, 1, "99.99 %"),
        (1_000_000, 1, "99.99 %"),
        (0, 0, "-"),
    ],
)
def test_percent(permitted: int, denied: int, said: str) -> None:
    """A hundred per cent is said only where nothing was denied."""
    assert percent(permitted, denied) == said


@pytest.mark.parametrize(
    ("rate", "said"), [(0.001, "< 0.01"), (0.5, "0.50"), (9.999, "10.00"), (1234.56, "1234.6")]
)
def test_per_second(rate: float, said: str) -> None:
    """A rate is short, and never nothing where there was a call."""
    assert per_second(rate) == said


TOOK = tuple(sorted((bucket(took), count) for took, count in ((0.001, 90), (0.02, 8), (3.0, 2))))
ENDED = Latency("front", "orders", "/a.B/Buy", 100_000, 199_000, TOOK, 4)


def test_how_long_calls_took() -> None:
    """Histograms of an edge are added up, and what failed did not succeed."""
    half = Latency("front", "orders", "/a.B/Buy", 100_000, 150_000, TOOK[:1], 0)
    (buy,) = stats_of([BUY, TRIED, DENIED], 100_000, 200_000, "orders", [ENDED, half])
    told = as_json(buy)
    assert (told["ended"], told["failed"], told["success"]) == (190, 4, 0.76)
    assert told["p50_seconds"] == pytest.approx(0.001, rel=ERROR)
    assert told["p99_seconds"] == pytest.approx(3.0, rel=ERROR)
    assert told["last"] == "1970-01-01T00:03:19Z"


def test_calls_that_were_not_timed() -> None:
    """Where nothing was timed nothing is said of it, and nobody else's times are."""
    (count,) = stats_of([COUNT, BUY], 100_000, 200_000, "stock", [ENDED])
    assert (as_json(count)["p50_seconds"], count.success) == (None, 1.0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (64e-6, "64 us"),
        (0.00123, "1.2 ms"),
        (0.0345, "34 ms"),
        (1.26, "1.3 s"),
        (900.0, "900 s"),
    ],
)
def test_seconds(value: float | None, said: str) -> None:
    """Two digits and a unit."""
    assert seconds(value) == said
