"""``mesh policy replay`` and ``suggest`` on files: what changes, what is suggested, and bad lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mesh.cli import cli
from mesh.cli.policy_replay import LINES
from mesh.core.observed import MAX_LINE

POLICY = """\
services:
  acme: {}
  billing: {}
  orders:
    allow:
    - {name: tenants, principals: [acme], paths: ["*/Get"], headers: [{key: x-tenant, values: [acme]}]}
    - {name: day, principals: [billing], paths: ["*"], when: time.getHours() < 18}
    - {name: new, principals: [acme], paths: ["*/New"]}
"""
GET, NEW = "/shop.v1.Orders/Get", "/shop.v1.Orders/New"
NOON, NIGHT = "2027-01-04T12:00:00Z", "2027-01-04T22:00:00Z"


def call(method: str = GET, source: str = "acme", time: Any = NOON, **more: Any) -> dict[str, Any]:
    return {"source": source, "destination": "orders", "method": method, "time": time, **more}


TENANT: dict[str, Any] = {"metadata": {"x-tenant": "acme"}}
RECORDED: list[dict[str, Any]] = [
    call(verdict="allow", rule="tenants", count=12, **TENANT),
    call(verdict="allow", rule="tenants", time=NIGHT, **TENANT),
    call(verdict="allow", rule="any", metadata={"x-tenant": []}),
    call(verdict="allow", rule="any", count=2),
    call(NEW, verdict="deny"),
    call(source="billing", verdict="audit", by="trial", count=3),
    call(source="billing", time=NIGHT),
    {"destination": "orders", "unrecorded": 4, "time": NOON},
]


def invoke(
    tmp_path: Path, command: str, *arguments: str, recorded: list[dict[str, Any]] | None = None
) -> Result:
    """Run a command on recorded calls and a policy."""
    lines = [json.dumps(one) for one in (RECORDED if recorded is None else recorded)]
    (tmp_path / "recorded.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    return CliRunner().invoke(cli, ["policy", command, str(tmp_path / "recorded.jsonl"), *arguments])


def replay(tmp_path: Path, *more: str, recorded: list[dict[str, Any]] | None = None) -> Result:
    return invoke(tmp_path, "replay", str(tmp_path / "policy.yaml"), *more, recorded=recorded)


def test_replay(tmp_path: Path) -> None:
    """A line for each difference, what is worst first, then the totals; status 1."""
    done = replay(tmp_path)
    unrecorded = "these calls were counted, and not recorded: too many were different"
    hidden = "rule 'tenants' looks at metadata x-tenant, which was not recorded"
    totals = (
        "newly denied: 1, cannot be told: 6, newly allowed: 1, audit changes: 3, without a verdict before: 1"
    )
    assert done.stdout.splitlines() == [
        f"- acme -> orders {GET} (no x-tenant): allow (any) => deny: no rule allows it: 1 call, {NOON}",
        f"? calls to orders: 4 calls, {NOON}: {unrecorded}",
        f"? acme -> orders {GET}: allow (any) => unknown: {hidden}: 2 calls, {NOON}",
        f"+ acme -> orders {NEW}: deny => allow: rule 'new' allows it: 1 call, {NOON}",
        f"~ billing -> orders {GET}: audit (trial) => allow: rule 'day' allows it: 3 calls, {NOON}",
        f"* billing -> orders {GET}: deny: no rule allows it: 1 call, {NIGHT}",
        f"25 calls, {totals}, unchanged: 13",
    ]
    assert done.exit_code == 1
    assert done.stderr.endswith(
        "of 25 calls, 1 would be newly denied and 6 cannot be told (docs/cli.md#mesh-policy)\n"
    )


def test_replay_all(tmp_path: Path) -> None:
    """With --all, what does not change is shown too, alike calls together."""
    same = f"= acme -> orders {GET} (x-tenant=acme): allow (tenants) => allow: rule 'tenants' allows it"
    assert f"{same}: 13 calls, {NOON} to {NIGHT}\n" in replay(tmp_path, "--all").stdout
    assert same not in replay(tmp_path).stdout


def test_replay_json(tmp_path: Path) -> None:
    """Programs get counts of calls and of different ones, and every row with what was seen."""
    told = json.loads(replay(tmp_path, "-o", "json").stdout)
    assert told["totals"]["calls"] == 25
    assert told["totals"]["unknown"] == {"calls": 6, "distinct": 2}
    assert [row["change"] for row in told["rows"]] == [
        "denied",
        "unknown",
        "unknown",
        "allowed",
        "audit",
        "judged",
    ]
    assert told["rows"][3] == {
        "change": "allowed",
        "seen": {
            "source": "acme",
            "destination": "orders",
            "method": NEW,
            "first": 1799064000000,
            "last": 1799064000000,
            "count": 1,
            "verdict": "deny",
        },
        "verdict": "allow",
        "rule": "new",
        "by": None,
        "why": "rule 'new' allows it",
    }


@pytest.mark.parametrize(
    ("recorded", "status"),
    [
        ([], 1),
        ([call(verdict="allow", **TENANT)], 0),
        ([call(NEW, verdict="deny")], 0),
        ([call("/p.S/M")], 0),
        ([call("/p.S/M", verdict="allow")], 1),
        ([call("/p.S/M", verdict="audit")], 1),
        ([call()], 1),
        ([call("/p.S/M", verdict="deny")], 0),
    ],
)
def test_status(tmp_path: Path, recorded: list[dict[str, Any]], status: int) -> None:
    """Status 1 for what would be newly denied or cannot be told, and where nothing was judged."""
    assert replay(tmp_path, recorded=recorded).exit_code == status


def test_choosing(tmp_path: Path) -> None:
    """Calls of a span of time, and calls to a service."""
    assert replay(tmp_path, "--since", "2027-01-04T20:00:00Z").stdout.splitlines()[-1].startswith("2 calls")
    assert replay(tmp_path, "--until", NIGHT).stdout.splitlines()[-1].startswith("23 calls")
    assert replay(tmp_path, "--service", "orders").stdout.splitlines()[-1].startswith("25 calls")
    none = replay(tmp_path, "--service", "billing")
    assert (none.stdout, none.exit_code) == ("0 calls\n", 1)
    assert "recorded.jsonl: no calls to judge: see --since, --until, --service" in none.stderr
    assert replay(tmp_path, "--service", "No").exit_code == 2


def test_long_replays(tmp_path: Path) -> None:
    """What is too long to read is cut short."""
    many = [call(f"/p.S/M{number}", verdict="allow") for number in range(LINES + 5)]
    lines = replay(tmp_path, recorded=many).stdout.splitlines()
    assert lines[LINES:] == ["  and 5 more: see -o json", f"{LINES + 5} calls, newly denied: {LINES + 5}"]


BAD = [
    (b'{"source": "acme"}', ":1: call.destination: is missing: add it"),
    (json.dumps(call()).encode() + b"\n\n" + json.dumps(call("Get")).encode(), ":3: call.method: bad method"),
    (b"\xff\n", ":1: call: not UTF-8"),
    (b"\n[" * 3, ":2: call: not JSON"),
    (b"[" * 60_000, ":1: call: nested too deeply"),
    (b"x" * (MAX_LINE + 1), ":1: call: longer than 65536 bytes: write one call on each line"),
    (json.dumps(call(count=-1)).encode(), ":1: call.count: has to lie between"),
    (json.dumps(call(colour="red")).encode(), ":1: call.colour: unknown field 'colour'"),
]


@pytest.mark.parametrize(("content", "wrong"), BAD)
@pytest.mark.parametrize("command", ["replay", "suggest"])
def test_bad_lines(tmp_path: Path, content: bytes, wrong: str, command: str) -> None:
    """A line that is wrong is told with its number, and status 3."""
    path, policy = tmp_path / "recorded.jsonl", tmp_path / "policy.yaml"
    path.write_bytes(content)
    policy.write_text(POLICY)
    arguments = ["policy", command, str(path), *([str(policy)] if command == "replay" else [])]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert str(done.exception).startswith(f"{path}{wrong}")
    assert getattr(done.exception, "exit_code", None) == 3


def test_standard_input(tmp_path: Path) -> None:
    """A line may come by a pipe; a file that is not there is told."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    arguments = ["policy", "replay", "-", str(tmp_path / "policy.yaml")]
    done = CliRunner().invoke(cli, arguments, input=json.dumps(call(NEW, verdict="deny")))
    assert done.stdout.splitlines()[-1] == "1 call, newly allowed: 1"
    done = CliRunner().invoke(cli, ["policy", "suggest", str(tmp_path / "none")], standalone_mode=False)
    assert str(done.exception) == f"cannot read {tmp_path / 'none'}: No such file or directory"


