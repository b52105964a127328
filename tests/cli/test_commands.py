"""The command line: what is understood, what is refused in one line, and with which status."""

from __future__ import annotations

import json
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner, Result

from mesh.cli import cli
from mesh.cli.errors import CliError, Exit, told
from mesh.cli.kinds import call_id, domain, duration, moment, service
from mesh.cli.output import counted, instant
from mesh.cli.ports import Ports
from mesh.core.errors import Cause, PeerError
from mesh.enrol import JoinError


def invoke(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)), env={"MESH_DATA": None, **environment})


def refused(result: Result, status: Exit) -> str:
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "no such command 'bogus': see mesh --help"),
        (["init"], "missing argument 'DIR': see mesh init --help"),
        (["init", "x"], "missing option '--trust-domain'"),
        (["init", "x", "--trust-domain", "Shop"], "bad trust domain 'Shop'"),
        (["token", "create"], "missing argument 'SERVICE'"),
        (["revoke", "0a" * 16], "is an instance: name its service, too, as SERVICE/0a0a0a0a"),
        (["token", "create", "Orders"], "bad service name 'Orders'"),
        (["token", "create", "orders", "--ttl", "soon"], "'soon' is not from 1s to 24h"),
        (["token", "list", "-o", "xml"], "'xml' is not one of"),
        (["up", "--join-port", "70000"], "70000 is not in the range"),
        (["run", "--service", "orders"], "missing argument '-- CMD...'"),
        (["run", "--service", "orders", "--app-port", "0", "--", "true"], "0 is not in the range"),
        (["run", "--service", "orders", "--bogus", "--", "true"], "no such option"),
        (["sidecar"], "missing option '--service'"),
        (["generate"], "missing argument"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], said: str) -> None:
    """With the place where to read on, and status 2."""
    assert said in refused(invoke(*arguments), Exit.USAGE)


