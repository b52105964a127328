"""Explanations: the rules behind a verdict, the nearest one, and changes that permit just one call."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.condition import MAX_CONDITION, MAX_VALUE, Call
from mesh.core.explain import Explanation, explain
from mesh.core.metadata import Entries
from mesh.core.names import ServiceName
from mesh.core.policy import Policy
from mesh.core.reach import check_reach
from mesh.core.remedy import Change, changed
from mesh.core.verdict import Judge
from tests.core.test_patterns import methods, paths, principals, services

M = "/shop.v1.Orders/Get"
NOON = 1_700_046_000_000


def rule(*principals: str, paths: tuple[str, ...] = ("*",), **more: object) -> dict[str, Any]:
    return {"principals": principals, "paths": paths, **more}


def policy(**section: object) -> Policy:
    return Policy.parse(json.dumps({"services": {"a": {}, "b": {}, "team.a": {}, "orders": section}}))


def asked(
    made: Policy, source: str = "a", method: str = M, entries: Entries = (), now_ms: int | None = NOON
) -> tuple[Explanation, Call]:
    call = Call(source, "orders", method, entries, now_ms)
    return explain(made, call), call


def lacks(found: Explanation) -> list[str]:
    return [lack.text for lack in found.lacks]


def test_a_permitted_call() -> None:
    """The rule that permits is placed; there is nothing near and nothing to change."""
    found, _ = asked(policy(allow=[rule("b"), rule("a", name="it")]))
    assert found.verdict.permitted
    assert found.deciding is not None
    assert (found.deciding.rule.name, found.deciding.place) == ("it", ("services", "orders", "allow", 1))
    assert (found.denying, found.nearest, found.lacks, found.changes) == ((), None, (), ())


def test_a_denied_call() -> None:
    """Every deny rule that applies is there; each gets an exception for this caller and method."""
    made = policy(
        allow=[rule("*")],
        deny=[
            rule("b"),
            rule("*", paths=("*/Get",)),
            rule("a", when="time.getHours() > 1"),
            rule("a", paths=(M,), when='"x" in metadata', mode="audit"),
        ],
    )
    found, call = asked(made, entries=(("x", "1"),))
    assert [one.place[-1] for one in found.denying] == [1, 2, 3]
    assert found.deciding is found.denying[0]
    assert found.changes == (
        Change("set", ("services", "orders", "deny", 1, "when"), f'source != "a" || method != "{M}"'),
        Change(
            "set",
            ("services", "orders", "deny", 2, "when"),
            f'(time.getHours() > 1) && (method != "{M}")',
            ("when: time.getHours() > 1",),
        ),
    )
    assert Judge(changed(made, found.changes)).verdict(call).permitted


def test_an_exception_says_what_it_lifts_besides() -> None:
    """It is for the caller and the method: what the rule asks of headers and time counts no more for them."""
    headers = [{"key": "x-env", "values": ["staging", "prod"]}]
    made = policy(allow=[rule("*")], deny=[rule("*", headers=headers, when="time.getHours() > 1")])
    found, call = asked(made, entries=(("x-env", "staging"),))
    (change,) = found.changes
    assert change.drops == ("header x-env: staging or prod", "when: time.getHours() > 1")
    other = call._replace(entries=(("x-env", "prod"),))
    assert not Judge(made).verdict(other).permitted
    assert Judge(changed(made, found.changes)).verdict(other).permitted


def test_a_deny_rule_for_this_call_alone_goes() -> None:
    """There is nothing to except it from."""
    made = policy(allow=[rule("*")], deny=[rule("a", paths=(M,), when="true"), rule("a", paths=(M,))])
    found, call = asked(made)
    removed = [
        Change("remove", ("services", "orders", "deny", place), drops=drops)
        for place, drops in ((0, ("when: true",)), (1, ()))
    ]
    assert list(found.changes) == removed
    assert Judge(changed(made, found.changes)).verdict(call).permitted


def test_denied_and_not_allowed() -> None:
    """Both are mended at once."""
    made = policy(deny=[rule("*", paths=("*/Get",))])
    found, call = asked(made)
    assert [change.action for change in found.changes] == ["add", "set"]
    assert Judge(changed(made, found.changes)).verdict(call).permitted


def test_an_exception_that_is_too_long() -> None:
    """There is no change that is one."""
    condition = "true" + " || true" * ((MAX_CONDITION - 4) // 8)
    found, _ = asked(policy(allow=[rule("*")], deny=[rule("*", when=condition)]))
    assert not found.verdict.permitted
    assert found.changes == ()


NEAR: list[tuple[str, list[dict[str, Any]], Entries, int | None, int | None, list[str]]] = [
    ("no rules", [], (), NOON, None, []),
    ("the caller", [rule("b", paths=("/x.Y/Z",)), rule("b")], (), NOON, 1, ["a is not among its principals"]),
    ("the method", [rule("a", paths=("/x.Y/Z",))], (), NOON, 0, [f"{M} is not among its paths"]),
    (
        "the same service",
        [rule("a", paths=("/x.Y/Z",)), rule("a", paths=("/shop.v1.Orders/Put",))],
        (),
        NOON,
        1,
        [f"{M} is not among its paths"],
    ),
    (
        "a header that is not sent",
        [rule("b"), rule("a", headers=[{"key": "k", "values": ["1", "2*"]}])],
        (),
        NOON,
        1,
        ["the call has no k, and it wants k: 1 or 2*"],
    ),
    (
        "a header that is wrong",
        [rule("a", headers=[{"key": "k", "values": ["1"]}, {"key": "l", "values": ["*"]}])],
        (("k", "1"), ("k", "3"), ("l", "")),
        NOON,
        0,
        ["the call has k: 1, 3, and it wants k: 1"],
    ),
    ("a false condition", [rule("a", when="1 > 2")], (), NOON, 0, ["its condition is false: 1 > 2"]),
    (
        "no time",
        [rule("a", when="time.getHours() > 1")],
        (),
        None,
        0,
        ["its condition cannot be judged (the time is not known): time.getHours() > 1"],
    ),
    (
        "a long value",
        [rule("a", when='metadata.k == "1"')],
        (("k", "1" * (MAX_VALUE + 1)),),
        NOON,
        0,
        ['its condition cannot be judged (k is too long): metadata.k == "1"'],
    ),
    (
        "keys",
        [rule("a", when="metadata.k == metadata.l")],
        (("k", "1"), ("k", "1")),
        NOON,
        0,
        ["its condition cannot be judged (k comes several times, l is not sent): metadata.k == metadata.l"],
    ),
    ("nonsense", [rule("a", when="1 / 0 == 1")], (), NOON, 0, ["its condition cannot be judged: 1 / 0 == 1"]),
]


@pytest.mark.parametrize(
    ("allow", "entries", "now_ms", "nearest", "wanting"),
    [row[1:] for row in NEAR],
    ids=[row[0] for row in NEAR],
)
def test_the_nearest_rule(
    allow: list[dict[str, Any]], entries: Entries, now_ms: int | None, nearest: int | None, wanting: list[str]
) -> None:
    """The rule that lacks least is shown with all that it lacks."""
    found, call = asked(policy(allow=allow), entries=entries, now_ms=now_ms)
    assert found.deciding is None
    assert (found.nearest and found.nearest.place[-1]) == nearest
    assert lacks(found) == wanting
    assert found.changes[-1].place[:3] == ("services", "orders", "allow")
    assert Judge(changed(policy(allow=allow), found.changes)).verdict(call).permitted


def test_an_entry_in_a_rule_is_smaller_than_a_rule() -> None:
    """But only in one that speaks of this caller or this method alone, and of nothing else."""
    found, _ = asked(policy(allow=[rule("a", paths=("/x.Y/Z",))]))
    assert found.changes == (Change("add", ("services", "orders", "allow", 0, "paths"), M),)
    found, _ = asked(policy(allow=[rule("b", paths=(M,))]))
    assert found.changes == (Change("add", ("services", "orders", "allow", 0, "principals"), "a"),)
    new = Change("add", ("services", "orders", "allow"), {"principals": ["a"], "paths": [M]})
    for other in (
        rule("b", paths=("*/Get",)),
        rule("b", paths=(M,), mode="audit"),
    ):
        assert asked(policy(allow=[other]))[0].changes == (new,)


def test_an_entry_in_a_rule_whose_conditions_the_call_meets() -> None:
    """They stay, and hold for this caller as well."""
    other = rule("b", paths=(M,), when='source != "team.a"', headers=[{"key": "k", "values": ["1"]}])
    made = policy(allow=[other])
    found, call = asked(made, entries=(("k", "1"),))
    assert found.changes == (Change("add", ("services", "orders", "allow", 0, "principals"), "a"),)
    after = Judge(changed(made, found.changes))
    assert after.verdict(call).permitted
    assert not after.verdict(call._replace(entries=(("k", "2"),))).permitted


def wanting(*keys: str, **more: object) -> dict[str, Any]:
    headers = [{"key": key, "values": ["1", "2*"]} for key in keys]
    return rule("b", paths=("*/Get",), headers=headers, **more)


KEPT: list[tuple[str, dict[str, Any], Entries, dict[str, Any], tuple[str, ...]]] = [
    (
        "what the call meets",
        wanting("k", when="time.getHours() > 1"),
        (("k", "2x"),),
        {"headers": [{"key": "k", "values": ["1", "2*"]}], "when": "time.getHours() > 1"},
        (),
    ),
    (
        "other values, as they were sent",
        wanting("k"),
        (("k", "3"), ("k", "4"), ("k", "3")),
        {"headers": [{"key": "k", "values": ["3", "4"]}]},
        (),
    ),
    (
        "not what is not sent",
        wanting("k", "l"),
        (("l", "1"),),
        {"headers": [{"key": "l", "values": ["1", "2*"]}]},
        ("header k: 1 or 2*",),
    ),
    ("not what no value can say", wanting("k"), (("k", "\xe9"),), {}, ("header k: 1 or 2*",)),
    ("not what a value would say of more", wanting("k"), (("k", "a*"),), {}, ("header k: 1 or 2*",)),
    ("no condition that does not hold", wanting(when='source == "b"'), (), {}, ('when: source == "b"',)),
]


@pytest.mark.parametrize(
    ("other", "entries", "asks", "drops"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT]
)
def test_what_a_new_rule_takes_over(
    other: dict[str, Any], entries: Entries, asks: dict[str, Any], drops: tuple[str, ...]
) -> None:
    """Headers and condition of the nearest rule, as far as the call has what it takes; the rest is said."""
    if not other["headers"]:
        del other["headers"]
    made = policy(allow=[other])
    found, call = asked(made, entries=entries)
    value = {"principals": ["a"], "paths": [M], **asks}
    assert found.changes == (Change("add", ("services", "orders", "allow"), value, drops),)
    assert Judge(changed(made, found.changes)).verdict(call).permitted


BROKEN = (
    "1 / 0 == 1",
    'time.getHours("Europe/Berln") > 7',
    'metadata.k == "1" && time.getHours("No/Where") > 7',
)


@pytest.mark.parametrize("when", BROKEN)
def test_a_deny_rule_that_can_never_be_judged(when: str) -> None:
    """It gets no exception, which would make it one that can: it is to be mended."""
    made = policy(allow=[rule("*")], deny=[rule("*", when=when)])
    found, _ = asked(made, entries=(("k", "1"),))
    assert [one.place[-1] for one in found.broken] == [0]
    assert found.changes == ()
    orders = ServiceName("orders")
    assert made.permits_pair(ServiceName("b"), orders) is (when != BROKEN[0])


def test_a_deny_rule_that_cannot_be_judged_for_what_the_call_lacks() -> None:
    """That is no fault of the rule, so it gets an exception."""
    made = policy(allow=[rule("*")], deny=[rule("*", when='metadata.k == "1"')])
    found, call = asked(made)
    assert found.broken == ()
    assert Judge(changed(made, found.changes)).verdict(call).permitted
    timed = policy(allow=[rule("*")], deny=[rule("*", when="time.getHours() > 1", mode="audit"), rule("*")])
    found, _ = asked(timed, now_ms=None)
    assert found.broken == ()
    assert len(found.changes) == 1


def test_an_entry_that_would_cover_another_rule() -> None:
    """A change that auth would not take is not proposed."""
    found, _ = asked(policy(allow=[rule("b", paths=(M,)), rule("a", paths=(M,), when="1 > 2")]))
    assert found.changes[0].place == ("services", "orders", "allow")


def test_services_that_are_not_there() -> None:
    """They are declared along with the rule."""
    made = policy()
    call = Call("new", "nowhere", M, (), None)
    found = explain(made, call)
    assert [change.place for change in found.changes[:2]] == [("services", "new"), ("services", "nowhere")]
    assert Judge(changed(made, found.changes)).verdict(call).permitted
    assert found.changes[0].value == {}


def test_services_that_are_not_there_under_audit() -> None:
    """They are declared as enforced, for else everybody could call them."""
    made = Policy.parse('{"mode": "audit", "services": {"evil": {}}}')
    call = Call("new", "nowhere", M, (), None)
    after = changed(made, explain(made, call).changes)
    assert Judge(after).verdict(call).word == "allow"
    for destination in ("new", "nowhere"):
        other = call._replace(source="evil", destination=destination)
        assert not Judge(after).verdict(other).permitted
        assert not after.permits_pair(ServiceName("evil"), ServiceName(destination))


def test_an_exception_lets_nobody_else_know() -> None:
    """Whom a deny rule kept from knowing of a service, the exception for another keeps from it as well."""
    made = policy(allow=[rule("*", paths=(M,))], deny=[rule("*", paths=("/shop.v1.Orders/*",), when="true")])
    found, call = asked(made)
    after = changed(made, found.changes)
    assert Judge(after).verdict(call).permitted
    orders = ServiceName("orders")
    assert [after.permits_pair(ServiceName(name), orders) for name in ("a", "b")] == [True, False]


@pytest.mark.parametrize(
    ("source", "destination", "mended"),
    [("mesh.operator", "orders", True), ("mesh.other", "orders", False), ("a", "mesh.auth", False)],
)
def test_the_mesh_s_own_names(source: str, destination: str, mended: bool) -> None:
    """Its services can be let in; no policy speaks of calls to them, or of names below mesh that are none."""
    assert bool(explain(policy(), Call(source, destination, M, (), None)).changes) is mended


def test_audit() -> None:
    """What is permitted only in audit is explained like a denial, and needs no change."""
    found, _ = asked(policy(mode="audit", allow=[rule("b")], deny=[rule("a")]))
    assert found.verdict.word == "audit"
    assert len(found.denying) == 1
    assert found.nearest is not None
    assert found.changes == ()
    found, _ = asked(policy(mode="audit", deny=[rule("*", mode="enforce")]))
    assert [change.action for change in found.changes] == ["set"]


rules = st.lists(
    st.fixed_dictionaries(
        {
            "principals": st.lists(principals, min_size=1, max_size=2),
            "paths": st.lists(paths, min_size=1, max_size=2),
        },
        optional={"when": st.sampled_from(['"k" in metadata', 'source != "a"'])},
    ),
    max_size=3,
)


@given(rules, rules, services, methods, st.lists(st.tuples(services, methods), max_size=12))
def test_the_change_permits_this_call_and_no_other(
    allow: list[dict[str, Any]],
    deny: list[dict[str, Any]],
    source: str,
    method: str,
    others: list[tuple[str, str]],
) -> None:
    """Whatever the policy: with the change it is good, permits the call, and says of others what it said."""
    for made in (*allow, *deny):
        made["principals"] = [p if "*" in p else "a" for p in made["principals"]]
    before = policy(allow=allow, deny=deny)
    try:
        check_reach(before)
    except ValueError:
        return
    found, call = asked(before, source, method)
    if found.verdict.permitted:
        assert found.changes == ()
        return
    after = changed(before, found.changes)
    check_reach(after)
    assert Judge(after).verdict(call).permitted
    for other, its_method in others:
        asked_too = call._replace(source=other, method=its_method)
        if other != source:
            pair = ServiceName(other), ServiceName("orders")
            assert after.permits_pair(*pair) == before.permits_pair(*pair)
        if (other, its_method) != (source, method):
            assert Judge(after).verdict(asked_too).permitted == Judge(before).verdict(asked_too).permitted
