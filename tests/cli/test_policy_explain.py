"""``mesh policy explain`` on a file: what a person reads, what a program reads, questions that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mesh.cli import cli
from mesh.cli.errors import Exit
from tests.cli.test_policy_test import POLICY

NOON, NIGHT = "2027-01-04T12:00:00Z", "2027-01-04T22:00:00Z"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def run(policy: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["policy", "explain", *arguments, "--policy", str(policy)])


SAID = [
    (
        ["acme", "orders", "/shop.v1.Orders/Get", "--time", NOON],
        """\
acme -> orders /shop.v1.Orders/Get: allow: rule 'by-day' allows it
decided by rule 'by-day' at services.orders.allow[0]
  principals: group:partners
  paths: /shop.v1.Orders/*
  when: time.getHours() >= 8 && time.getHours() < 18
""",
    ),
    (
        ["acme", "orders", "/shop.v1.Orders/Get", "--time", NIGHT],
        """\
acme -> orders /shop.v1.Orders/Get: deny: no rule allows it
nearest: rule 'by-day' at services.orders.allow[0]
  its condition is false: time.getHours() >= 8 && time.getHours() < 18
smallest change:
  add to services.orders.allow:
    - principals: [acme]
      paths: [/shop.v1.Orders/Get]
  without what the nearest rule asks besides: when: time.getHours() >= 8 && time.getHours() < 18
""",
    ),
    (
        ["branch.one", "orders", "/x.Y/Get", "-m", "x-tenant=acme"],
        """\
branch.one -> orders /x.Y/Get: allow: rule 'tenant' allows it
decided by rule 'tenant' at services.orders.allow[1]
  principals: branch.one
  paths: */Get
  header x-tenant: acme
""",
    ),
    (
        ["acme", "orders", "/shop.v1.Orders/Purge", "--time", NOON],
        """\
acme -> orders /shop.v1.Orders/Purge: deny: rule 'no-purge' denies it
decided by rule 'no-purge' at services.orders.deny[0]
  principals: *
  paths: */Purge
smallest change:
  add to services.orders.deny[0]:
    when: source != "acme" || method != "/shop.v1.Orders/Purge"
""",
    ),
    (
        ["acme", "orders", "/shop.v1.Orders/Put", "--time", NOON],
        """\