def suggest(tmp_path: Path, *more: str, recorded: list[dict[str, Any]] | None = None) -> str:
    done = invoke(tmp_path, "suggest", *more, recorded=recorded)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_suggest(tmp_path: Path) -> None:
    """A policy to be read: how often each was seen, and what is to be put back."""
    text = suggest(tmp_path, "--base", str(tmp_path / "policy.yaml"))
    assert text.splitlines()[3:] == [
        "services:",
        "  acme: {}",
        "  billing: {}",
        f"  # to orders, 4 calls, {NOON}, were not recorded: too many were different",
        "  orders:",
        "    allow:",
        "      # calls permitted only because of mode: audit: 3",
        "      # calls that came by rule 'day', which asks for more than caller and method: 3",
        "      # calls that came by rule 'tenants', which asks for more than caller and method: 15",
        "      # calls that the policy this was held against denies: 2",
        "      # the policy looked at metadata x-tenant: put back what it asked for",
        "      - principals:",
        f"          - acme  # 16 calls, {NOON} to {NIGHT}",
        f"          - billing  # 4 calls, {NOON} to {NIGHT}",
        "        paths:",
        f"          - {GET}  # 20 calls, {NOON} to {NIGHT}",
        "# Allow rules of the policy that this was held against, and that none of these calls came by:",
        "#   orders: new",
    ]
    assert text.startswith(
        f"# Suggested by mesh policy suggest for 20 calls, {NOON} to {NIGHT}: these callers and"
    )


