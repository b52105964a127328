"""Differences: what is granted otherwise, be the text alike or not."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.condition import Call
from mesh.core.difference import Difference, differences, taken_from
from mesh.core.grants import Grant, Scope
from mesh.core.patterns import wider_principals
from mesh.core.policy import Policy
from mesh.core.verdict import Judge
from tests.core.test_patterns import paths, principals

M, N = "/p.S/M", "/p.S/N"
NAMES = ("a", "b", "team.a")


def rule(*principals: str, paths: tuple[str, ...] = ("*",), **more: object) -> dict[str, Any]:
    return {"principals": principals, "paths": paths, **more}


def policy(section: dict[str, Any], **top: object) -> Policy:
    return Policy.parse(json.dumps({"services": {name: {} for name in NAMES} | {"orders": section}} | top))


def shown(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [told(one) for one in differences(policy(old), policy(new))]


def told(one: Difference) -> str:
    sources, methods = ",".join(one.sources), ",".join(one.methods)
    return f"{one.sign} {sources} {methods}: {one.before} {one.after}"


EVERYBODY = "*,mesh.operator,a,b,orders,team.a"
WHEN: dict[str, Any] = {"when": "time.getHours() > 1"}
HEADER: dict[str, Any] = {"headers": [{"key": "k", "values": ["1"]}]}
#: Denies on condition, also where all is in audit, so that nothing is ever granted without.
BUT: dict[str, Any] = {"deny": [rule("*", mode="enforce", headers=[{"key": "l", "values": ["*"]}])]}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("nothing", {}, {"allow": []}, []),
    ("another name", {"allow": [rule("a")]}, {"allow": [rule("a", name="x")]}, []),
    ("another order", {"allow": [rule("a"), rule("b")]}, {"allow": [rule("b"), rule("a")]}, []),
    ("in one rule", {"allow": [rule("a"), rule("b")]}, {"allow": [rule("a", "b")]}, []),
    ("a rule", {}, {"allow": [rule("a")]}, ["+ a : deny allow"]),
    ("no rule", {"allow": [rule("a", "b")]}, {"allow": [rule("b")]}, ["- a : allow deny"]),
    (
        "a method",
        {"allow": [rule("a", paths=(M,))]},
        {"allow": [rule("a", paths=(M, N))]},
        [f"+ a {N}: deny allow"],
    ),
    (
        "a wildcard for a method",
        {"allow": [rule("a", paths=(M,))]},
        {"allow": [rule("a", paths=("/p.S/*",))]},
        ["+ a /p.S/*: deny allow"],
    ),
    (
        "all but one",
        {"allow": [rule("a")]},
        {"allow": [rule("a")], "deny": [rule("*", paths=(M,))]},
        [f"- a {M}: allow deny"],
    ),
    (
        "where wildcards meet",
        {"allow": [rule("a", paths=("/p.S/*",))]},
        {"allow": [rule("a", paths=("/p.S/*",))], "deny": [rule("*", paths=("*/M",))]},
        [f"- a {M}: allow deny"],
    ),
    ("everybody", {}, {"allow": [rule("*")]}, [f"+ {EVERYBODY} : deny allow"]),
    ("a wildcard for callers", {}, {"allow": [rule("team.*")]}, ["+ team.*,team.a : deny allow"]),
    ("a condition", {"allow": [rule("a")]}, {"allow": [rule("a", **WHEN)]}, ["- a : allow on condition"]),
    (
        "another condition",
        {"allow": [rule("a", when="time.getHours() > 2")]},
        {"allow": [rule("a", **WHEN)]},
        ["~ a : on condition on condition"],
    ),
    ("a condition for nothing", {"allow": [rule("a")]}, {"allow": [rule("a"), rule("a", **WHEN)]}, []),
    (
        "denied on condition",
        {"allow": [rule("a")]},
        {"allow": [rule("a")], "deny": [rule("a", **WHEN)]},
        ["- a : allow on condition"],
    ),
    ("denied though denied", {}, {"deny": [rule("a")]}, []),
    (
        "denied on trial",
        {"allow": [rule("a")]},
        {"allow": [rule("a")], "deny": [rule("a", mode="audit")]},
        ["~ a : allow allow"],
    ),
    ("allowed on trial", {"allow": [rule("a")]}, {"allow": [rule("a", mode="audit")]}, ["~ a : allow audit"]),
    (
        "allowed on trial, conditionally",
        {},
        {"allow": [rule("a", mode="audit", **WHEN)]},
        ["+ a : deny on condition"],
    ),
    ("audit", {}, {"mode": "audit"}, [f"+ {EVERYBODY} : deny audit"]),
    (
        "audit behind a conditional denial",
        {"allow": [rule("a", **HEADER)], **BUT},
        {"allow": [rule("a", **HEADER)], **BUT, "mode": "audit"},
        [
            f"+ {EVERYBODY.replace('a,b', 'b', 1)} : deny on condition",
            "+ a : on condition on condition",
        ],
    ),
    (
        "audit behind a conditional denial, and every caller allowed on condition",
        {"allow": [rule("*", **HEADER)], **BUT},
        {"allow": [rule("*", **HEADER)], **BUT, "mode": "audit"},
        [f"+ {EVERYBODY} : on condition on condition"],
    ),
    (
        "allowed without a header behind a conditional denial",
        {"allow": [rule("a", **HEADER)], **BUT},
        {"allow": [rule("a", mode="audit")], **BUT},
        ["+ a : on condition on condition"],
    ),
    (
        "where callers of two wildcards meet, beside one of that name",
        {"allow": [rule("team.*")], "deny": [rule("team.a"), rule("*.a")]},
        {"allow": [rule("team.*")], "deny": [rule("team.a")]},
        ["+ team.*.a : deny allow"],
    ),
    (
        "where callers of two wildcards meet, and both are about others",
        {"allow": [rule("team.*")]},
        {"allow": [rule("team.*")], "deny": [rule("*.b.a")]},
        ["- team.*.b.a : allow deny"],
    ),
    (
        "where methods of two wildcards meet, beside one of that name",
        {"allow": [rule("a", paths=("/p.S/*",))], "deny": [rule("a", paths=(M, "*/N", "*/M"))]},
        {"allow": [rule("a", paths=("/p.S/*",))], "deny": [rule("a", paths=(M,))]},
        [f"+ a {N}: deny allow"],
    ),
    (
        "audit but for a rule",
        {"mode": "audit"},
        {"mode": "audit", "deny": [rule("b", mode="enforce")]},
        ["- b : audit deny"],
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_cases(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    """What is granted otherwise is told; what is only written otherwise is not."""
    assert shown(old, new) == expected


def test_groups_and_modes_of_the_policy() -> None:
    """A change of a group, or of the mode of the mesh, is one of the services that it concerns."""
    section = {"allow": [rule("group:g", paths=(M,))]}
    old, new = policy(section, groups={"g": ["a", "b"]}), policy(section, groups={"g": ["b", "*.a"]})
    assert [told(one) for one in differences(old, new)] == [
        f"+ *.a,team.a {M}: deny allow",
        f"- a {M}: allow deny",
    ]
    loose = policy({}, mode="audit")
    assert {one.destination for one in differences(policy({}), loose)} == {*NAMES, "orders"}


def test_services_that_come_and_go() -> None:
    """They are callers and destinations on both sides."""
    old = Policy.parse(json.dumps({"services": {"a": {}, "x": {"allow": [rule("a")]}}}))
    new = Policy.parse(json.dumps({"services": {"y": {"allow": [rule("y")]}}}))
    found = [(one.destination, told(one)) for one in differences(old, new)]
    assert found == [("x", "- a : allow deny"), ("y", "+ y : deny allow")]


#: The most that a name may have.
LABELS = 5
rules = st.lists(
    st.fixed_dictionaries(
        {
            "principals": st.lists(principals, min_size=1, max_size=2),
            "paths": st.lists(paths, min_size=1, max_size=2),
        }
    ),
    max_size=3,
)
sections = st.fixed_dictionaries({"allow": rules, "deny": rules})


def concrete(name: str, joint: str) -> str:
    """Give a name that a pattern stands for, and no other pattern of the tests."""
    other = {".": "zz.zz", "/": "/zz.Z/Zz"}[joint]
    if name == "*":
        return other
    if ".*." in name:
        return name.replace(".*.", ".zz.")
    if name.startswith(f"*{joint}"):
        return f"{other.rpartition(joint)[0]}{name[1:]}"
    return name[:-1] + other.rpartition(joint)[2] if name.endswith(f"{joint}*") else name


@given(sections, sections)
def test_like_verdicts(old: dict[str, Any], new: dict[str, Any]) -> None:
    """For all callers and methods told apart, a difference is told exactly if the verdicts differ."""
    for made in (*old["allow"], *old["deny"], *new["allow"], *new["deny"]):
        made["principals"] = [p if "*" in p else "a" for p in made["principals"]]
    before, after = policy(old), policy(new)
    mentioned = [*old["allow"], *old["deny"], *new["allow"], *new["deny"]]
    named = {p for made in mentioned for p in made["principals"]}
    meeting = {f"{b}.{e[2:]}" for b in named if b.endswith(".*") for e in named if e.startswith("*.")}
    callers = {*NAMES, "*", *named, *(one for one in meeting if one.count(".") < LABELS)}
    found = differences(before, after)
    for caller in callers:
        about = [
            made for made in mentioned if not set(wider_principals(caller)).isdisjoint(made["principals"])
        ]
        for method in {"*", *(path for made in about for path in made["paths"])}:
            call = Call(concrete(caller, "."), "orders", concrete(method, "/"), (), None)
            permitted = [Judge(one).verdict(call).permitted for one in (before, after)]
            said = [
                [one.before is Grant.ALLOW, one.after is Grant.ALLOW]
                for one in found
                if caller in one.sources and (not one.methods or method in one.methods)
            ]
            assert said == ([permitted] if permitted[0] != permitted[1] else [])


def test_methods_that_meet_too_often() -> None:
    """A thousand prefixes and a thousand suffixes are not a million methods to look at; this is told."""
    half = 1000
    prefixes, suffixes = [f"/p{n}.S/*" for n in range(half)], [f"*/M{n}" for n in range(half)]
    old, new = policy({}), policy({"allow": [rule("a", paths=(*prefixes, *suffixes))]})
    unknown, found = differences(old, new)
    assert (unknown.sign, unknown.sources, len(unknown.methods)) == ("?", ("a",), 2 * half)
    assert (found.sign, len(found.methods)) == ("+", 2 * half)


def test_callers_that_meet_too_often() -> None:
    """The wildcards are told, one of whose meetings may be granted otherwise; where few change, all are."""
    allow = [rule(f"p{n}.*") for n in range(101)]
    deny = [rule(f"*.s{n}") for n in range(101)]
    old, new = policy({"allow": allow, "deny": deny}), policy({"allow": allow, "deny": deny[1:]})
    (found,) = differences(old, new)
    assert (found.sign, len(found.sources), found.sources[-1]) == ("+", 101, "p99.*.s0")
    (unknown, _) = sorted(differences(policy({}), new), key=lambda one: one.sign, reverse=True)
    assert (unknown.sign, len(unknown.sources), unknown.methods) == ("?", 201, ())
    assert unknown.may_take_from("p7.*")
    assert not unknown.may_take_from("a")


@pytest.mark.parametrize("looked_at", [-1, 0, 3, 20, 80])
def test_what_would_take_too_long(looked_at: int) -> None:
    """Whatever is not compared for the want of time is told: no change is passed over in silence."""
    old = policy({"allow": [rule("a", "b", "team.*", paths=(M, "/p.S/*", "*/X", N)), rule("*.a")]})
    new = policy({"allow": [rule("b", paths=("/q.S/*",)), rule("a", "*.b")]}, mode="audit")
    full = {(one.destination, source) for one in differences(old, new) for source in one.sources}
    found = differences(old, new, looked_at)
    assert any(one.sign == "?" for one in found)
    for destination, source in full:
        mine = [one for one in found if one.destination == destination]
        assert any(not one.sources or source in one.sources or (one.sign == "?") for one in mine)


def test_what_may_take_from_a_caller() -> None:
    """Less, what is not known, and another condition in the place of one."""

    def taking(old: dict[str, Any], new: dict[str, Any]) -> bool:
        return any(one.may_take_from("a") for one in differences(policy(old), policy(new)))

    allowed, on_condition = {"allow": [rule("a")]}, {"allow": [rule("a", **WHEN)]}
    assert taking(allowed, on_condition)
    assert taking(on_condition, {"allow": [rule("a", when="false")]})
    assert not taking(on_condition, allowed)
    assert not taking(allowed, {"allow": [rule("a", mode="audit")]})
    assert not taking({"allow": [rule("a", "b")]}, allowed)


def headers(**wanted: str) -> dict[str, Any]:
    return {"headers": [{"key": key, "values": values.split()} for key, values in wanted.items()]}


SCOPES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("a value", headers(k="1"), headers(k="1 2"), "+"),
    ("a prefix for a value", headers(k="abc"), headers(k="ab*"), "+"),
    ("a shorter prefix", headers(k="ab*"), headers(k="a*"), "+"),
    ("a shorter suffix", headers(k="*ab"), headers(k="*b"), "+"),
    ("any value", headers(k="*ab"), headers(k="*"), "+"),
    ("a prefix for a suffix", headers(k="*ab"), headers(k="ab*"), "~"),
    ("a header less", headers(k="1", l="2"), headers(k="1"), "+"),
    ("a header more", headers(k="1"), headers(k="1", l="2"), "-"),
    ("another header", headers(k="1"), headers(l="1"), "~"),
    ("a condition as well", headers(k="1"), headers(k="1") | WHEN, "-"),
    ("no condition any more", headers(k="1") | WHEN, headers(k="1"), "+"),
    ("another condition", headers(k="1") | WHEN, headers(k="1") | {"when": "false"}, "~"),
    ("on trial", WHEN, WHEN | {"mode": "audit"}, "~"),
]


@pytest.mark.parametrize(("old", "new", "sign"), [row[1:] for row in SCOPES], ids=[row[0] for row in SCOPES])
def test_which_condition_is_wider(old: dict[str, Any], new: dict[str, Any], sign: str) -> None:
    """It is said only where it is sure; and of deny rules it is the other way round."""
    backwards = {"+": "-", "-": "+", "~": "~"}
    (allowing,) = differences(policy({"allow": [rule("a", **old)]}), policy({"allow": [rule("a", **new)]}))
    assert allowing.sign == sign
    sections = ({"allow": [rule("a")], "deny": [rule("a", **one)]} for one in (old, new))
    before, after = map(policy, sections)
    (denying,) = differences(before, after)
    if "mode" not in new:
        assert denying.sign == backwards[sign]
        assert differences(after, before)[0].sign == sign


def test_what_conditions_were_and_are() -> None:
    """What rules asked that are gone, and what those ask that are new; what stays is not told."""
    old = {"allow": [rule("a", **headers(k="2 1", j="*"), **WHEN), rule("a", when='source\n == "a"')]}
    new = {"allow": [rule("a", when='source\n == "a"')], "deny": [rule("a", **HEADER), rule("a", **WHEN)]}
    (found,) = differences(policy(old), policy(new))
    assert found.lost == ("allow with j: *, k: 1 or 2 when time.getHours() > 1",)
    assert found.gained == ("deny when time.getHours() > 1", "deny with k: 1")
    assert (found.sign, found.scope) == ("-", Scope.NARROWER)
    (found,) = differences(policy({"allow": [rule("a")]}), policy({"allow": [rule("a", **WHEN)]}))
    assert (found.lost, found.gained) == (("allow",), ("allow when time.getHours() > 1",))
    (found,) = differences(policy({"allow": [rule("a")]}), policy({}))
    assert (found.lost, found.gained) == ((), ())
    tried = {"allow": [rule("a", **WHEN), rule("a", mode="audit")], "deny": [rule("a", mode="audit")]}
    (found,) = differences(policy({"allow": [rule("a", **WHEN)]}), policy(tried))
    assert found.gained == ("allow in audit", "deny in audit")


def test_a_condition_that_repeats_another_is_as_wide() -> None:
    """It takes nothing from anybody."""
    old, new = policy({"allow": [rule("a", **WHEN)]}), policy({"allow": [rule("a", **WHEN, mode="audit")]})
    (found,) = differences(old, new)
    assert (found.sign, found.scope) == ("~", Scope.SAME)
    assert not found.may_take_from("a")


OPERATOR = "mesh.operator"
BY_RULE: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("the end of audit", {"mode": "audit"}, {}, False),
    ("the end of audit beside a rule", {"mode": "audit", "allow": [rule(OPERATOR)]}, {}, True),
    ("and with it", {"mode": "audit", "allow": [rule(OPERATOR)]}, {"allow": [rule(OPERATOR)]}, False),
    ("a rule that goes while all is in audit", {"allow": [rule(OPERATOR)]}, {"mode": "audit"}, True),
    (
        "the end of audit where a deny rule denies",
        {"mode": "audit", "deny": [rule("*")]},
        {"deny": [rule("*")]},
        False,
    ),
    (
        "the end of audit where a deny rule takes what a rule permits",
        {"mode": "audit", "allow": [rule(OPERATOR)], "deny": [rule("*")]},
        {"allow": [rule(OPERATOR)], "deny": [rule("*")]},
        True,
    ),
    (
        "a deny rule that leaves audit, and nothing else permitted",
        {"mode": "audit", "deny": [rule("*", mode="audit")]},
        {"mode": "audit", "deny": [rule("*", mode="enforce")]},
        False,
    ),
    (
        "a deny rule that leaves audit, and a rule permitted",
        {"allow": [rule(OPERATOR)], "deny": [rule("*", mode="audit")]},
        {"allow": [rule(OPERATOR)], "deny": [rule("*")]},
        True,
    ),
    ("an allow rule in audit that goes", {"allow": [rule(OPERATOR, mode="audit")]}, {}, True),
    (
        "a conditional rule under audit that goes",
        {"mode": "audit", "allow": [rule(OPERATOR, **WHEN)]},
        {},
        True,
    ),
    ("a mode that is said twice", {"mode": "enforce", "allow": [rule(OPERATOR)]}, {}, True),
]


@pytest.mark.parametrize(
    ("old", "new", "taken"), [row[1:] for row in BY_RULE], ids=[row[0] for row in BY_RULE]
)
def test_what_is_taken_of_what_rules_permit(old: dict[str, Any], new: dict[str, Any], taken: bool) -> None:
    """Not what passed because of audit alone, be it of a service or of the document."""
    assert bool(taken_from(OPERATOR, policy(old), policy(new))) is taken
    modes = [section.get("mode", "enforce") for section in (old, new)]
    before, after = (
        policy({key: value for key, value in section.items() if key != "mode"}, mode=mode)
        for section, mode in zip((old, new), modes, strict=True)
    )
    assert bool(taken_from(OPERATOR, before, after)) is taken


def test_a_large_policy() -> None:
    """1,000 services with 10,000 rules, one of them changed, take about as long as reading them."""
    names = [f"s{n}" for n in range(1000)]
    services: dict[str, Any] = {name: {} for name in names}
    services |= {
        name: {"allow": [rule(names[(n + k) % 1000], paths=(f"/p{k}.S/*",)) for k in range(10)]}
        for n, name in enumerate(names)
    }
    old = Policy.parse(json.dumps({"services": services}))
    services["s7"]["allow"][3]["paths"] = ["/other.S/*"]
    new = Policy.parse(json.dumps({"services": services}))
    begun = perf_counter()
    found = {told(one) for one in differences(old, new)}
    assert found == {"- s10 /p3.S/*: allow deny", "+ s10 /other.S/*: deny allow"}
    assert perf_counter() - begun < 10