def test_help_is_no_error() -> None:
    """Every command tells what it does."""
    for arguments in (["--help"], ["-h"], ["token", "create", "--help"], ["up", "-h"], ["--version"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert result.stderr == ""


def test_commands_need_a_trust_domain(tmp_path: Path) -> None:
    """Without one, or with a damaged one, the status is 5 and nothing is made."""
    nothing = tmp_path / "nothing"
    for arguments in (["token", "list"], ["policy", "get"], ["status"], ["token", "revoke", "0" * 16]):
        assert "mesh init" in refused(invoke(*arguments, MESH_DATA=str(nothing)), Exit.DATA)
    assert not nothing.exists()


def test_an_operator_in_kubernetes_is_told_which_file_is_missing(tmp_path: Path) -> None:
    """Of the three, and where each comes from."""
    held = {
        "token": "some",
        "join-key": "some",
        "addresses.json": '{"join": "", "auth": "", "gatekeeper": ""}',
    }
    for missing, hint in (
        ("token", "make one with kubectl create token"),
        ("join-key", "take it from the ConfigMap that auth publishes"),
        ("addresses.json", "write there where the forwarded ports are"),
    ):
        for name, text in held.items():
            (tmp_path / name).write_text(text)
        (tmp_path / missing).unlink()
        error = refused(invoke("status", MESH_DATA=str(tmp_path)), Exit.DATA)
        assert str(tmp_path / missing) in error
        assert hint in error


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 1}', '{"token": "mesh1.x.y"}', "{}"])
def test_a_damaged_credential_is_said_without_repeating_it(tmp_path: Path, content: str) -> None:
    """The file is named; what is in it is not."""
    (tmp_path / "operator.json").write_text(content)
    said = refused(invoke("status", "--data", tmp_path), Exit.DATA)
    assert "operator.json is damaged" in said
    assert "mesh1.x" not in said


def credential(path: Path) -> None:
    (path / "operator.json").write_text(json.dumps({"token": f"mesh1.{'0' * 16}.{'A' * 43}"}))


def test_a_mesh_that_is_not_running_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it never ran or did not end well, the line says how to start it."""
    monkeypatch.setattr("mesh.cli.operator.PATIENCE", 0.3)
    credential(tmp_path)
    assert "mesh up --data" in refused(invoke("status", "--data", tmp_path), Exit.UNREACHABLE)
    (tmp_path / "addresses.json").write_text('{"join": "127.0.0.1:9", "auth": "", "gatekeeper": ""}')
    assert "mesh up --data" in refused(invoke("status", "--data", tmp_path), Exit.UNREACHABLE)


def test_the_directory_may_come_from_the_environment(tmp_path: Path) -> None:
    """``MESH_DATA`` is the default; ``--data`` wins."""
    credential(tmp_path)
    assert invoke("status", MESH_DATA=str(tmp_path)).exit_code == Exit.UNREACHABLE
    assert invoke("status", "--data", tmp_path / "x", MESH_DATA=str(tmp_path)).exit_code == Exit.DATA


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_init_makes_a_trust_domain_once(tmp_path: Path) -> None:
    """It never touches what is there."""
    made = invoke("init", tmp_path / "mesh", "--trust-domain", "shop.example")
    assert made.exit_code == 0, made.output
    assert "mesh up --data" in made.stdout
    before = contents(tmp_path / "mesh")
    assert {"auth.db", "kek", "operator.json", "audit.key"} <= set(before)
    assert "audit.key: keep it on another machine" in made.stdout
    for name in ("kek", "operator.json", "audit.key"):
        assert (tmp_path / "mesh" / name).stat().st_mode & 0o777 == 0o600
    again = invoke("init", tmp_path / "mesh", "--trust-domain", "other.example")
    assert "not empty" in refused(again, Exit.DATA)
    assert contents(tmp_path / "mesh") == before


def test_init_unless_made_keeps_what_is_made(tmp_path: Path) -> None:
    """The same again does nothing; another trust domain is refused, for a mesh cannot change its own."""
    arguments = ("init", tmp_path / "mesh", "--unless-made", "--trust-domain")
    assert "made in" in invoke(*arguments, "shop.example").output
    assert "nothing to make" in invoke(*arguments, "shop.example").output
    error = refused(invoke(*arguments, "other.example"), Exit.DATA)
    assert "is of trust domain shop.example, not other.example" in error
    assert "set the name back to shop.example" in error


def test_init_says_where_it_may_not_write(tmp_path: Path) -> None:
    """A file in the way is no directory."""
    (tmp_path / "file").touch()
    result = invoke("init", tmp_path / "file" / "mesh", "--trust-domain", "shop.example")
    assert "cannot make" in refused(result, Exit.DATA)


def test_generate_makes_stubs(tmp_path: Path) -> None:
    """Each file written is named; an error of protoc is one line."""
    proto = tmp_path / "greet.proto"
    proto.write_text('syntax = "proto3";\npackage greet.v1;\nmessage Hello {}\n')
    made = invoke("generate", proto, "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    assert str(tmp_path / "out" / "greet_pb2.py") in made.stdout.splitlines()
    proto.write_text("nonsense")
    assert "greet.proto" in refused(invoke("generate", proto, "--out", tmp_path / "out"), Exit.FAILED)
    missing = invoke("generate", tmp_path / "none.proto", "--out", tmp_path / "out")
    assert "no such proto file" in refused(missing, Exit.FAILED)


def test_run_needs_a_token_from_somewhere(tmp_path: Path) -> None:
    """Without one, and without the credential to make one, it says how to get it."""
    arguments = ("run", "--service", "orders", "--auth", "127.0.0.1:9", "--data", tmp_path)
    assert "mesh token create orders" in refused(invoke(*arguments, "--", "true"), Exit.USAGE)
    with_file = invoke(*arguments, "--token-file", tmp_path / "none", "--", "true")
    assert "cannot read the token" in refused(with_file, Exit.FAILED)
    both = invoke(*arguments, "--app", "unix:/x", "--app-port", "1", "--", "true")
    assert "give one" in refused(both, Exit.USAGE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1), ("90s", 90), ("5m", 300), ("1h", 3600), ("24h", 86400), ("1d", 86400), ("86400", 86400)],
)
def test_durations(text: str, seconds: int) -> None:
    """Seconds, or a number with its unit."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1.5m", "25h", "2d", "1 h", "h", "1w", "86401", "१"])
