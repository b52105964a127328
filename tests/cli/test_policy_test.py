"""``mesh policy test``: cases that hold, cases that do not, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mesh.cli import cli
from mesh.cli.errors import Exit

POLICY = """\
groups: {partners: [acme, branch.one]}
services:
  acme: {}
  branch.one: {}
  orders:
    allow:
    - name: by-day
      principals: ["group:partners"]
      paths: ["/shop.v1.Orders/*"]
      when: time.getHours() >= 8 && time.getHours() < 18
    - name: tenant
      principals: [branch.one]
      paths: ["*/Get"]
      headers: [{key: x-tenant, values: [acme]}]
    deny:
    - {name: no-purge, principals: ["*"], paths: ["*/Purge"]}
    - {name: soon, principals: [acme], paths: ["*/Put"], mode: audit}
"""
GOOD = """\
cases:
- name: partners by day
  from: [acme, branch.one]
  to: orders
  method: [/shop.v1.Orders/Get, /shop.v1.Orders/List]
  time: 2027-01-04T12:00:00Z
  expect: allow
  rule: by-day
- {from: acme, to: orders, method: /shop.v1.Orders/Get, time: "2027-01-04T20:00:00+01:00", expect: deny}
- {from: acme, to: orders, method: /shop.v1.Orders/Get, expect: deny}
- {from: branch.one, to: orders, method: /a.B/Get, metadata: {x-tenant: acme}, expect: allow, rule: tenant}
- {from: branch.one, to: orders, method: /a.B/Get, metadata: {x-tenant: [acme, b]}, expect: deny}
- {from: acme, to: orders, method: /a.B/Purge, expect: deny, rule: no-purge}
- {from: acme, to: orders, method: /shop.v1.Orders/Put, time: 2027-01-04T12:00:00Z, expect: audit, rule: soon}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def run(policy: Path, cases: str | None = None, *more: str) -> Result:
    if cases is not None:
        policy.with_name("policy.test.yaml").write_text(cases)
    return CliRunner().invoke(cli, ["policy", "test", str(policy), *more])


def test_cases_that_hold(policy: Path) -> None:
    """Several callers and methods make a case of each pair; the file beside the policy is found."""
    done = run(policy, GOOD)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "10 calls, 0 not as expected\n"


def test_cases_that_do_not_hold(policy: Path) -> None:
    """Each is told with its place, what was expected and what decided; the status is 1."""
    bad = GOOD.replace("expect: deny}", "expect: allow}", 1).replace("rule: tenant", "rule: by-day")
    bad = bad.replace("expect: audit, rule: soon", "expect: deny")
    done = run(policy, bad)
    at = policy.with_name("policy.test.yaml")
    assert done.exit_code == Exit.FAILED
    assert done.stdout.splitlines() == [
        f"{at}:9:3: acme -> orders /shop.v1.Orders/Get: expected allow, is deny: no rule allows it",
        "  nearest: rule 'by-day' at services.orders.allow[0]",
        "    its condition is false: time.getHours() >= 8 && time.getHours() < 18",
        (
            f"{at}:11:3: branch.one -> orders /a.B/Get: expected allow by 'by-day', is allow: "
            "rule 'tenant' allows it"
        ),
        "  rule 'by-day' at services.orders.allow[0]",
        "    /a.B/Get is not among its paths",
        (
            "    its condition cannot be judged (the time is not known): "
            "time.getHours() >= 8 && time.getHours() < 18"
        ),
        (
            f"{at}:14:3: acme -> orders /shop.v1.Orders/Put: expected deny, is audit: "
            "permitted in audit: rule 'soon' denies"
        ),
        "10 calls, 3 not as expected",
    ]
    assert done.stderr == f"error: {policy}: of 10 calls, 3 not as expected (docs/cli.md#mesh-policy)\n"


WHY = [
    (
        "{from: acme, to: orders, method: /a.B/Get, expect: allow, rule: tenannt}",
        ["orders has no rule 'tenannt': is it spelt right?"],
    ),
    (
        "{from: acme, to: orders, method: /a.B/Purge, expect: allow}",
        [],
    ),
    (
        "{from: branch.one, to: orders, method: /a.B/Get, metadata: {x-tenant: acme}, expect: deny}",
        ["nearest: rule 'no-purge' at services.orders.deny[0]", "  /a.B/Get is not among its paths"],
    ),
    (
        "{from: acme, to: orders, method: /a.B/Doubt, expect: allow}",
        ["its condition cannot be judged (k is not sent): metadata.k == '1'"],
    ),
    ("{from: acme, to: acme, method: /a.B/Get, expect: allow}", []),
]


