"""``mesh check`` and ``mesh describe`` on a running mesh: from a refusal to its rule, from a fault to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import mesh
from mesh.cli.checks import State
from tests.cli.command import Up, run, until, up

POLICY = """\
services:
  frontend: {}
  orders:
    allow: [{name: buys, principals: [frontend], paths: ["/shop.v1.Orders/Place"]}]
    deny: [{name: no-purge, principals: ["*"], paths: ["/shop.v1.Orders/Purge"]}]
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a mesh with a policy."""
    with up(tmp_path_factory.mktemp("running") / "mesh") as started:
        started.json("policy", "apply", "-", stdin=POLICY)
        yield started


class Anything(grpc.GenericRpcHandler):
    """Serves whatever is called."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give back what comes."""

        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


def token(running: Up, service: str) -> str:
    return running.mesh("token", "create", service).stdout.strip()


async def refused(running: Up, *methods: str) -> list[str]:
    """Have frontend call methods of orders that it may not, and give the ids that it is told."""
    auth = json.loads((running.data / "addresses.json").read_text())["join"]
    ids = []
    async with mesh.join("orders", token=token(running, "orders"), auth=auth) as orders:
        orders.server().add_generic_rpc_handlers((Anything(),))
        await orders.server().start()
        async with mesh.join("frontend", token=token(running, "frontend"), auth=auth) as frontend:
            for method in methods:
                call: Any = frontend.channel("orders").unary_unary(method)
                made = call(b"", wait_for_ready=True, timeout=20)
                assert await made.code() is grpc.StatusCode.PERMISSION_DENIED
                found = re.search(r"\[id ([0-9a-f]{16})\]", await made.details())
                assert found
                ids.append(found[1])
    return ids


async def test_from_the_id_to_the_rule(running: Up) -> None:
    """The id in the caller's error leads to caller, node, rule, and to what would permit the call."""
    by_rule, by_none = await refused(running, "/shop.v1.Orders/Purge", "/shop.v1.Orders/Count")
    done = running.mesh("describe", by_rule)
    assert done.returncode == 0, done.stderr
    for pasted in (["[id", f"{by_rule}]"], [f"[id {by_rule}]"]):
        assert running.mesh("describe", *pasted).stdout == done.stdout
    assert re.search(r"frontend/[0-9a-f]{32} -> orders /shop.v1.Orders/Purge", done.stdout)
    assert "why: rule 'no-purge' of orders denied it" in done.stdout
    assert "smallest change:" in done.stdout
    assert "under policy 1, of record then:" in done.stdout
    empty = "services: {}\n"
    applied = running.mesh("policy", "apply", "--yes", "-", stdin=empty)
    assert applied.returncode == 0, applied.stderr
    later = running.mesh("describe", by_rule)
    assert later.stdout == done.stdout.replace("of record then:", "of record then, 2 is now:")
    running.json("policy", "apply", "--yes", "-", stdin=POLICY)
    found = running.json("describe", by_none)
    assert (found["service"], found["method"]) == ("frontend", "/shop.v1.Orders/Count")
    assert "why: no rule of orders allowed it, or orders had no policy in force" in found["say"]
    assert any("nearest: rule 'buys'" in line for line in found["say"])


