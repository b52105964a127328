"""``mesh policy diff`` on files: lines for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mesh.cli import cli
from mesh.cli.policy_diff import LINES, SHOWN, WIDTH, shown
from mesh.core.difference import differences
from mesh.core.policy import Policy

OLD = """\
services:
  a: {}
  old: {}
  orders:
    allow:
    - {principals: [a], paths: [/p.S/M, /p.S/N]}
    - {principals: [old], paths: ["*"], when: time.getHours() > 8}
"""
NEW = """\
services:
  a: {}
  new: {}
  orders:
    allow:
    - {principals: [a], paths: [/p.S/M], when: time.getHours() > 8}
    - {principals: ["*"], paths: [/p.S/N]}
  stock: {allow: [{principals: [a], paths: ["*"]}]}
"""


def diff(tmp_path: Path, old: str, new: str, *more: str) -> str:
    (tmp_path / "old.yaml").write_text(old)
    (tmp_path / "new.yaml").write_text(new)
    arguments = ["policy", "diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), *more]
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_lines(tmp_path: Path) -> None:
    """Services that come and go, what is granted otherwise, and how much of it there is."""
    assert diff(tmp_path, OLD, NEW).splitlines() == [
        "+ service new",
        "+ service stock",
        "- service old",
        "+ all others, mesh.operator, new, orders, stock -> orders /p.S/N: deny => allow",
        "- a -> orders /p.S/M: allow => on condition",
        "    - allow",
        "    + allow when time.getHours() > 8",
        "+ old -> orders /p.S/N: on condition => allow",
        "    - allow when time.getHours() > 8",
        "    + allow",
        "- old -> orders all others: on condition => deny",
        "    - allow when time.getHours() > 8",
        "+ a -> stock every method: deny => allow",
        "granted more: 3, less: 2",
    ]


TRAFFIC = """\
traffic:
  orders:
    breaker: {calls: 10}
    split:
    - {service: old, headers: [{key: k, values: [a, b]}, {key: l, values: ["*"]}]}
    - {service: orders, weight: 1}
    routes:
    - {paths: [/p.S/M], timeout: 2s, retry: {attempts: 3, on: [ABORTED, UNKNOWN]}}
    - {paths: [/p.S/N, "*/O"]}
    - {paths: [/p.S/M]}
