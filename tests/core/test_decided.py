"""What a node counts of its decisions: exact, bounded, and nothing that is secret."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.decided import (
    MAX_KEYS,
    MAX_VALUE,
    MAX_VALUES,
    MOST,
    MOST_BY_METADATA,
    MOST_OF_CALLER,
    Decided,
    recordable,
    recorded,
)
from mesh.core.errors import Denied
from mesh.core.matcher import Audited, Permit
from mesh.core.metadata import sendable
from mesh.core.observed import Gap, Metadata, Observation, check
from mesh.core.policy import Section

M = "/p.S/M"


def permit(rule: str = "yes", audited: Audited | None = None) -> Permit:
    return Permit("a", M, rule, audited)


def note(decided: Decided, number: int = 0, source: str = "a", at: int = 0, metadata: Metadata = ()) -> None:
    decided.note(source, f"/p.S/M{number}", permit(), 1, metadata, at)


def section(*keys: str) -> Section:
    rules: list[dict[str, Any]] = [
        {"principals": ["*"], "paths": ["*"], "headers": [{"key": key, "values": ["*"]}]} for key in keys
    ]
    return Section.parse(json.dumps({"allow": rules}))


def test_verdicts() -> None:
    """Each kind of verdict with the rules behind it."""
    decided = Decided("orders")
    decided.note("a", M, permit(), 1, (), 5)
    decided.note("a", M, permit("", Audited(None)), 1, (), 5)
    decided.note("a", M, permit("yes", Audited("no")), 1, (), 5)
    decided.note("a", M, Denied("a", M, "no"), 1, (), 5)
    decided.note("a", M, Denied("a", M, None), 2, (("x-a", ()),), 5)
    found, gap = decided.take()
    assert [(one.verdict, one.rule, one.by, one.policy, one.metadata) for one in found] == [
        ("allow", "yes", None, 1, ()),
        ("audit", None, None, 1, ()),
        ("audit", "yes", "no", 1, ()),
        ("deny", "no", None, 1, ()),
        ("deny", None, None, 2, (("x-a", ()),)),
    ]
    assert gap is None
    for one in found:
        check(one)
    assert decided.take() == ([], None)


def test_times() -> None:
    """Alike calls are counted from the first to the last, even if the clock was set back in between."""
    decided = Decided("orders")
    for at in (5, 9, 7, 4):
        decided.note("a", M, permit(), 1, (), at)
    assert decided.take() == ([Observation("a", "orders", M, 4, 9, 4, "allow", "yes", policy=1)], None)


def test_bound() -> None:
    """Past the bound calls are counted, and what is known goes on to be."""
    decided = Decided("orders")
    for number in range(MOST + 10):
        note(decided, number, source=f"c{number % 9}", at=number)
    note(decided, 0, source="c0", at=1)
    found, gap = decided.take()
    assert (len(found), gap) == (MOST, Gap("orders", MOST, MOST + 9, 10))
    assert found[0].count == 2


def test_one_caller_cannot_fill_it() -> None:
    """A caller that tries methods leaves room for the others."""
    decided = Decided("orders")
    for number in range(MOST):
        note(decided, number)
    note(decided, source="b")
    found, gap = decided.take()
    assert Counter(one.source for one in found) == {"a": MOST_OF_CALLER, "b": 1}
    assert gap is not None
    assert gap.count == MOST - MOST_OF_CALLER
    note(decided)
    assert len(decided) == 1


def test_values_cannot_fill_it() -> None:
    """Ever new values are counted without them: still the caller and method are known."""
    decided = Decided("orders")
    for value in range(99):
        note(decided, metadata=(("x-a", (str(value),)),))
    found, gap = decided.take()
    assert gap is None
    assert len(found) == MOST_BY_METADATA + 1
    assert (found[-1].metadata, found[-1].count) == ((), 99 - MOST_BY_METADATA)


_notes = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 9), st.sampled_from("12"))
)


@settings(deadline=None)
@given(_notes, _notes)
def test_giving_back(before: list[tuple[int, str, int, str]], after: list[tuple[int, str, int, str]]) -> None:
    """What could not be told is counted with what came since, as if nothing had been taken out."""
    one, other = Decided("orders"), Decided("orders")
    for calls in (before, after):
        for number, source, at, value in calls:
            for decided in (one, other):
                note(decided, number, source, at, (("x-a", (value,)),))
        if calls is before:
            found, gap = one.take()
    one.give_back(found, gap)
    by_encoding = [sorted(seen.encode() for seen in decided.take()[0]) for decided in (one, other)]
    assert by_encoding[0] == by_encoding[1]


def test_giving_back_gaps() -> None:
    """So are those that were not recorded."""
    decided = Decided("orders")
    decided.give_back([], Gap("orders", 5, 6, 7))
    decided.give_back([], Gap("orders", 4, 5, 1))
    assert decided.take() == ([], Gap("orders", 4, 6, 8))


SECRET = [
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "apikey", "x-auth-token",
    "key", "x-secret", "password", "x-passwd", "session-id", "x-jwt", "x_signature", "x-otp", "sid",
    "my.credentials",
]  # fmt: skip
PLAIN = ["x-tenant", "x-from", "monkey", "x-side", "keyboard", "x-region", "x-spin"]


def test_secrets() -> None:
    """Keys that sound like secrets are not looked at, others are, in headers and in conditions."""
    assert recordable(section(*SECRET)) == ()
    assert recordable(section(*PLAIN)) == tuple(sorted(PLAIN))
    when = {"principals": ["*"], "paths": ["*"], "when": 'metadata["x-a"] == metadata["cookie"]'}
    other = {"principals": ["*"], "paths": ["*"], "headers": [{"key": "x-b", "values": ["*"]}]}
    assert recordable(Section.parse(json.dumps({"allow": [when], "deny": [other]}))) == ("x-a", "x-b")
    assert len(recordable(section(*(f"x-{number}" for number in range(99))))) == MAX_KEYS


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ((), (("x-a", ()),)),
        ((("x-b", "1"),), (("x-a", ()),)),
        ((("x-a", "1"), ("x-a", "")), (("x-a", ("1", "")),)),
        ((("x-a", "1" * MAX_VALUE),), (("x-a", ("1" * MAX_VALUE,)),)),
        ((("x-a", "1" * (MAX_VALUE + 1)),), ()),
        ((("x-a", "1"),) * MAX_VALUES, (("x-a", ("1",) * MAX_VALUES),)),
        ((("x-a", "1"),) * (MAX_VALUES + 1), ()),
        ((("x-a", b"1"),), (("x-a", ("1",)),)),
        ((("x-a", b"\xe4"),), ()),
        ((("x-a", "\n"),), ()),
        ((("x-a", "1"), ("x-a", "\xe4")), ()),
    ],
)
def test_recorded(sent: tuple[tuple[str, str | bytes], ...], found: Metadata) -> None:
    """A key is recorded with all of its values, or not at all."""
    assert recorded(("x-a",), sent) == found


@settings(deadline=None)
@given(st.text(max_size=5) | st.text("a \t\n~\x7f", max_size=5))
def test_fit_to_be_recorded(value: str) -> None:
    """What is recorded is what an application may send."""
    assert bool(recorded(("x-a",), (("x-a", value),))) is sendable((("x-a", value),))
