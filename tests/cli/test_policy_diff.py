"""``mesh policy diff`` on files: lines for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mesh.cli import cli
from mesh.cli.policy_diff import LINES, SHOWN, shown
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
        "+ old -> orders /p.S/N: on condition => allow",
        "- old -> orders all others: on condition => deny",
        "+ a -> stock every method: deny => allow",
        "granted more: 3, less: 2",
    ]


def test_no_difference(tmp_path: Path) -> None:
    """Another text that grants the same is none."""
    renamed = OLD.replace("{principals: [a],", "{name: x, principals: [a],")
    assert diff(tmp_path, OLD, renamed) == "no call is granted otherwise\n"


def test_another_condition(tmp_path: Path) -> None:
    """It is said that it changed."""
    said = diff(tmp_path, OLD, OLD.replace("> 8", "> 9"))
    assert said.splitlines()[0] == "~ old -> orders every method: on condition, but not as before"


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
