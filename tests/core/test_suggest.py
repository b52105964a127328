"""Suggestions: exactly what was observed, and notes about what was not taken over."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.condition import Call
from mesh.core.observed import Gap, Observation
from mesh.core.policy import Policy
from mesh.core.reach import check_reach
from mesh.core.suggest import Suggesting, Suggestion, Use
from mesh.core.verdict import Judge

M, N = "/p.S/M", "/p.S/N"


def call(
    source: str, destination: str, method: str, verdict: str = "", count: int = 1, at: int = 0
) -> Observation:
    return Observation(source, destination, method, at, at, count, verdict)


def suggested(
    *seen: Observation | Gap, base: dict[str, Any] | None = None, denied: bool = False
) -> Suggestion:
    held = Policy.parse(json.dumps({"services": base})) if base else None
    suggesting = Suggesting(held, include_denied=denied)
    for one in seen:
        suggesting.take(one)
    return suggesting.suggestion()


def rules(found: Suggestion) -> dict[str, Any]:
    services: dict[str, Any] = json.loads(found.document())["services"]
    return services


def test_nothing() -> None:
    """Of nothing comes a policy that permits nothing."""
    assert rules(suggested()) == {}
    assert suggested().use == Use(0, 0, 0)
    assert not Suggesting().held
    assert Suggesting(Policy.parse('{"services": {}}')).held


def test_alike_callers_share_a_rule() -> None:
    """Callers with the same methods stand in one rule, each service that was seen among the services."""
    found = suggested(
        call("b", "orders", M, count=2, at=5),
        call("a", "orders", M, count=3, at=4),
        call("c", "orders", N, at=1),
        call("c", "orders", M, at=2),
        call("mesh.operator", "orders", M, at=9),
    )
    assert rules(found) == {
        "a": {},
        "b": {},
        "c": {},
        "orders": {
            "allow": [
                {"principals": ["a", "b", "mesh.operator"], "paths": [M]},
                {"principals": ["c"], "paths": [M, N]},
            ]
        },
    }
    rule = found.services["orders"][0]
    assert rule.principals == {"a": Use(3, 4, 4), "b": Use(2, 5, 5), "mesh.operator": Use(1, 9, 9)}
    assert rule.paths == {M: Use(6, 4, 9)}
    assert found.use == Use(8, 1, 9)


def test_denied() -> None:
    """What was denied is left out, but for its names, unless it is wanted too."""
    seen = (call("a", "orders", M, "deny", 4), call("a", "orders", N, "audit", 3), call("b", "c", M, "deny"))
    assert rules(suggested(*seen)) == {
        "a": {},
        "b": {},
        "c": {},
        "orders": {"allow": [{"principals": ["a"], "paths": [N]}]},
    }
    assert suggested(*seen).services["orders"][0].notes == ("calls permitted only because of mode: audit: 3",)
    wanted = suggested(*seen, denied=True)
    assert rules(wanted)["orders"] == {"allow": [{"principals": ["a"], "paths": [M, N]}]}
    assert wanted.services["orders"][0].notes == (
        "calls permitted only because of mode: audit: 3",
        "calls that were denied: 4",
    )


def test_what_would_be_permitted_though_it_was_denied() -> None:
    """Calls that a header or a condition denied, of a caller whose others came through."""
    seen = (
        call("a", "orders", M, "allow", 2),
        call("a", "orders", M, "deny", 4),
        call("b", "orders", M, "allow"),
        call("b", "orders", M, "deny", 3),
        call("b", "orders", N, "deny", 9),
    )
    (rule,) = suggested(*seen).services["orders"]
    assert rule.notes == ("would also permit calls that were denied: 7",)
    assert "would also" not in str(suggested(*seen, denied=True).services["orders"])


def test_gaps() -> None:
    """Calls that were not recorded are told, by service."""
    found = suggested(Gap("z", 1, 2, 3), Gap("orders", 1, 2, 3), Gap("orders", 0, 4, 1))
    assert found.unrecorded == {"orders": Use(4, 0, 4), "z": Use(3, 1, 2)}
    assert rules(found) == {"orders": {}, "z": {}}


def test_held_against_a_policy() -> None:
    """Rules that ask for more are noted where they permitted, and those that never did are told."""
    base = {
        "a": {},
        "orders": {
            "allow": [
                {"name": "one", "principals": ["a"], "paths": [M], "when": "time.getHours() < 25"},
                {"name": "two", "principals": ["a"], "paths": [N]},
                {
                    "name": "three",
                    "principals": ["*"],
                    "paths": ["*"],
                    "headers": [{"key": "x-t", "values": ["1"]}],
                },
                {"name": "four", "principals": ["orders"], "paths": ["*"]},
            ]
        },
    }
    seen = Observation("a", "orders", M, 1, 1, 4, metadata=(("x-t", ("1",)), ("x-a", ())))
    found = suggested(seen, call("a", "orders", N), call("a", "gone", N), base=base)
    assert found.services["orders"][0].notes == (
        "calls that came by rule 'one', which asks for more than caller and method: 4",
        "the policy looked at metadata x-a, x-t: put back what it asked for",
    )
    assert found.services["gone"][0].notes == ("calls that the policy this was held against denies: 1",)
    assert found.unused == ("orders: three", "orders: four")


def test_what_the_policy_denies_is_said() -> None:
    """Of calls that say nothing of a verdict, or had another; those that were denied are told as that."""
    deny = [
        {"principals": ["a"], "paths": [N]},
        {"principals": ["b"], "paths": [M], "headers": [{"key": "k", "values": ["1"]}]},
    ]
    base = {"a": {}, "b": {}, "orders": {"deny": deny, "allow": [{"principals": ["*"], "paths": ["*"]}]}}
    seen = (
        call("a", "orders", N, count=2),
        call("a", "orders", N, "allow"),
        call("a", "orders", N, "deny", 4),
        call("b", "orders", M, count=5),
        call("b", "orders", M, "allow"),
    )
    denies, may_deny = suggested(*seen, base=base, denied=True).services["orders"]
    assert denies.notes == (
        "calls that the policy this was held against denies: 3",
        "calls that were denied: 4",
    )
    assert may_deny.notes == (
        "calls that the policy this was held against may deny, by what was not recorded: 5",
    )


_names = st.sampled_from(["a", "b", "c", "team.a", "mesh.operator"])
_methods = st.sampled_from([M, N, "/p.T/M", "/p.T/N"])
_calls = st.builds(
    call, _names, st.sampled_from(["a", "orders", "team.a"]), _methods, st.sampled_from(["", "allow"])
)


@settings(deadline=None)
@given(st.lists(_calls))
def test_exactly_what_was_seen(seen: list[Observation]) -> None:
    """Every call that was seen is permitted, no other one is, and the policy is a good one."""
    policy = Policy.parse(suggested(*seen).document())
    check_reach(policy)
    judge = Judge(policy)
    made = {(one.source, one.destination, one.method) for one in seen}
    for source in (
        "a",
        "b",
        "c",
        "team",
        "team.a",
        "team.a.b",
        "orders",
        "mesh.operator",
        "mesh.auth",
        "stranger",
    ):
        for destination in ("a", "b", "orders", "team.a", "stranger"):
            for method in (M, N, "/p.T/M", "/p.T/N", "/p.S/MM", "/p/S", "/p.U/M"):
                permitted = judge.verdict(Call(source, destination, method, (), None)).word == "allow"
                assert permitted is ((source, destination, method) in made)


@settings(deadline=None)
@given(st.lists(_calls, max_size=6).flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_the_same_in_any_order(made: tuple[list[Observation], list[Observation]]) -> None:
    """What is suggested does not hang on the order in which calls were seen."""
    one, other = (suggested(*seen) for seen in made)
    assert one.document() == other.document()
    assert one == other
