"""Which instances are left out, and until when."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.ejection import LONGEST, Ejected, Ejection, Returned, answered
from mesh.core.names import InstanceId
from mesh.core.traffic import Eject


class At(NamedTuple):
    """A candidate."""

    instance: InstanceId


A, B, C, D = ALL = [At(InstanceId(bytes([n]) * 16)) for n in range(1, 5)]
IDS = [one.instance for one in ALL]
RULE = Eject(failures=3, for_ms=10_000)


@pytest.mark.parametrize(
    ("status", "sealed", "begun", "speaks"),
    [
        ("OK", True, True, True),
        ("NOT_FOUND", True, False, True),
        ("PERMISSION_DENIED", True, False, True),  # policy: the instance is well
        ("RESOURCE_EXHAUSTED", True, False, True),  # its own limit, or the mesh's rate
        ("DEADLINE_EXCEEDED", True, False, True),
        ("UNAVAILABLE", True, True, False),  # its application says so, or its sidecar of it
        ("UNAVAILABLE", False, False, False),  # the connection
        ("UNAVAILABLE", False, True, False),
        ("DEADLINE_EXCEEDED", False, False, False),  # not a word
        ("DEADLINE_EXCEEDED", False, True, True),  # it was at it
        ("CANCELLED", False, False, False),  # not by this side
        ("UNAUTHENTICATED", False, False, False),  # the mesh's own refusal
        ("OK", False, True, False),  # not to be believed
        ("RESOURCE_EXHAUSTED", False, False, None),  # this side's own limit
    ],
)
def test_what_an_end_says(status: str, sealed: bool, begun: bool, speaks: bool | None) -> None:
    """All that tells the good from the bad."""
    assert answered(status, sealed=sealed, begun=begun) is speaks


def failing(ejection: Ejection, instance: At, times: int, now: float) -> Ejected | None:
    told: Ejected | Returned | None = None
    for _ in range(times):
        told = ejection.ended(instance.instance, False, IDS, now)
    assert not isinstance(told, Returned)
    return told


def test_failures_in_a_row_put_it_out_for_a_time() -> None:
    """A success in between begins the count anew; what says nothing does not."""
    ejection = Ejection(RULE)
    assert failing(ejection, A, 2, 0) is None
    assert ejection.ended(A.instance, True, IDS, 0) is None
    assert failing(ejection, A, 2, 0) is None
    assert ejection.ended(A.instance, None, IDS, 0) is None
    assert ejection.among(ALL, 0) is ALL
    assert failing(ejection, A, 1, 0) == Ejected(3, 10)
    assert ejection.among(ALL, 9.9) == [B, C, D]
    assert ejection.among(ALL, 10) is ALL


def test_one_call_on_trial_decides() -> None:
    """While it is on its way no other goes there; failing costs more time, answering nothing any more."""
    ejection = Ejection(RULE)
    failing(ejection, A, 3, 0)
    assert failing(ejection, A, 5, 1) is None  # were on their way
    ejection.chosen(A.instance, 10)
    assert ejection.among(ALL, 10) == [B, C, D]
    assert failing(ejection, A, 1, 11) == Ejected(9, 20)
    assert ejection.among(ALL, 30.9) == [B, C, D]
    ejection.chosen(A.instance, 31)
    assert ejection.ended(A.instance, True, IDS, 32) == Returned()
    assert ejection.among(ALL, 32) is ALL
    assert failing(ejection, A, 3, 33) == Ejected(3, 10)


def test_a_trial_that_is_never_heard_of_makes_room_for_the_next() -> None:
    """Cancelled calls leave nobody out for ever."""
    ejection = Ejection(RULE)
    failing(ejection, A, 3, 0)
    ejection.chosen(A.instance, 10)
    assert A not in ejection.among(ALL, 19)
    assert A in ejection.among(ALL, 20)


def test_a_call_to_one_that_is_in_or_out_is_no_trial() -> None:
    """Only once its time is over."""
    ejection = Ejection(RULE)
    ejection.chosen(A.instance, 0)
    failing(ejection, A, 2, 0)
    ejection.chosen(A.instance, 0)
    failing(ejection, A, 1, 0)
    ejection.chosen(A.instance, 5)  # all were out, so it was called all the same
    assert failing(ejection, A, 1, 6) is None
    assert ejection.among(ALL, 10) is ALL


def test_the_time_grows_up_to_a_bound() -> None:
    """To ten times the first."""
    ejection, now, times = Ejection(RULE), 0.0, []
    told = failing(ejection, A, 3, now)
    for _ in range(12):
        assert told
        times.append(told.seconds)
        now += told.seconds
        ejection.chosen(A.instance, now)
        told = failing(ejection, A, 1, now)
    assert times == [10.0 * min(n, LONGEST) for n in range(1, 13)]


@pytest.mark.parametrize(
    ("known", "most", "out"), [(1, 100, 0), (2, 10, 1), (4, 50, 2), (4, 100, 4), (4, 74, 2)]
)
def test_no_more_are_out_than_the_policy_says(known: int, most: int, out: int) -> None:
    """Of two or more always one may be, of one none."""
    ejection, candidates = Ejection(Eject(1, 10_000, most)), ALL[:known]
    told = [ejection.ended(one.instance, False, IDS[:known], 0) for one in candidates]
    assert len([one for one in told if one]) == out
    if out < known:
        assert len(ejection.among(candidates, 1)) == known - out


def test_where_all_are_out_all_are_in() -> None:
    """Also where those that are left are all out."""
    ejection = Ejection(Eject(1, 10_000, 50))
    failing(ejection, A, 1, 0)
    assert ejection.among([A], 1) == [A]
    assert ejection.among([A, B], 1) == [B]


def test_those_that_left_are_forgotten() -> None:
    """They count for nothing in how many may be out."""
    ejection = Ejection(Eject(1, 10_000, 50))
    assert failing(ejection, A, 1, 0)
    left = IDS[1:3]
    assert ejection.ended(B.instance, False, left, 1)
    assert ejection.ended(C.instance, False, left, 1) is None
    assert A in ejection.among(ALL, 1)


steps = st.lists(
    st.tuples(st.sampled_from(ALL), st.sampled_from([True, False, False, None]), st.floats(0, 15)),
    max_size=80,
)


@settings(deadline=None)
@given(steps, st.integers(1, 4), st.integers(1, 99))
def test_whatever_comes_some_are_in(
    moves: list[tuple[At, bool | None, float]], failures: int, most: int
) -> None:
    """Of calls made as told, no more than the share is ever out, and who answered last is in."""
    ejection, now = Ejection(Eject(failures, 10_000, most)), 0.0
    for _, answer, passes in moves:
        now += passes
        among = ejection.among(ALL, now)
        assert len(ALL) - len(among) <= max(1, len(ALL) * most // 100)
        chosen = among[0]
        ejection.chosen(chosen.instance, now)
        ejection.ended(chosen.instance, answer, IDS, now)
        if answer:
            assert chosen in ejection.among(ALL, now)