def test_suggestions_are_good(tmp_path: Path) -> None:
    """What is suggested passes check, permits what was recorded, and is the same as JSON."""
    odd = [call(source=name) for name in ("null", "true", "y", "mesh.operator", "no", "e1")]
    recorded = [*RECORDED[:-1], *odd]
    path = tmp_path / "suggested.yaml"
    assert suggest(tmp_path, "--include-denied", "--file", str(path), recorded=recorded) == ""
    assert CliRunner().invoke(cli, ["policy", "check", str(path)]).exit_code == 0
    done = invoke(tmp_path, "replay", str(path), recorded=recorded)
    assert done.exit_code == 0
    assert "newly allowed: 1" in done.stdout
    as_json = json.loads(suggest(tmp_path, "--include-denied", "-o", "json", recorded=recorded))
    assert yaml.load(path.read_text(), yaml.BaseLoader) == as_json
    assert suggest(tmp_path, "--include-denied", "-o", "json", "--file", str(path), recorded=recorded) == ""
    assert json.loads(path.read_text()) == as_json


def test_nothing_to_suggest(tmp_path: Path) -> None:
    """Of nothing comes a policy of nothing, which is a good one."""
    text = suggest(tmp_path, recorded=[])
    assert yaml.safe_load(text) == {"services": {}}
    assert "mesh policy suggest for no calls: these callers and methods, and no" in text