acme -> orders /shop.v1.Orders/Put: audit: permitted in audit: rule 'soon' denies
decided by rule 'by-day' at services.orders.allow[0]
  principals: group:partners
  paths: /shop.v1.Orders/*
  when: time.getHours() >= 8 && time.getHours() < 18
also speaks against it: rule 'soon' at services.orders.deny[1]
""",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), SAID, ids=range(len(SAID)))
def test_what_is_said(policy: Path, arguments: list[str], said: str) -> None:
    """The rule that decides, or the nearest one and the smallest change."""
    done = run(policy, *arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == said


@pytest.mark.parametrize("method", ["/shop.v1.Orders/Get", "/shop.v1.Orders/Purge"])
def test_now_is_said_where_it_counts(policy: Path, method: str) -> None:
    """Without a time, a condition that asks it was judged by now, and the last line says so."""
    said = run(policy, "acme", "orders", method).stdout.splitlines()[-1]
    assert re.fullmatch(r"judged at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: use --time for another", said)
    assert "judged at" not in run(policy, "acme", "orders", method, "--time", NOON).stdout


def test_now_is_not_said_where_it_counts_not(policy: Path) -> None:
    """A call that no condition on time is about has the same answer at any time."""
    assert "judged at" not in run(policy, "branch.one", "orders", "/x.Y/Get", "-m", "x-tenant=acme").stdout


def test_now_is_said_of_the_nearest(policy: Path) -> None:
    """A rule that comes nearest and asks the time besides is shown, so the time is, too."""
    policy.write_text(
        "services:\n  b: {}\n  a:\n"
        "    allow: [{principals: [b], paths: ['*'], when: time > timestamp('2000-01-01T00:00:00Z')}]\n"
    )
    assert "judged at" in run(policy, "a", "a", "/p.S/M").stdout


def test_removing_is_said(policy: Path) -> None:
    """A deny rule for nothing but this call is to go; a rule that cannot be mended is said to be none."""
    policy.write_text(
        "services:\n  a:\n    allow: [{principals: ['*'], paths: [/p.S/N]}]\n"
        "    deny: [{principals: [a], paths: [/p.S/M]}]\n"
    )
    assert "  remove services.a.deny[0]\n" in run(policy, "a", "a", "/p.S/M").stdout
    condition = "true" + " || true" * 127
    policy.write_text(f"services: {{a: {{deny: [{{principals: ['*'], paths: ['*'], when: {condition}}}]}}}}")
    assert "no single change permits it" in run(policy, "a", "a", "/p.S/M").stdout


def test_what_a_change_keeps_and_drops(policy: Path) -> None:
    """A header that the call meets stays in the new rule; what a removed rule asked is said."""
    said = run(policy, "acme", "orders", "/x.Y/Get", "-m", "x-tenant=acme", "--time", NIGHT).stdout
    assert "      headers:\n" in said
    assert "without what" not in said
    policy.write_text(
        "services:\n  a:\n    allow: [{principals: ['*'], paths: [/p.S/N]}]\n"
        "    deny: [{principals: [a], paths: [/p.S/M], headers: [{key: k, values: [x]}], when: 'true'}]\n"
    )
    said = run(policy, "a", "a", "/p.S/M", "-m", "k=x").stdout
    assert "  it denies no more than this caller and method, and only with header k: x; when: true\n" in said
    policy.write_text(
        "services:\n  a:\n    allow: [{principals: ['*'], paths: ['*']}]\n"
        "    deny: [{principals: ['*'], paths: [/p.S/M], headers: [{key: k, values: [x, z]}]}]\n"
    )
    said = run(policy, "a", "a", "/p.S/M", "-m", "k=x").stdout
    lifts = "whatever is sent and whenever, though the rule denies this caller and method only with"
    assert f"  {lifts} header k: x or z\n" in said
    assert "nearest rule" not in said


def test_a_deny_rule_that_cannot_be_judged(policy: Path) -> None:
    """It is said why it denies; and one that can never be judged is to be corrected, not excepted from."""
    rule = "{principals: ['*'], paths: ['*']}"
    document = (
        f"services: {{a: {{allow: [{rule}], deny: [{rule[:-1]}, when: WHEN}}, {rule[:-1]}, when: WHY}}]}}}}"
    )
    policy.write_text(document.replace("WHEN", "1 / 0 == 1").replace("WHY", "metadata.k == '1'"))
    lines = run(policy, "a", "a", "/p.S/M").stdout.splitlines()
    assert "  its condition cannot be judged: 1 / 0 == 1: so it denies" in lines
    assert "  its condition cannot be judged (k is not sent): metadata.k == '1': so it denies" in lines
    assert lines[-1] == (
        "no change is proposed: first correct the condition of rule 'a/deny/0' at services.a.deny[0]"
    )


def test_as_json(policy: Path) -> None:
    """Everything that is said, for programs."""
    found = json.loads(run(policy, "acme", "orders", "/a.B/C", "-o", "json", "--time", NIGHT).stdout)
    assert found == {
        "source": "acme",
        "destination": "orders",
        "method": "/a.B/C",
        "verdict": "deny",
        "why": "no rule allows it",
        "rule": None,
        "denying": [],
        "nearest": {"name": "by-day", "place": "services.orders.allow[0]"},
        "lacks": [
            "/a.B/C is not among its paths",
            "its condition is false: time.getHours() >= 8 && time.getHours() < 18",
        ],
        "changes": [
            {
                "action": "add",
                "place": "services.orders.allow",
                "value": {"principals": ["acme"], "paths": ["/a.B/C"]},
                "drops": ["when: time.getHours() >= 8 && time.getHours() < 18"],
            }
        ],
        "broken": [],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Acme", "orders", "/a.B/C"], "bad service name 'Acme'"),
        (["acme", "orders", "a.B/C"], "bad method 'a.B/C'"),
        (["acme", "orders", "/a.B/C", "-m", "x"], "'x' is not KEY=VALUE"),
        (["acme", "orders", "/a.B/C", "-m", "mesh-x=1"], "belongs to the mesh"),
        (["acme", "orders", "/a.B/C", "--time", "noon"], "bad time 'noon'"),
        (["acme", "mesh.auth", "/a.B/C"], "no policy decides about calls to mesh.auth"),
    ],
)
def test_questions_that_are_none(policy: Path, arguments: list[str], said: str) -> None:
    """One line, and status 2."""
    done = run(policy, *arguments)
    assert done.exit_code == Exit.USAGE
    assert said in done.stderr
