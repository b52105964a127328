"""Verdicts: what nodes would say, in words."""

from __future__ import annotations

import json

import pytest

from mesh.core.condition import Call
from mesh.core.policy import Policy
from mesh.core.verdict import Judge

M = "/p.S/M"
POLICY = {
    "services": {
        "a": {},
        "b": {},
        "open": {"mode": "audit", "deny": [{"name": "no", "principals": ["b"], "paths": ["*"]}]},
        "shop": {
            "allow": [{"name": "yes", "principals": ["a"], "paths": ["*"]}],
            "deny": [{"name": "drop", "principals": ["*"], "paths": ["*/Drop"]}],
        },
    }
}


@pytest.mark.parametrize(
    ("source", "destination", "method", "word", "why"),
    [
        ("a", "shop", M, "allow", "rule 'yes' allows it"),
        ("a", "shop", "/p.S/Drop", "deny", "rule 'drop' denies it"),
        ("b", "shop", M, "deny", "no rule allows it"),
        ("a", "nowhere", M, "deny", "no rule allows it"),
        ("a", "No Name", M, "deny", "no rule allows it"),
        ("No Name", "shop", M, "deny", "no rule allows it"),
        ("a", "open", "no method", "deny", "no rule allows it"),
        ("a", "open", M, "audit", "permitted in audit: no rule allows it"),
        ("b", "open", M, "audit", "permitted in audit: rule 'no' denies"),
    ],
)
def test_verdicts(source: str, destination: str, method: str, word: str, why: str) -> None:
    """A word for programs, and a reason for people; asked twice it is the same."""
    judge = Judge(Policy.parse(json.dumps(POLICY)))
    for _ in range(2):
        verdict = judge.verdict(Call(source, destination, method, (), None))
        assert (verdict.word, verdict.why) == (word, why)
        assert verdict.permitted is (word != "deny")
