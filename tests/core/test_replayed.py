"""Replays: what changes for recorded calls, counted and told by rows."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.observed import Gap, Observation
from mesh.core.policy import Policy
from mesh.core.replayed import Change, Replayed

M, N = "/p.S/M", "/p.S/N"
POLICY = Policy.parse(
    json.dumps(
        {
            "services": {
                "a": {},
                "b": {},
                "d": {},
                "orders": {
                    "allow": [
                        {"name": "yes", "principals": ["a"], "paths": [M]},
                        {"name": "trial", "principals": ["a"], "paths": ["*"], "mode": "audit"},
                        {
                            "name": "tenants",
                            "principals": ["b"],
                            "paths": ["*"],
                            "headers": [{"key": "x-tenant", "values": ["acme"]}],
                        },
                        {"name": "all", "principals": ["d"], "paths": ["*"]},
                    ],
                    "deny": [
                        {
                            "principals": ["d"],
                            "paths": ["*"],
                            "headers": [{"key": "x-tenant", "values": ["acme"]}],
                            "mode": "audit",
                        }
                    ],
                },
            }
        }
    )
)


def call(source: str, method: str, verdict: str, count: int = 1, at: int = 0, **more: str) -> Observation:
    metadata = tuple((f"x-{key}", (value,)) for key, value in more.items())
    return Observation(source, "orders", method, at, at, count, verdict, metadata=metadata)


CHANGES = [
    ("a", M, "allow", Change.UNCHANGED),
    ("a", M, "deny", Change.ALLOWED),
    ("a", M, "audit", Change.AUDIT),
    ("a", M, "", Change.JUDGED),
    ("a", N, "allow", Change.AUDIT),
    ("a", N, "audit", Change.UNCHANGED),
    ("a", N, "deny", Change.ALLOWED),
    ("b", M, "allow", Change.UNKNOWN),
    ("b", M, "", Change.UNKNOWN),
    ("d", M, "allow", Change.AUDIT),
    ("d", M, "audit", Change.AUDIT),
    ("d", M, "deny", Change.ALLOWED),
    ("d", M, "", Change.JUDGED),
    ("c", M, "allow", Change.DENIED),
    ("c", M, "audit", Change.DENIED),
    ("c", M, "deny", Change.UNCHANGED),
]


@pytest.mark.parametrize(("source", "method", "before", "change"), CHANGES)
def test_changes(source: str, method: str, before: str, change: Change) -> None:
    """What a change is, by the verdict before and the one now."""
    replayed = Replayed(POLICY)
    replayed.take(call(source, method, before, 7))
    assert replayed.calls == {change: 7}
    assert {one: replayed.distinct(one) for one in Change} == dict.fromkeys(Change, 0) | {change: 1}
    [row] = replayed.rows()
    assert (row.change, row.seen.count) == (change, 7)


def test_rows() -> None:
    """Alike calls are one row, the worst is the first, and metadata that makes a difference parts them."""
    replayed = Replayed(POLICY)
    for seen in (
        call("a", M, "allow", 1),
        call("c", M, "allow", 1, at=9),
        call("c", M, "allow", 2, at=3),
        Gap("orders", 4, 5, 6),
        call("b", M, "allow", 1, tenant="acme"),
        call("b", M, "allow", 1, tenant="beta"),
        Gap("orders", 1, 2, 1),
    ):
        replayed.take(seen)
    told = [(row.change.name, row.seen.count, row.seen.first_ms, row.seen.last_ms) for row in replayed.rows()]
    assert told == [
        ("DENIED", 1, 0, 0),
        ("DENIED", 3, 3, 9),
        ("UNKNOWN", 7, 1, 5),
        ("UNCHANGED", 1, 0, 0),
        ("UNCHANGED", 1, 0, 0),
    ]
    assert replayed.distinct(Change.DENIED) == 2
    assert (
        replayed.rows()[2].outcome.why
        == "these calls were counted, and not recorded: too many were different"
    )


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(CHANGES)).flatmap(
        lambda found: st.tuples(st.just(found), st.permutations(found))
    )
)
def test_nothing_is_lost(
    made: tuple[list[tuple[str, str, str, Change]], list[tuple[str, str, str, Change]]],
) -> None:
    """Rows and totals add up to what was taken, in whatever order it came."""
    found = []
    for order in made:
        replayed = Replayed(POLICY)
        for place, (source, method, before, _) in enumerate(order):
            replayed.take(call(source, method, before, at=place))
        assert sum(row.seen.count for row in replayed.rows()) == replayed.calls.total() == len(order)
        found.append([(row.change, row.seen.count, row.outcome) for row in replayed.rows()])
        assert replayed.calls == Counter(change for *_, change in order)
    assert found[0] == found[1]
