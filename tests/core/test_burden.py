"""What a policy may cost: bounds on what one call can meet, not on what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.core.burden import MAX_GROUPS, MAX_MET, MAX_VALUES, check_burden
from mesh.core.document import PolicyError
from mesh.core.policy import Policy

HEADER: dict[str, Any] = {"headers": [{"key": "k", "values": ["1"]}]}


def rules(
    count: int, principal: str = "a", path: str = "*", more: dict[str, Any] = HEADER
) -> list[dict[str, Any]]:
    """Give rules that are all about what the text says, ``{}`` being the number of each."""
    return [{"principals": [principal.format(n)], "paths": [path.format(n)], **more} for n in range(count)]


def check(
    allow: list[dict[str, Any]], deny: list[dict[str, Any]], groups: dict[str, list[str]] | None = None
) -> str:
    named: dict[str, Any] = {f"c{n}": {} for n in range(MAX_MET + 2)}
    section = {"allow": allow, "deny": deny}
    policy = {"services": named | {"a": {}, "orders": section}, "groups": groups or {}}
    try:
        check_burden(Policy.parse(json.dumps(policy)))
    except PolicyError as error:
        return str(error)
    return ""


MET: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]], bool]] = [
    ("as many as may be", rules(MAX_MET), [], True),
    ("one more", rules(MAX_MET + 1), [], False),
    ("conditions", rules(MAX_MET + 1, more={"when": "time.getHours() > 1"}), [], False),
    ("one more, that denies", rules(MAX_MET), rules(1), False),
    ("neither header nor condition", rules(MAX_MET + 1, more={}), [], True),
    ("each of another caller", rules(MAX_MET + 1, "c{}"), [], True),
    ("each of another caller, and one of all", rules(MAX_MET + 1, "c{}"), rules(MAX_MET, "*"), False),
    ("each for another method", rules(MAX_MET + 1, path="/p.S/M{}"), [], True),
    ("each for another service", rules(MAX_MET + 1, path="/p{}.S/*"), [], True),
    ("one method by several paths", [*rules(200, path="/p.S/*"), *rules(57, path="*/M")], [], True),
    (
        "one method, named as well",
        [*rules(200, path="/p.S/*"), *rules(56, path="*/M"), *rules(1, path="/p.S/M")],
        [],
        False,
    ),
    ("several principals", [*rules(200, "a.*"), *rules(57, "a.b.*")], [], False),
    ("the same rule by two paths", [one | {"paths": ["*", "*/M"]} for one in rules(MAX_MET)], [], True),
]


@pytest.mark.parametrize(("allow", "deny", "good"), [row[1:] for row in MET], ids=[row[0] for row in MET])
def test_rules_that_a_call_may_meet(
    allow: list[dict[str, Any]], deny: list[dict[str, Any]], good: bool
) -> None:
    """No more than 256 with a header or a condition, be there as many as may be of them in all."""
    said = check(allow, deny)
    assert (said == "") is good
    if not good:
        assert said.startswith("policy.services.orders: calls of ")
        assert "may meet" in said


def test_groups() -> None:
    """Whoever is in a group meets the rules that speak of the group; groups are counted as well."""
    inner = {"g": ["group:h"], "h": ["a"], "other": ["c1"]}
    grouped = [*rules(200, "group:g"), *rules(57, "group:h")]
    assert "calls of 'a' to '*' may meet 257 rules" in check(grouped, [], inner)
    apart = [*rules(200, "group:g"), *rules(57, "group:other")]
    assert check(apart, [], inner) == ""
    many = {f"g{n}": ["a"] for n in range(MAX_GROUPS + 1)}
    assert check([], [], many) == "policy.groups: 10001 are too many groups: use at most 10000"


def test_values() -> None:
    """They are bounded together, for one rule may have any number of them."""
    listed = [str(n) for n in range(MAX_VALUES)]
    one = rules(1, more={"headers": [{"key": "k", "values": listed}]})
    assert check(one, []) == ""
    assert "may meet 10001 values of headers" in check(one, rules(1))
    assert check(one, rules(1, "c0")) == ""