@pytest.mark.parametrize(("case", "said"), WHY, ids=range(len(WHY)))
def test_why_it_is_not_as_expected(policy: Path, case: str, said: list[str]) -> None:
    """What the rule that was to decide lacks, or the nearest one; why a deny rule applies."""
    doubt = "    - {principals: [acme], paths: ['*/Doubt'], when: metadata.k == '1'}\n"
    policy.write_text(POLICY + doubt)
    lines = run(policy, f"cases: [{case}]").stdout.splitlines()
    assert [line.removeprefix("  ") for line in lines[1:] if line.startswith("  ")] == said


def test_a_name_is_shown_harmlessly(policy: Path) -> None:
    """A case's name cannot clear the screen, or look like another line."""
    case = (
        '{name: "\\e[2Jgr\u00fcn\\n0 not as expected", from: acme, to: orders, method: /a.B/C, expect: allow}'
    )
    line, *_ = run(policy, f"cases: [{case}]").stdout.splitlines()
    assert r": \x1b[2Jgrün\n0 not as expected: acme -> orders" in line


def test_as_json(policy: Path) -> None:
    """Every call with its verdict, those that hold as well."""
    found: list[dict[str, Any]] = json.loads(run(policy, GOOD, "-o", "json").stdout)
    assert len(found) == 10
    assert all(one["passed"] for one in found)
    assert found[-1] | {"place": ""} == {
        "place": "",
        "name": "",
        "source": "acme",
        "destination": "orders",
        "method": "/shop.v1.Orders/Put",
        "expected": "audit",
        "verdict": "audit",
        "rule": "soon",
        "passed": True,
    }


def test_notes(policy: Path) -> None:
    """A name that the policy does not have, and rules that no case tries, are said."""
    done = run(policy, "cases: [{from: acmee, to: order, method: /a.B/C, expect: deny}]")
    assert done.stdout.splitlines() == [
        "note: the policy has no service 'acmee': is it spelt right?",
        "note: the policy has no service 'order': is it spelt right?",
        "note: no case is decided by by-day, tenant, no-purge, soon",
        "1 call, 0 not as expected",
    ]


def test_many_untried_rules_are_cut(policy: Path) -> None:
    """The first few are enough to begin with."""
    rules = "".join(f'    - {{principals: [a], paths: ["/p{n}.S/M"]}}\n' for n in range(13))
    policy.write_text(f"services:\n  a:\n    allow:\n{rules}")
    done = run(policy, "cases: [{from: a, to: a, method: /p0.S/M, expect: allow}]")
    assert "a/allow/10 and 2 more" in done.stdout


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ("", "policy.test.yaml: is empty"),
        ("[]", ":1:1: file: has to be an object"),
        ("case: []", ":1:1: file.case: unknown field 'case': use cases"),
        ("cases: []", ":1:1: file.cases: is empty"),
        ("cases:\n- {from: a, to: b, method: /a.B/C}", ":2:3: file.cases[0].expect: is missing"),
        (
            "cases:\n- {from: a, to: b, method: /a.B/C, expect: yes}",
            ":2:44: file.cases[0].expect: bad verdict",
        ),
        (
            "cases:\n- {from: A, to: b, method: /a.B/C, expect: deny}",
            ":2:10: file.cases[0].from: bad service",
        ),
        ("cases:\n- {from: [a, 1], to: b, method: /a.B/C, expect: deny}", "from[1]: has to be a text"),
        ("cases:\n- {from: [], to: b, method: /a.B/C, expect: deny}", "from: is empty"),
        ("cases:\n- {from: a, to: b, method: /a.B/*, expect: deny}", "method: bad method"),
        ("cases:\n- {from: a, to: b, method: /a.B/C, expect: deny, time: noon}", "time: bad time 'noon'"),
        (
            "cases:\n- {from: a, to: b, method: /a.B/C, expect: deny, time: 2027-01-04T12:00:00}",
            "with its zone",
        ),
        (
            "cases:\n- {from: a, to: b, method: /a.B/C, expect: deny, metadata: {mesh-x: a}}",
            "belongs to the mesh",
        ),
        ("cases:\n- {from: a, to: b, method: /a.B/C, expect: deny, metadata: {x: 1}}", "has to be a list"),
        (
            "cases:\n- {from: a, to: b, methods: /a.B/C, expect: deny}",
            ":2:20: file.cases[0].methods: unknown",
        ),
    ],
)
def test_files_that_are_none(policy: Path, cases: str, said: str) -> None:
    """What is doubtful is refused with its place: a case that is not judged looks like one that holds."""
    done = run(policy, cases)
    assert done.exit_code == Exit.REFUSED
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_cases(policy: Path) -> None:
    """A file that is not there is named."""
    assert "cannot read" in run(policy).stderr