"""


def test_traffic(tmp_path: Path) -> None:
    """What is done otherwise with calls is told by destination and part, and for programs as well."""
    said = diff(tmp_path, OLD, OLD + TRAFFIC).splitlines()
    assert said == [
        "~ traffic to orders: breaker: none => calls 10",
        "~ traffic to orders: split: none => old if k is a or b and l is *, orders 1",
        "~ traffic to orders: route /p.S/M: none => timeout 2s, retry attempts 3, on ABORTED UNKNOWN",
        "~ traffic to orders: route /p.S/N */O: none => as everywhere",
        "~ traffic to orders: route /p.S/M again: none => as everywhere",
        "no call is granted otherwise",
    ]
    first, *others = diff(tmp_path, OLD + TRAFFIC, OLD + TRAFFIC.replace("10}", "9}")).splitlines()
    assert (first, len(others)) == ("~ traffic to orders: breaker: calls 10 => calls 9", 1)
    lines = TRAFFIC.splitlines(keepends=True)
    moved = "".join([*lines[:-3], lines[-2], lines[-3], lines[-1]])
    assert (
        diff(tmp_path, OLD + TRAFFIC, OLD + moved)
        .splitlines()[0]
        .endswith("=> breaker, split, route /p.S/N */O, route /p.S/M, route /p.S/M again")
    )
    assert json.loads(diff(tmp_path, OLD + TRAFFIC, OLD, "-o", "json"))[0] == {
        "sign": "~",
        "traffic": "breaker",
        "destination": "orders",
        "before": "calls 10",
        "after": "none",
    }


def test_no_difference(tmp_path: Path) -> None:
    """Another text that grants the same is none."""
    renamed = OLD.replace("{principals: [a],", "{name: x, principals: [a],")
    assert diff(tmp_path, OLD, renamed) == "no call is granted otherwise\n"


def test_another_condition(tmp_path: Path) -> None:
    """It is said that it changed."""
    said = diff(tmp_path, OLD, OLD.replace("> 8", "> 9"))
    assert said.splitlines()[:3] == [
        "~ old -> orders every method: on condition, but not as before (if wider or narrower is not known)",
        "    - allow when time.getHours() > 8",
        "    + allow when time.getHours() > 9",
    ]


def test_wider_and_narrower_conditions(tmp_path: Path) -> None:
    """Where it is sure it is said; what is long is cut."""
    narrow = OLD.replace("when: time", "headers: [{key: k, values: ['1']}], when: time")
    wide = narrow.replace("['1']", "['*']")
    assert diff(tmp_path, narrow, wide).splitlines() == [
        "+ old -> orders every method: on condition, wider than before",
        "    - allow with k: 1 when time.getHours() > 8",
        "    + allow with k: * when time.getHours() > 8",
        "granted more: 1",
    ]
    assert diff(tmp_path, wide, narrow).splitlines()[0].endswith("on condition, narrower than before")
    tried = wide.replace("when: time", "mode: audit, when: time")
    assert diff(tmp_path, wide, tried).splitlines()[0].endswith("on condition, as wide as before")
    recorded = OLD + '    deny:\n    - {principals: [a], paths: ["*"], mode: audit}\n'
    assert diff(tmp_path, OLD, recorded).splitlines()[:2] == [
        "~ a -> orders /p.S/M, /p.S/N: allow, but not as before",
        "    + deny in audit",
    ]


def test_a_mode_is_one_line(tmp_path: Path) -> None:
    """Whoever and whatever it concerns; what changes besides is told as under that mode."""
    audited = "enforce => audit: what is denied is only recorded, but for deny rules with mode: enforce"
    enforced = "audit => enforce: what was only recorded is denied, but for deny rules with mode: audit"
    assert diff(tmp_path, OLD, f"mode: audit\n{OLD}").splitlines() == [
        f"+ mode of every service: {audited}",
        "granted more: 1",
    ]
    some = OLD.replace("a: {}", "a: {mode: audit}").replace("  old: {}", "  old: {mode: audit}")
    assert diff(tmp_path, OLD, some).splitlines()[0] == f"+ mode of a, old: {audited}"
    besides = OLD.replace(" {}", " {mode: audit}").replace("paths: [/p.S/M,", "mode: audit, paths: [/p.S/M,")
    assert diff(tmp_path, besides, f"mode: audit\n{OLD}").splitlines() == [
        f"+ mode of orders: {audited}",
        "~ a -> orders /p.S/M, /p.S/N: audit => allow",
        "granted more: 1, otherwise: 1",
    ]
    assert diff(tmp_path, besides, OLD).splitlines() == [
        f"- mode of a, old: {enforced}",
        "~ a -> orders /p.S/M, /p.S/N: audit => allow",
        "granted less: 1, otherwise: 1",
    ]
    assert len(json.loads(diff(tmp_path, OLD, f"mode: audit\n{OLD}", "-o", "json"))) == 5


def test_many_conditions_are_cut(tmp_path: Path) -> None:
    """So is one that is long."""
    rules = "".join(
        f"    - {{principals: [old], paths: ['*'], when: 'time.getHours() > {n}{' ' * WIDTH}'}}\n"
        for n in range(SHOWN + 2)
    )
    long = OLD + "".join(
        f"    - {{principals: [old], paths: ['*'], headers: [{{key: k{n}, values: [{'x' * WIDTH}]}}]}}\n"
        for n in range(SHOWN + 2)
    )
    said = diff(tmp_path, OLD, OLD + rules).splitlines()
    assert said[SHOWN] == f"    + allow when time.getHours() > {SHOWN - 1}"
    assert said[SHOWN + 1] == "    + and 2 more"
    assert (
        diff(tmp_path, OLD, long).splitlines()[1]
        == f"    + allow with k0: {'x' * WIDTH}"[: WIDTH + 6] + "..."
    )


def test_many_lines_are_cut(tmp_path: Path) -> None:
    """So are many methods in one; programs get all."""
    rules = "".join(f"    - {{principals: [s{n}], paths: [/p.S/M{n}]}}\n" for n in range(LINES + 2))
    names = "".join(f"  s{n}: {{}}\n" for n in range(LINES + 2))
    said = diff(tmp_path, f"services:\n{names}  x: {{}}\n", f"services:\n{names}  x:\n    allow:\n{rules}")
    assert len(said.splitlines()) == LINES + 2
    assert "  and 2 more: see mesh policy diff -o json" in said.splitlines()
    paths = ", ".join(f"/p.S/M{n}" for n in range(SHOWN + 3))
    said = diff(
        tmp_path, "services: {a: {}}", f"services: {{a: {{allow: [{{principals: [a], paths: [{paths}]}}]}}}}"
    )
    assert "/p.S/M5 and 3 more: deny => allow" in said


def test_as_json(tmp_path: Path) -> None:
    """Every difference with its callers and methods."""
    found = json.loads(diff(tmp_path, OLD, NEW, "-o", "json"))
    assert found[1] == {
        "sign": "-",
        "sources": ["a"],
        "every_source": False,
        "destination": "orders",
        "methods": ["/p.S/M"],
        "every_method": False,
        "before": "allow",
        "after": "on condition",
        "scope": "narrower",
        "lost": ["allow"],
        "gained": ["allow when time.getHours() > 8"],
    }
    assert found[-1]["methods"] == ["*"]
    assert found[-1]["every_method"]


def test_what_is_not_compared(tmp_path: Path) -> None:
    """More than can be looked at is told as such, and never passes for what does not differ."""
    paths = ", ".join(f"/p{n}.S/*, '*/M{n}'" for n in range(101))
    old = f"services: {{a: {{allow: [{{principals: [a], paths: [{paths}]}}]}}}}"
    said = diff(tmp_path, old, "services: {a: {}}").splitlines()
    assert said[0].startswith("? a -> a /p0.S/*, /p1.S/*")
    assert said[0].endswith(" and 196 more: not compared, or not all")
    assert said[-1] == "granted less: 1, not compared: 1"
    found = json.loads(diff(tmp_path, old, "services: {a: {}}", "-o", "json"))
    assert [found[0][key] for key in ("sign", "before", "after")] == ["?", "not compared", "not compared"]


def test_whole_services_that_are_not_compared() -> None:
    """They are told by their names."""
    old, new = (
        Policy.parse(json.dumps({"services": {"a": {"allow": [rule]}, "b": {"allow": [rule]}}}))
        for rule in ({"principals": ["a"], "paths": ["*"]}, {"principals": ["b"], "paths": ["*"]})
    )
    lines = [shown(one) for one in differences(old, new, -1)]
    assert lines == [f"? every caller -> {name} every method: not compared, or not all" for name in "ab"]
