"""Whether calls are made again, and when: truth tables, and bounds that hold whatever happens."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.budget import MOST, RESERVE, Budget
from mesh.core.repeats import Ended, Hedges, Repeats, answers, pushed
from mesh.core.traffic import Hedge, Retry
from mesh.core.traffic_routes import ERRORS, RETRIED

AGAIN = Ended("UNAVAILABLE")


def full() -> Budget:
    budget = Budget(0)
    for _ in range(200):
        budget.called(100)
    return budget


def empty() -> Budget:
    budget = Budget(0)
    while budget.take(0):
        pass
    return budget


# The budget


def test_a_destination_that_fails_gets_no_more_than_its_part() -> None:
    """Of a thousand calls at once that all fail, a fifth is made again, and the reserve."""
    budget, again = Budget(0), 0
    for _ in range(1000):
        budget.called(20)
        again += budget.take(0)
    assert again == 200 + RESERVE


def test_the_reserve_fills_up_by_the_second() -> None:
    """One a second, up to the reserve and no further; calls save up more."""
    budget = empty()
    assert not budget.take(0.9)
    assert budget.take(1.5)
    assert not budget.take(1.5)
    taken = 0
    while budget.take(10_000):
        taken += 1
    assert taken == RESERVE
    budget = full()
    taken = 0
    while budget.take(10_000):
        taken += 1
    assert taken == MOST


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans(), st.floats(0, 2)), max_size=60))
def test_never_more_than_calls_and_time_give(steps: list[tuple[int, bool, float]]) -> None:
    """Whatever comes when: repetitions are bounded by the reserve, the calls' parts and the seconds."""
    budget, now, parts, again = Budget(0), 0.0, 0.0, 0
    for percent, wants, later in steps:
        now += later
        budget.called(percent)
        parts += percent / 100
        again += wants and budget.take(now)
        assert again <= RESERVE + parts + now + 1e-6


# One after the other


CASES = [
    ("a code of the route", AGAIN, 1000.0, 0.5, 25.0),
    ("another code", Ended("INTERNAL"), 1000.0, 0.5, None),
    ("success", Ended("OK"), 1000.0, 0.5, None),
    ("given up, whatever the code", Ended("DEADLINE_EXCEEDED", overtime=True), 1000.0, 0.0, 0.0),
    ("no deadline", AGAIN, math.inf, 0.0, 0.0),
    ("no time for the pause", AGAIN, 25.0, 0.5, None),
    ("no time at all", AGAIN, 0.0, 0.0, None),
    ("the server says when", Ended("UNAVAILABLE", ("300",)), 1000.0, 0.5, 300.0),
    ("the server says at once", Ended("UNAVAILABLE", ("0",)), 1000.0, 0.5, 0.0),
    ("the server says too late", Ended("UNAVAILABLE", ("1000",)), 1000.0, 0.5, None),
    ("the server says no", Ended("UNAVAILABLE", ("-1",)), 1000.0, 0.5, None),
    ("the server says what nobody knows", Ended("UNAVAILABLE", ("soon",)), 1000.0, 0.5, None),
    ("the server says two things", Ended("UNAVAILABLE", ("1", "2")), 1000.0, 0.5, None),
    ("the server says when of another code", Ended("NOT_FOUND", ("1",)), 1000.0, 0.5, None),
]


@pytest.mark.parametrize(
    ("end", "left", "chance", "pause"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_after_the_first(end: Ended, left: float, chance: float, pause: float | None) -> None:
    """What may be repeated, and after how many milliseconds; what is not repeated costs no budget."""
    budget = empty()
    assert Repeats(Retry(3), budget).pause(end, left, 0, chance) is None
    budget = Budget(0)
    assert Repeats(Retry(3), budget).pause(end, left, 0, chance) == pause
    taken = 0
    while budget.take(0):
        taken += 1
    assert taken == RESERVE - (pause is not None)


def test_attempts_are_counted() -> None:
    """As many as the route says, the first among them, and no more."""
    repeats = Repeats(Retry(3), full())
    assert [repeats.pause(AGAIN, 9e9, 0, 0.0) for _ in range(4)] == [0.0, 0.0, None, None]


def test_pauses_grow_to_the_longest() -> None:
    """Twice as long each time, and anew after the server has said when."""
    repeats = Repeats(Retry(10, backoff_ms=50, longest_ms=300), full())
    pauses = [repeats.pause(AGAIN, 9e9, 0, 0.5) for _ in range(5)]
    assert pauses == [25, 50, 100, 150, 150]
    assert repeats.pause(Ended("UNAVAILABLE", ("7",)), 9e9, 0, 0.5) == 7
    assert repeats.pause(AGAIN, 9e9, 0, 0.5) == 25


@given(
    st.integers(2, 10),
    st.integers(1, 3_600_000),
    st.integers(0, 3_600_000),
    st.lists(st.tuples(st.sampled_from([*ERRORS]), st.booleans(), st.floats(0, 0.999), st.floats(0, 1e7))),
)
def test_whatever_happens(
    attempts: int, backoff: int, more: int, ends: list[tuple[str, bool, float, float]]
) -> None:
    """Never more attempts, longer pauses, or pauses beyond the call's time."""
    retry = Retry(attempts, ("UNAVAILABLE", "ABORTED"), 0, backoff, backoff + more)
    repeats, made = Repeats(retry, full()), 1
    for code, overtime, chance, left in ends:
        pause = repeats.pause(Ended(code, overtime=overtime), left, 0, chance)
        if pause is not None:
            made += 1
            assert overtime or code in retry.codes
            assert 0 <= pause <= retry.longest_ms
            assert pause < left
    assert made <= attempts


PUSHED = {
    "0": 0,
    "5": 5,
    "999999999": 999_999_999,
    "05": None,
    "-1": None,
    "": None,
    "1.5": None,
    "\u0661": None,
}


@pytest.mark.parametrize(("text", "ms"), PUSHED.items())
def test_pushback(text: str, ms: float | None) -> None:
    """Milliseconds as gRFC A6 writes them; whatever else is a no."""
    assert pushed([text]) == ms


# Beside one another


def test_hedges_are_counted_and_take_from_the_budget() -> None:
    """As many as the route says, if there is budget; without it there are none any more."""
    hedges = Hedges(Hedge(3, 100), full())
    assert (hedges.open, hedges.after_ms) == (True, 100)
    assert [hedges.more(0) for _ in range(3)] == [True, True, False]
    assert not hedges.open
    hedges = Hedges(Hedge(3, 100), empty())
    assert not hedges.more(0)
    assert not hedges.open


@pytest.mark.parametrize(
    ("pushback", "left", "wait", "opened"),
    [
        ((), 1000, 0, True),
        (("20",), 1000, 20, True),
        (("-1",), 1000, 0, False),
        (("1000",), 1000, 0, False),
        ((), 0, 0, False),
    ],
)
def test_after_a_failure(pushback: tuple[str, ...], left: float, wait: float, *, opened: bool) -> None:
    """The next one is made at once, or when the server says; or there is none."""
    hedges = Hedges(Hedge(3, 100), full())
    assert hedges.wait(Ended("UNAVAILABLE", pushback), left) == wait
    assert hedges.open is opened


@pytest.mark.parametrize("code", ["OK", *ERRORS])
def test_what_is_an_answer(code: str) -> None:
    """All but what may pass: that another attempt may do better with."""
    assert answers(Ended(code)) is (code not in RETRIED)
