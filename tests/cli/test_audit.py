"""``mesh audit``: what it shows, what it finds, and what it says when something is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import pytest

from mesh.cli import audit_source
from mesh.cli.audit_source import Place
from mesh.cli.errors import CliError
from mesh.cli.operator import Operator
from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import DAMAGED
from mesh.core.names import TrustDomain
from mesh.v1 import audit_pb2
from services.auth.directory import DataDirectory
from services.auth.founding import found
from tests.cli.command import command, environment, run, until, up
from tests.cli.terminal import on_terminal

NOW = int(time.time() * 1000)
DENIED = Entry(
    NOW - 3_600_000,
    Kind.DENIAL,
    "call denied",
    Verdict.DENIED,
    service="evil",
    by="orders/" + "0a" * 16,
    method="/shop.v1.Orders/Purge",
    rule="no-purge",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make a trust domain with some entries; no auth runs on it."""
    path = tmp_path / "mesh"
    found(path, TrustDomain("shop.example"), NOW - 86_400_000)
    with DataDirectory(path) as opened:
        opened.store.logs.log(
            "actions", [Entry(NOW - 60_000, Kind.POLICY, "policy applied", by="mesh.operator/1")]
        )
        opened.store.logs.log("denials", [DENIED, replace(DENIED, at_ms=NOW, service="frontend", rule="")])
        alarm = Entry(NOW, Kind.JOIN, "token reused", Verdict.DENIED, alarm=True, detail="\x1b[2Jred")
        opened.store.logs.log("denials", [alarm])
    return path


