"""What is shown: nothing that a terminal obeys, and colours where they are wanted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh.cli.check import _show as show_finding
from mesh.cli.checks import Finding, State
from mesh.cli.errors import Exit
from mesh.cli.output import show_table
from tests.cli.command import run
from tests.cli.terminal import on_terminal

#: Clears the screen, sets the title, turns the direction of writing, ends the line.
EVIL = "a\x1b[2Jb\x1b]0;t\x07c\u202ed\r\ne\x9bf"
SHOWN = r"a\x1b[2Jb\x1b]0;t\x07c\u202ed\r\ne\x9bf"


def test_cells_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever named a thing, in a table its name is letters, in one line."""
    show_table(("NAME", "WHAT"), [(EVIL, "x"), ("y", EVIL)])
    said = capsys.readouterr().out
    assert said.count(SHOWN) == 2
    assert all(one.isprintable() for one in said.replace("\n", ""))


@pytest.mark.parametrize("columns", [40, 400])
def test_narrow_terminals(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither does it where a row is told in several lines."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_table(("NAME", "WHAT"), [(EVIL * 3, EVIL)], ("NAME",))
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert "\x1b]" not in said
    assert SHOWN in said.replace("\n", "").replace(" ", "")


def test_findings_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor do the names in what mesh check finds."""
    show_finding(Finding("ports", State.DOUBTFUL, EVIL, EVIL))
    said = capsys.readouterr().out
    assert said.count(SHOWN) == 2
    assert said.count("\n") == 2


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Give a data directory of a mesh that does not run, of which there is something to find."""
    (tmp_path / "operator.json").write_text("{}")
    (tmp_path / "operator.json").chmod(0o600)
    nowhere = dict.fromkeys(("join", "auth", "gatekeeper"), "127.0.0.1:1")
    (tmp_path / "addresses.json").write_text(json.dumps(nowhere))
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "no"}, False)],
)
def test_colours(
    variables: dict[str, str], coloured: bool, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal has colours, unless NO_COLOR is set to anything (no-color.org)."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = on_terminal("check", "--data", broken, status=Exit.FAILED)
    assert "auth takes no connection" in said
    assert ("\x1b[3" in said) is coloured


def test_no_colours_in_a_pipe(broken: Path) -> None:
    """What is no terminal has none, and JSON is JSON whatever is wrong."""
    assert "\x1b" not in run("check", "--data", broken).stdout
    assert json.loads(run("check", "-o", "json", "--data", broken).stdout)
