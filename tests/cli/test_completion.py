"""What shells are told to complete; and what every command holds to: documented options, errors of a line."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mesh.cli import cli, errors
from mesh.cli.completion import SHELLS
from mesh.cli.errors import Exit
from tests.cli.command import ROOT, command, environment, run

POLICY = """\
version: 1
services:
  orders:
    allow:
      - name: other
        only: x
  'other': {}
groups:
  odd: []
"""
DOCS = (ROOT / "docs" / "cli.md").read_text()


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from leaves(found, (*path, name))
        elif not found.hidden:
            yield (*path, name), found


LEAVES = dict(leaves(cli))


def complete(words: str, where: Path, **more: str) -> list[str]:
    """Give what bash is told for the last of the words, each as kind and text."""
    parts = words.split(" ")
    asked = {"_MESH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    done = subprocess.run(
        command(), cwd=where, env=environment(**asked, **more), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell(shell: str) -> None:
    """A shell is given something that has the command complete itself."""
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_MESH_COMPLETE={shell}_complete" in done.stdout


def test_commands_options_and_choices(tmp_path: Path) -> None:
    """What the command itself knows is completed."""
    assert complete("mesh sta", tmp_path) == ["plain,stat", "plain,status"]
    assert complete("mesh stat -o w", tmp_path) == ["plain,wide"]
    assert "plain,--limit" in complete("mesh tap --l", tmp_path)
    assert complete("mesh policy apply pol", tmp_path) == ["file,pol"]


def test_services(tmp_path: Path) -> None:
    """Names come from the policy in the directory and from recorded calls, and from nowhere else."""
    assert complete("mesh stat o", tmp_path) == []
    (tmp_path / "policy.yaml").write_text(POLICY)
    with sqlite3.connect(tmp_path / "decisions.db") as connection:
        connection.execute("CREATE TABLE decision (source TEXT, destination TEXT)")
        connection.execute("INSERT INTO decision VALUES ('old', 'orders'), ('', 'ovens')")
    connection.close()
    assert complete("mesh stat o", tmp_path) == ["plain,orders", "plain,other"]
    found = ["plain,old", "plain,orders", "plain,other", "plain,ovens"]
    assert complete("mesh stat o", tmp_path, MESH_DATA=str(tmp_path)) == found
    assert complete(f"mesh describe --data {tmp_path} o", tmp_path) == found
    (tmp_path / "decisions.db").write_bytes(b"no database")
    assert complete("mesh stat ov", tmp_path, MESH_DATA=str(tmp_path)) == []


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe or a device under the name of a file is left alone: a shell waits."""
    os.mkfifo(tmp_path / "decisions.db")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(tmp_path / "policy.yaml")
        assert complete("mesh stat ", tmp_path, MESH_DATA=str(tmp_path)) == []
        (tmp_path / "policy.yaml").unlink()


def test_decisions_without_an_end(tmp_path: Path) -> None:
    """A database that has always more to tell is asked for half a second."""
    with sqlite3.connect(tmp_path / "decisions.db") as connection:
        connection.execute(
            "CREATE VIEW decision AS WITH RECURSIVE more(source, destination) AS"
            " (SELECT 'a', 1 UNION ALL SELECT 'a', destination + 1 FROM more) SELECT * FROM more"
        )
    connection.close()
    assert complete("mesh stat b", tmp_path, MESH_DATA=str(tmp_path)) == []


def test_no_name_is_more_than_a_name(tmp_path: Path) -> None:
    """A shell acts on lines of its own: what is no service's name gives none."""
    with sqlite3.connect(tmp_path / "decisions.db") as connection:
        connection.execute("CREATE TABLE decision (source TEXT, destination TEXT)")
        connection.execute("INSERT INTO decision VALUES ('o\nfile,/etc', 'o$(id)'), ('orders', 'o\x1b[31m')")
    connection.close()
    assert complete("mesh stat o", tmp_path, MESH_DATA=str(tmp_path)) == ["plain,orders"]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_documented(path: tuple[str, ...]) -> None:
    """docs/cli.md has each option of each command, and each has a help text."""
    for one in LEAVES[path].params:
        if isinstance(one, click.Option) and not one.hidden:
            assert one.help, one.name
            assert any(re.search(rf"(?<![\w-]){re.escape(text)}(?![\w-])", DOCS) for text in one.opts), (
                one.opts
            )


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_says_what_is_wrong_with_its_line(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that there is not is one line, with what to look at, and status 2."""
    with pytest.raises(SystemExit) as left:
        cli.main([*path, "--no-such-option"])
    assert left.value.code == Exit.USAGE
    assert re.fullmatch(
        rf"error: .*: see mesh {' '.join(path)} --help \(docs/cli.md#mesh-{path[0]}\)\n",
        capsys.readouterr().err,
    )


def test_every_error_says_where_to_read_on() -> None:
    """The page of each kind of error, and of each command, is there, and so is the section."""
    pages = {errors.page(command, status) for command in ("", *cli.commands) for status in Exit}
    assert len(pages) > len(cli.commands)
    for found in sorted(pages):
        name, _, section = found.partition("#")
        text = (ROOT / name).read_text()
        heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        sections = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
        assert section in {"", *sections, *re.findall(r'<a id="([^"]*)">', text)}, found


def test_every_status_is_documented() -> None:
    """Each status has a row in the table of docs/cli.md."""
    assert {str(int(one)) for one in Exit} <= set(re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE))