def test_diagnostics(running: Up, tmp_path: Path) -> None:
    """The bundle has what the commands show, and none of the secrets of the data directory."""
    out = tmp_path / "report.zip"
    done = running.mesh("diagnostics", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(out) as packed:
        told = {name: packed.read(name) for name in packed.namelist()}
    names = ("versions", "status", "check", "policy", "edges", "denials")
    assert set(told) == {f"{name}.json" for name in names}
    assert "orders" in json.loads(told["policy.json"])["policy"]["services"]
    assert json.loads(told["status.json"])["trust_domain"]
    assert not any("missing" in json.loads(content) for content in told.values())
    secret = json.loads((running.data / "operator.json").read_text())["token"].rpartition(".")[2]
    kek = (running.data / "kek").read_bytes().strip()
    for content in told.values():
        assert secret.encode() not in content
        assert kek not in content
    assert running.mesh("diagnostics", "--out", str(out)).returncode == 1


def test_diagnostics_without_a_mesh(running: Up, tmp_path: Path) -> None:
    """Where nothing answers the bundle says so, part by part."""
    (tmp_path / "operator.json").write_bytes((running.data / "operator.json").read_bytes())
    out = tmp_path / "report.zip"
    assert run("diagnostics", "--data", tmp_path, "--out", str(out)).returncode == 0
    with zipfile.ZipFile(out) as packed:
        assert "is not running" in json.loads(packed.read("status.json"))["missing"]
        assert json.loads(packed.read("versions.json"))["packages"]["grpcio"]


async def test_edges(running: Up) -> None:
    """Who calls whom is there, and what was denied last."""
    await refused(running, "/shop.v1.Orders/Purge")

    def told() -> list[dict[str, Any]]:
        return [one for one in running.json("edges", "--denied") if one["destination"] == "orders"]

    until(lambda: bool(told()), "the denial is recorded")
    (edge,) = told()
    assert (edge["source"], edge["permitted"], edge["unknown"]) == ("frontend", 0, 0)
    assert edge["denied"] >= 1
    assert edge["last_denied"]["method"] in ("/shop.v1.Orders/Purge", "/shop.v1.Orders/Count")
    table = running.mesh("edges").stdout
    assert table.split()[:4] == ["SOURCE", "DESTINATION", "PERMITTED", "DENIED"]
    assert "frontend" in table
    assert running.json("edges", "--service", "frontend") == []


async def test_a_service(running: Up) -> None:
    """All that is known of a service: while it runs, and what is left when it is revoked and banned."""
    auth = json.loads((running.data / "addresses.json").read_text())["join"]
    async with mesh.join("orders", token=token(running, "orders"), auth=auth) as orders:
        orders.server().add_generic_rpc_handlers((Anything(),))
        await orders.server().start()
        there = await asyncio.to_thread(registered, running, "orders")
        (told,) = (one for one in there["instances"] if one["address"])
        version = running.json("status")["policy_version"]
        assert (there["policy"], there["banned"]) == ({"version": version, "listed": True}, None)
        assert told["joined"]
        assert 0 <= told["age_seconds"] < 120
        assert there["callers"] == ["frontend"]
        assert [rule["name"] for rule in there["rules"]["allow"]] == ["buys"]
        text = (await asyncio.to_thread(running.mesh, "describe", "orders")).stdout
        assert "allow 'buys': frontend -> /shop.v1.Orders/Place" in text
        assert "deny 'no-purge': * -> /shop.v1.Orders/Purge" in text
        assert told["instance"] in text
    calls = running.json("describe", "frontend")["calls"]
    assert calls == [{"service": "orders", "rules": ["buys"]}]
    assert "orders (buys)" in running.mesh("describe", "frontend").stdout


async def test_what_was_denied_to_a_service(running: Up) -> None:
    """Both the caller and the callee of a denied call have it, and the callee the edge."""
    (call_id,) = await refused(running, "/shop.v1.Orders/Purge")
    for name in ("frontend", "orders"):
        found = running.json("describe", name)
        assert found["denials"][-1]["call_id"] == call_id
        assert len(found["denials"]) <= 5
    until(lambda: bool(running.json("describe", "orders")["last_hour"]), "the denial is recorded")
    (edge,) = running.json("describe", "frontend")["last_hour"]
    assert (edge["source"], edge["destination"]) == ("frontend", "orders")
    text = running.mesh("describe", "orders").stdout
    assert call_id in text
    assert "calls of the last hour" in text


def test_a_service_that_is_banned(running: Up) -> None:
    """A ban is told, with who did it and why; of a name that only was banned, too."""
    running.json("ban", "stranger", "--reason", "leaked")
    found = running.json("describe", "stranger")
    assert (found["policy"]["listed"], found["instances"]) == (False, [])
    assert found["banned"]["reason"] == "leaked"
    assert found["banned"]["by"].startswith("mesh.operator/")
    text = running.mesh("describe", "stranger").stdout
    assert re.search(r"banned +since \S+ by mesh.operator/[0-9a-f]{32}: leaked", text)
    assert "which does not have it: nobody can call it" in text


def test_an_instance_that_is_revoked(running: Up) -> None:
    """Revoked instances stay in it until they are forgotten; the mesh's own services are no policy's."""
    done = running.json("revoke", "mesh.operator", "--force", "--reason", "drill")
    found = running.json("describe", "mesh.operator")
    assert {one["instance"] for one in found["revoked"]} == set(done["instances"])
    assert {one["reason"] for one in found["revoked"]} == {"drill"}
    text = running.mesh("describe", "mesh.operator").stdout
    assert "no policy decides about calls to it: the code does" in text
    assert "callers" not in text


def registered(running: Up, name: str) -> dict[str, Any]:
    """Wait until an instance that takes calls is told of."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(running.json("describe", name))
        return any(one["address"] and one["policy_version"] for one in found["instances"])

    until(there, f"{name} is registered")
    return found


async def test_stat(running: Up) -> None:
    """Denied calls lower the success of their method; the span and the service choose."""
    await refused(running, "/shop.v1.Orders/Lose", "/shop.v1.Orders/Lose")

    def told(*arguments: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = running.json("stat", *arguments)
        return [one for one in rows if one["method"] == "/shop.v1.Orders/Lose"]

    until(lambda: sum(one["denied"] for one in told()) == 2, "the denials are recorded")
    (row,) = told("orders", "--since", "1h")
    assert (row["source"], row["destination"]) == ("frontend", "orders")
    assert (row["permitted"], row["success"], row["unknown"]) == (0, 0.0, 0)
    assert row["per_second"] == pytest.approx(2 / 3600, rel=0.05)
    assert len(told("frontend")) == 1
    assert running.json("stat", "stranger") == []
    assert running.json("stat", "--since", "2h", "--until", "1h") == []
    assert "0.00 %" in running.mesh("stat", "orders").stdout
    turned = running.mesh("stat", "--since", "1h", "--until", "2h")
    assert turned.returncode == 2
    assert "--until is not later than --since" in turned.stderr


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("0" * 16, 1, "no denial 0000000000000000 in the audit log"),
        ("Zz", 2, "'Zz' is neither a service's name nor a call id"),
        ("order", 1, "nothing is known of a service order: did you mean orders?: mesh status"),
    ],
)
def test_no_such_call(running: Up, asked: str, status: int, said: str) -> None:
    """An id or a service that is unknown, or what is neither, is one line, and its own status."""
    done = running.mesh("describe", asked)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mesh_in_order(running: Up) -> None:
    """Nothing is wrong with a mesh that was just started; what is not there yet is doubtful."""
    done = running.mesh("check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert State.WRONG not in done.stdout
    assert "‼ services   no instance of orders takes calls" in done.stdout
    assert "docs/troubleshooting.md#services" in done.stdout
    told = running.json("check")
    assert {one["category"] for one in told} >= {"ports", "store", "clocks", "keys", "policy", "gatekeeper"}
    assert "\x1b" not in done.stdout


def test_a_gatekeeper_that_hangs(running: Up) -> None:
    """A gatekeeper that answers nobody is found, and waited for."""
    pid = running.child("services.gatekeeper")
    os.kill(pid, signal.SIGSTOP)
    try:
        done = running.mesh("check")
        described = running.mesh("describe", "orders")
        shown = running.mesh("status")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert described.returncode == 4
    assert "callers       frontend" in described.stdout
    assert "gatekeeper does not answer" in described.stderr
    assert done.returncode == 1
    assert f"{State.WRONG} gatekeeper gatekeeper takes connections and does not answer" in done.stdout
    assert re.search(r"^nodes +unknown$", shown.stdout, re.MULTILINE)
    assert re.search(
        r"error: 1 of \d+ checks failed: see the hints above \(docs/cli.md#mesh-check\)\n", done.stderr
    )
    assert running.mesh("check", "--wait", "30s").returncode == 0


def test_a_credential_that_is_missing_or_of_another_mesh(running: Up, tmp_path: Path) -> None:
    """An operator who is cut off is told that, and not that auth is away."""
    credential = running.data / "operator.json"
    kept = credential.read_bytes()
    other = tmp_path / "other"
    assert run("init", other, "--trust-domain", "other.example").returncode == 0
    try:
        credential.unlink()
        missing, listed = running.mesh("check"), running.mesh("token", "list")
        credential.write_bytes((other / "operator.json").read_bytes())
        foreign, shown = running.mesh("check"), running.mesh("status")
    finally:
        credential.write_bytes(kept)
        credential.chmod(0o600)
    assert f"{State.WRONG} auth       {credential} is missing" in missing.stdout
    assert (listed.returncode, "mesh init" in listed.stderr) == (5, False)
    assert "does not take the operator's credential" in foreign.stdout
    assert (shown.returncode, "is it of this very mesh" in shown.stderr) == (3, True)


def test_a_secret_that_others_can_read(running: Up) -> None:
    """The mode of the operator's credential is looked at."""
    (running.data / "operator.json").chmod(0o644)
    try:
        done = running.mesh("check")
    finally:
        (running.data / "operator.json").chmod(0o600)
    assert done.returncode == 1
    assert f"chmod 600 {running.data / 'operator.json'}" in done.stdout


def test_no_mesh(tmp_path: Path) -> None:
    """Where nothing is, or nothing runs, both say so as every command does."""
    for command in (("check",), ("describe", "0" * 16)):
        assert run(*command, "--data", tmp_path).returncode == 5