def test_no_durations(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(click.BadParameter):
        duration(text)


def test_one_is_no_plural() -> None:
    """What is counted is one instance, or several instances."""
    assert [counted(number, "instances") for number in (0, 1, 2)] == [
        "0 instances",
        "1 instance",
        "2 instances",
    ]


@pytest.mark.parametrize("text", ["ab" * 8, f"[id {'ab' * 8}]", f"id {'ab' * 8}"])
def test_call_ids(text: str) -> None:
    """An id is its digits, or what stands around them in an error."""
    assert call_id(text) == "ab" * 8


@pytest.mark.parametrize("text", ["", "ab", "AB" * 8, "ab" * 16, f"[id {'ab' * 8}] more"])
def test_no_call_ids(text: str) -> None:
    """Anything else is refused, and what one looks like is said."""
    with pytest.raises(click.BadParameter, match="is not a call id, which is 16 hex digits"):
        call_id(text)


def test_names_are_parsed_once() -> None:
    """The command works with names, not with texts."""
    assert service("billing.ledger").text == "billing.ledger"
    assert domain("shop.example").text == "shop.example"


@pytest.mark.parametrize("text", ["0001-01-01", "0001-01-01T00:00:00+23:59", "999999d", "1970-01-01"])
def test_times_before_all_others(text: str) -> None:
    """They can be sent, and are not taken for no bound."""
    assert moment(text) == 1


def test_times_after_all_others() -> None:
    """They can be shown."""
    assert instant(moment("9999-12-31T23:59:59-23:59")) == "9999-12-31T23:59:59Z"


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why: what to do")


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (CliError("a: b", Exit.DATA), "a: b", Exit.DATA),
        (rpc_error(grpc.StatusCode.UNAVAILABLE), "why: what to do", Exit.UNREACHABLE),
        (rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED), "why: what to do", Exit.UNREACHABLE),
        (rpc_error(grpc.StatusCode.PERMISSION_DENIED), "why: what to do", Exit.REFUSED),
        (rpc_error(grpc.StatusCode.INVALID_ARGUMENT), "why: what to do", Exit.REFUSED),
        (rpc_error(grpc.StatusCode.FAILED_PRECONDITION), "why: what to do", Exit.REFUSED),
        (rpc_error(grpc.StatusCode.INTERNAL), "why: what to do", Exit.FAILED),
        (JoinError("auth refused"), "auth refused", Exit.REFUSED),
        (PermissionError(13, "Permission denied", "/x"), "/x: permission denied", Exit.FAILED),
        (PeerError(Cause.BAD_MAC), "mac does not verify", Exit.FAILED),
        (ValueError("bad: do"), "bad: do", Exit.FAILED),
        (KeyError("x"), "unexpected KeyError: 'x': this is a fault of mesh", Exit.FAILED),
    ],
)
def test_errors_become_a_line_and_a_status(error: Exception, message: str, status: Exit) -> None:
    """Each kind has its own status, so that a script can tell them apart."""
    said = told(error)
    assert said.message.startswith(message)
    assert said.exit_code == status


def test_free_ports_are_three_and_below_those_of_outgoing_connections() -> None:
    """A port that was chosen stays free for a restart; a fixed one is left as it is."""
    chosen = Ports(0, 0, 0).chosen("127.0.0.1")
    found = {chosen.join, chosen.auth, chosen.gatekeeper}
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(found) == 3
    assert all(1024 < port < first for port in found)
    mixed = Ports(5, 0, 7).chosen("127.0.0.1")
    assert (mixed.join, mixed.gatekeeper) == (5, 7)
    assert mixed.auth
    assert (Ports.from_base(7700), Ports.from_base(0)) == (Ports(), Ports(0, 0, 0))
