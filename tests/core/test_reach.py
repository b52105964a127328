"""Rules that no call reaches, and rules that only look like it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Denied
from mesh.core.matcher import Matcher
from mesh.core.names import ServiceName
from mesh.core.policy import Policy, PolicyError
from mesh.core.reach import check_reach
from tests.core.test_patterns import methods, paths, principals, services

ORDERS = ServiceName("orders")


def rule(*principals: str, paths: tuple[str, ...] = ("*",), **more: object) -> dict[str, Any]:
    return {"principals": principals, "paths": paths, **more}


def found(section: dict[str, Any], **top: object) -> str:
    """Give the rule that is never reached and the one that covers it, or nothing."""
    declared: dict[str, Any] = {name: {} for name in ("a", "b", "team.a", "team.b")}
    document = {"services": declared | {"orders": section}} | top
    try:
        check_reach(Policy.parse(json.dumps(document)))
    except PolicyError as error:
        at = error.path.removeprefix("policy.services.orders.")
        return f"{at} by {str(error).split(chr(39))[1].removeprefix('orders/')}"
    return ""


HEADERS = [{"key": "k", "values": ["1", "2"]}]
SAME = [{"key": "k", "values": ["2", "1"]}]
WHEN = 'metadata["x"] == "1"'
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, ""),
    ("twice", {"allow": [rule("a"), rule("a")]}, "allow[1] by allow/0"),
    ("the narrow one first", {"allow": [rule("a", paths=("/p.S/M",)), rule("a")]}, ""),
    ("the narrow one last", {"allow": [rule("a"), rule("a", paths=("/p.S/M",))]}, "allow[1] by allow/0"),
    ("wider principal", {"allow": [rule("team.*"), rule("team.a", "team.b")]}, "allow[1] by allow/0"),
    ("one principal more", {"allow": [rule("team.*"), rule("team.a", "b")]}, ""),
    ("one path more", {"allow": [rule("a", paths=("*/M",)), rule("a", paths=("/p.S/M", "/p.S/N"))]}, ""),
    (
        "each path by another pattern",
        {"allow": [rule("a", paths=("*/M", "/p.S/*")), rule("a", paths=("/q.S/M", "/p.S/N"))]},
        "allow[1] by allow/0",
    ),
    ("suffix of a suffix", {"allow": [rule("*.a"), rule("*.team.a")]}, "allow[1] by allow/0"),
    ("covered by two together only", {"allow": [rule("a"), rule("b"), rule("a", "b")]}, ""),
    ("denied", {"allow": [rule("a")], "deny": [rule("*")]}, "allow[0] by deny/0"),
    ("a method is denied", {"allow": [rule("a")], "deny": [rule("*", paths=("*/M",))]}, ""),
    ("denied twice", {"deny": [rule("*"), rule("a")]}, "deny[1] by deny/0"),
    ("headers are asked of the first", {"allow": [rule("a", headers=HEADERS), rule("a")]}, ""),
    ("of the second", {"allow": [rule("a"), rule("a", headers=HEADERS)]}, "allow[1] by allow/0"),
    ("of both", {"allow": [rule("a", headers=HEADERS), rule("a", headers=SAME)]}, "allow[1] by allow/0"),
    ("the same condition", {"allow": [rule("*", when=WHEN), rule("a", when=WHEN)]}, "allow[1] by allow/0"),
    ("another condition", {"allow": [rule("*", when=WHEN), rule("a", when="true")]}, ""),
    (
        "denied on the same",
        {"allow": [rule("a", when=WHEN)], "deny": [rule("a", when=WHEN)]},
        "allow[0] by deny/0",
    ),
    ("denied on trial", {"allow": [rule("a")], "deny": [rule("*", mode="audit")]}, ""),
    ("denied in audit", {"mode": "audit", "allow": [rule("a")], "deny": [rule("*")]}, ""),
    ("allowed on trial", {"allow": [rule("*", mode="audit"), rule("a")]}, ""),
    ("on trial, but allowed", {"allow": [rule("*"), rule("a", mode="audit")]}, "allow[1] by allow/0"),
    ("in a group", {"allow": [rule("group:all"), rule("team.a")]}, "allow[1] by allow/0"),
    ("a group in a group", {"allow": [rule("group:all"), rule("group:team")]}, "allow[1] by allow/0"),
    ("a wider group", {"allow": [rule("group:team"), rule("group:all")]}, ""),
]


@pytest.mark.parametrize(("section", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_cases(section: dict[str, Any], expected: str) -> None:
    """A rule is refused exactly if one that goes before has all its calls."""
    assert found(section, groups={"team": ["team.*"], "all": ["group:team", "a"]}) == expected


rules = st.lists(
    st.fixed_dictionaries(
        {
            "principals": st.lists(principals, min_size=1, max_size=2),
            "paths": st.lists(paths, min_size=1, max_size=2),
        }
    ),
    max_size=4,
)


@given(rules, rules, st.lists(st.tuples(services, methods), min_size=1, max_size=12))
def test_what_is_refused_decides_nothing(
    allow: list[dict[str, Any]], deny: list[dict[str, Any]], calls: list[tuple[str, str]]
) -> None:
    """Without the rule that is said to be unreachable, every call is decided as it was."""
    for made in (*allow, *deny):
        made["principals"] = [p if "*" in p else "a" for p in made["principals"]]
    said = found({"allow": allow, "deny": deny})
    if not said:
        return
    effect, index = said.partition("]")[0].split("[")
    less = {"allow": list(allow), "deny": list(deny)}
    del less[effect][int(index)]

    def permitted(section: dict[str, Any], source: str, method: str) -> bool:
        policy = Policy.parse(json.dumps({"services": {"a": {}, "orders": section}}))
        try:
            Matcher(policy.section(ORDERS)).permit(source, method, ())
        except Denied:
            return False
        return True

    for source, method in calls:
        with_it = permitted({"allow": allow, "deny": deny}, source, method)
        assert with_it == permitted(less, source, method)


def test_ten_thousand_rules() -> None:
    """In a large section the one rule too many is found by its patterns, not by search."""
    allow = [rule("a", paths=(f"/p{number}.S/M",)) for number in range(10_000)]
    assert found({"allow": [*allow, rule("a", "a", paths=("/p4711.S/M",))]}) == "allow[10000] by allow/4711"
