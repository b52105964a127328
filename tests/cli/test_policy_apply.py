"""``mesh policy apply``: what it refuses before auth is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.cli.errors import CliError
from mesh.cli.policy_apply import earlier, spare_operator, text_of
from mesh.core.difference import differences, taken_from
from mesh.core.names import OPERATOR
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2

TAKING: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"principals": ["a"]}, "it takes every method of orders from mesh.operator"),
    ({"when": "true"}, {"when": "false"}, "it may take every method of orders from mesh.operator"),
    ({}, {"paths": ["/p.S/M"]}, "it takes "),
    ({"when": "true"}, {}, ""),
    ({}, {"mode": "audit"}, ""),
    ({"principals": ["mesh.operator", "a"]}, {}, ""),
]


def policy(change: dict[str, Any]) -> Policy:
    rule = {"principals": ["mesh.operator"], "paths": ["*"]} | change
    return Policy.parse(json.dumps({"services": {"a": {}, "orders": {"allow": [rule]}}}))


@pytest.mark.parametrize(("old", "new", "said"), TAKING)
def test_what_may_cut_the_operator_off(old: dict[str, Any], new: dict[str, Any], said: str) -> None:
    """Less is refused, and another condition, for it may hold of nothing; what takes nothing is not."""
    found = taken_from(OPERATOR.text, policy(old), policy(new))
    if not said:
        spare_operator(found)
        return
    with pytest.raises(CliError, match="use --cut-operator if that is meant") as refused:
        spare_operator(found)
    assert said in refused.value.message


def test_what_is_not_compared_may_cut_the_operator_off() -> None:
    """Nobody knows that it does not."""
    found = differences(policy({}), policy({"paths": ["/p.S/M", "*"]}), -1)
    with pytest.raises(CliError, match="may take every method of orders"):
        spare_operator(found)


#: A policy was applied, and another; then rolled back, and again; then one applied, and rolled back twice.
HISTORY = [
    auth_pb2.PolicyInfo(version=version, restores=restores)
    for version, restores in enumerate([None, None, None, None, 2, 1, None, 5, 1])
]


@pytest.mark.parametrize(
    ("version", "text", "before"),
    [
        (3, 3, [2, 1]),
        (4, 2, [1]),
        (5, 1, []),
        (6, 6, [5, 4, 3, 2, 1]),
        (7, 1, []),
        (0, 0, []),
    ],
)
def test_where_a_rollback_goes_on(version: int, text: int, before: list[int]) -> None:
    """From the version whose text is in force: a second one never brings back what the first took out."""
    assert text_of(version, HISTORY) == text
    assert earlier(text, HISTORY) == before