def query(data: Path, *options: str) -> list[dict[str, Any]]:
    done = run("audit", "query", "--offline", "--data", data, "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [entry for entry in found if entry["event"] != "segment begun"]


@pytest.mark.parametrize(
    ("options", "events"),
    [
        ((), ["trust domain made", "call denied", "policy applied", "call denied", "token reused"]),
        (("--since", "2h"), ["call denied", "policy applied", "call denied", "token reused"]),
        (("--since", "2h", "--until", "30m"), ["call denied"]),
        (("--kind", "policy", "--kind", "key"), ["trust domain made", "policy applied"]),
        (("--service", "evil"), ["call denied"]),
        (("--service", "orders"), ["call denied", "call denied"]),
        (("--method", "/shop.v1.Orders/Purge", "--service", "frontend"), ["call denied"]),
        (("--verdict", "denied", "--kind", "join"), ["token reused"]),
        (("--alarms",), ["token reused"]),
        (("--log", "actions"), ["trust domain made", "policy applied"]),
        (("--limit", "2"), ["call denied", "token reused"]),
        (("--until", "2020-01-01T00:00:00Z"), []),
    ],
    ids=str,
)
def test_filters(data: Path, options: tuple[str, ...], events: list[str]) -> None:
    """Time, kind, service, method, verdict, alarms, log: each narrows what is shown, oldest first."""
    assert [entry["event"] for entry in query(data, *options)] == events


def test_json_has_every_field_that_applies(data: Path) -> None:
    """An entry in JSON is its fields, its log, its number and its time in words."""
    (entry,) = query(data, "--service", "evil")
    assert entry == {
        "log": "denials",
        "seq": 1,
        "time": entry["time"],
        "at_ms": DENIED.at_ms,
        "kind": "denial",
        "event": "call denied",
        "verdict": "denied",
        "service": "evil",
        "by": DENIED.by,
        "method": DENIED.method,
        "rule": "no-purge",
    }


def test_a_table_does_nothing_to_the_terminal(data: Path) -> None:
    """Whatever stands in a text, no control character is printed."""
    done = run("audit", "tail", "--offline", "--data", data, "-n", "1")
    assert done.returncode == 0
    assert "\\x1b[2Jred" in done.stdout
    assert "\x1b" not in done.stdout


def test_verify_without_a_running_auth(data: Path) -> None:
    """Whole, torn by a crash, and edited are three things; each is told."""
    path = data / "audit" / "denials-00000000.log"
    verify = ("audit", "verify", "--offline", "--data", data)
    assert "denials: whole, 4 entries, the last is 3\n" in run(*verify).stdout
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    done = run(*verify)
    assert done.returncode == 0
    assert "and 100 bytes of one that a crash cut short" in done.stdout
    path.write_bytes(whole.replace(b"no-purge", b"no-surge", 1))
    done = run(*verify)
    assert done.returncode == 6
    page = "docs/audit.md#what-verify-finds"
    expected = f"error: audit log denials is not whole: entry 1 (segment 0, line 2) is changed ({page})\n"
    assert done.stderr == expected
    told = json.loads(run(*verify, "-o", "json").stdout)
    assert told["denials"]["first_bad"] == {"seq": 1, "segment": 0, "line": 2, "fault": "changed"}
    assert told["actions"]["whole"] is True


def test_the_key_and_what_was_seen(data: Path, tmp_path: Path) -> None:
    """The key may be elsewhere; another one, none, or a damaged note of what was seen is told."""
    away = tmp_path / "away" / "audit.key"
    away.parent.mkdir()
    (data / "audit.key").rename(away)
    verify = ("audit", "verify", "--offline", "--data", data)
    done = run(*verify)
    assert (done.returncode, "cannot read the audit key" in done.stderr) == (5, True)
    assert run(*verify, "--key", away).returncode == 0
    places = json.loads((away.parent / "audit.key.seen").read_text())["places"]
    assert places[str(data)].keys() == {"actions", "denials"}
    (away.parent / "audit.key.seen").write_text("[]")
    assert run(*verify, "--key", away).returncode == 5
    other = tmp_path / "other"
    other.write_bytes(bytes(32))
    done = run(*verify, "--key", other)
    assert (done.returncode, "or this is not its audit key" in done.stderr) == (6, True)
    other.write_bytes(b"short")
    assert run(*verify, "--key", other).returncode == 5


def test_lines_that_are_no_entries_are_counted(data: Path) -> None:
    """A query shows what it can read, and says that there is more."""
    path = data / "audit" / "denials-00000000.log"
    path.write_bytes(b"garbage\n" + path.read_bytes())
    done = run("audit", "query", "--offline", "--data", data)
    assert done.returncode == 0
    assert "1 line that is no entry in denials: run mesh audit verify" in done.stderr


BAD_OPTIONS = [
    ("--since", "soon"),
    ("--kind", "else"),
    ("--verdict", "maybe"),
    ("-n", "-1"),
    ("--id", "no-id"),
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options(data: Path, options: tuple[str, ...]) -> None:
    """What makes no sense is refused in one line."""
    done = run("audit", "tail", "--offline", "--data", data, *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_offline_beside_a_running_auth(tmp_path: Path) -> None:
    """The files of a running auth are its own; through it, everything is to be had, and followed."""
    with up(tmp_path / "mesh") as mesh:
        done = mesh.mesh("audit", "verify", "--offline")
        assert (done.returncode, "in use by another auth" in done.stderr) == (5, True)
        assert mesh.mesh("audit", "tail", "--offline", "--follow").returncode == 2
        assert mesh.mesh("audit", "verify").returncode == 0
        with following(tmp_path / "mesh") as follow:
            assert mesh.mesh("token", "create", "orders").returncode == 0
            until(lambda: '"service": "orders"' in follow.said(), "the entry to be shown")
            shown = [json.loads(line) for line in follow.said().splitlines()]
        assert [one["event"] for one in shown if one.get("service") == "orders"] == ["token created"]
        created = mesh.json("audit", "tail", "--kind", "token", "--service", "orders")
        assert [entry["event"] for entry in created] == ["token created"]


class Follow:
    """A ``mesh audit tail --follow`` that runs."""

    def __init__(self, data: Path, out: Path) -> None:
        self._out = out
        arguments = ("audit", "tail", "-f", "-o", "json", "-n", "1000", "--data", data)
        plain = environment(PYTHONUNBUFFERED="1")
        with out.open("w") as file:
            self.process = subprocess.Popen(
                command(*arguments), stdout=file, stderr=subprocess.DEVNULL, env=plain
            )

    def said(self) -> str:
        """Give what it has shown so far."""
        return self._out.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def following(data: Path) -> Follow:
    return Follow(data, data.with_name("followed"))


def test_the_id_that_the_caller_was_told(data: Path) -> None:
    """A call is found by its id; an operator's session only by its kind."""
    with DataDirectory(data) as opened:
        opened.store.logs.log("denials", [replace(DENIED, call_id="ab" * 8)])
        opened.store.logs.log("actions", [Entry(NOW, Kind.SESSION, "joined", service="mesh.operator")])
    (entry,) = query(data, "--id", f"[id {'ab' * 8}]", "--id", "cd" * 8)
    assert entry["call_id"] == "ab" * 8
    assert [one["event"] for one in query(data, "--kind", "session")] == ["joined"]
    assert "joined" not in [one["event"] for one in query(data)]


def test_damage_is_told_until_it_is_accepted(data: Path) -> None:
    """A log that is whole but says that somebody changed it is status 6, once."""
    verify = ("audit", "verify", "--offline", "--data", data)
    assert run(*verify).returncode == 0
    with DataDirectory(data) as opened:
        opened.store.logs.log("actions", [Entry(NOW, Kind.LOG, DAMAGED, alarm=True)])
        at = opened.store.logs.open.heads()["actions"].sequence - 1
    for _ in range(2):
        done = run(*verify)
        assert (done.returncode, f"says in entry {at} that somebody changed it" in done.stderr) == (6, True)
    assert run(*verify, "--accept").returncode == 0
    assert run(*verify).returncode == 0


def test_a_copy_does_not_move_the_marks_of_the_log(data: Path, tmp_path: Path) -> None:
    """What is verified elsewhere may go on as it likes; the log it was copied from is as whole as before."""
    key = data / "audit.key"
    assert run("audit", "verify", "--offline", "--data", data).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for path, service in ((copy, "one"), (data, "other")):
        with DataDirectory(path) as opened:
            opened.store.logs.log("denials", [replace(DENIED, service=service)] * 2)
    for path in (copy, data, copy, data):
        done = run("audit", "verify", "--offline", "--data", path, "--key", key)
        assert (done.returncode, done.stderr) == (0, "")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(copy, elsewhere)
    done = run("audit", "verify", "--offline", "--data", elsewhere, "--key", key)
    assert (done.returncode, "of another past" in done.stderr) == (6, True)


def test_a_file_in_the_place_of_the_directory(data: Path) -> None:
    """One line says what stands there and what to do."""
    shutil.rmtree(data / "audit")
    (data / "audit").write_text("")
    done = run("audit", "verify", "--offline", "--data", data)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "audit/ is no directory: move away what stands there" in done.stderr


def test_a_narrow_terminal_loses_nothing(data: Path) -> None:
    """Whatever the table is, every cell stands on a terminal of 80 columns in full."""
    tail = ("audit", "tail", "--offline", "--data", data, "--service", "evil")
    said = on_terminal(*tail)
    for cell in ("evil", "denied", "no-purge", DENIED.by, DENIED.method):
        assert cell in said


@pytest.mark.parametrize("columns", [30, 80])
def test_in_several_lines_each_cell_has_its_name(data: Path, columns: int) -> None:
    """What a cell is can be read beside it, and no line is wider than the terminal."""
    log(data, replace(DENIED, at_ms=NOW + 1, call_id="ab" * 8))
    tail = ("audit", "tail", "--offline", "--data", data, "-n", "1", "--kind", "denial")
    said = on_terminal(*tail, columns=columns)
    assert max(map(len, said.splitlines())) <= columns
    told = "".join(said.split())
    shown = {
        "event": "calldenied",
        "service": "evil",
        "id": "ab" * 8,
        "by": DENIED.by,
        "method": DENIED.method,
    }
    for name, cell in shown.items():
        assert f"{name}:{cell}" in told


def test_alike_entries_are_told_apart(data: Path) -> None:
    """The id is a call's, else a token's, else the start of an instance's; the terminal keeps it whole."""
    joined = Entry(NOW, Kind.JOIN, "joined", service="orders", instance="12345678" + "0" * 24)
    log(
        data,
        replace(DENIED, instance=joined.instance, call_id="ab" * 8),
        replace(joined, token_id="cd" * 8),
        replace(joined, kind=Kind.REVOCATION, event="revoked"),
    )
    tail = ("audit", "tail", "--offline", "--data", data, "--service", "orders")
    for said in (run(*tail).stdout, on_terminal(*tail)):
        assert {"ab" * 8, "cd" * 8, "12345678"} <= set(said.split())


def test_nothing_matches(data: Path) -> None:
    """A query that finds nothing says so beside its output, and is no failure."""
    nothing = ("audit", "query", "--offline", "--data", data, "--service", "nobody")
    done = run(*nothing)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing matches\n")
    done = run(*nothing, "-o", "json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def log(data: Path, *entries: Entry) -> None:
    with DataDirectory(data) as opened:
        opened.store.logs.log("denials", entries)


class Retiring:
    """An auth whose oldest segment goes while it is read, so many times."""

    def __init__(self, times: int) -> None:
        self.left, self.first = times, 0
        self.audit = self

    async def Read(  # noqa: N802
        self,
        request: audit_pb2.ReadRequest,
        timeout: float,  # noqa: ASYNC109  as stubs have it
    ) -> AsyncIterator[audit_pb2.ReadResponse]:
        """Give a head, and what is left of two segments."""
        assert timeout
        first = self.first
        yield audit_pb2.ReadResponse(anchor=audit_pb2.Anchor(first_segment=first, segment=first + 1))
        if request.segment > first + 1:
            return
        if self.left:
            self.left, self.first = self.left - 1, first + 1
        else:
            yield audit_pb2.ReadResponse(segment=first, data=b"oldest")
        yield audit_pb2.ReadResponse(segment=first + 1, data=b"newest")


async def test_a_segment_that_goes_while_it_is_read() -> None:
    """A log whose oldest part made room meanwhile is read again, not accused; that has an end."""
    read = await audit_source.ask(cast(Operator, Retiring(2)), "denials", Place())
    assert (read.head.first_segment, read.segments) == (2, {2: b"oldest", 3: b"newest"})
    with pytest.raises(CliError, match="grows faster than it can be read"):
        await audit_source.ask(cast(Operator, Retiring(audit_source.TRIES)), "denials", Place())
