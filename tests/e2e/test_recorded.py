"""Recorded decisions of a running mesh: shown, judged again under another policy, and made a policy."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
import yaml

import mesh as sealmesh
from mesh.v1 import decisions_pb2
from tests.cli.command import run
from tests.e2e.echo import SERVICE, Echo, ask, fails, works
from tests.e2e.process import until
from tests.e2e.world import TIMEOUT, Mesh

UNARY, NAME = f"/{SERVICE}/Unary", f"/{SERVICE}/Name"
CALLERS: Final = ("acme", "beta", "stray")
BEFORE: Final[dict[str, Any]] = {
    "services": {
        **{name: {} for name in CALLERS},
        "shop": {
            "allow": [
                {
                    "name": "tenants",
                    "principals": ["acme"],
                    "paths": [UNARY],
                    "headers": [{"key": "x-tenant", "values": ["*"]}],
                },
                {"name": "beta", "principals": ["beta"], "paths": ["*"]},
                {"name": "never", "principals": ["stray"], "paths": ["*/Never"]},
            ],
            "deny": [{"name": "trial", "principals": ["beta"], "paths": [NAME], "mode": "audit"}],
        },
    }
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """Give a mesh whose policy the tests of this file may change as they like."""
    own = Mesh()
    try:
        await own.start()
        yield own
    finally:
        own.close()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes tell more often than they do."""
    monkeypatch.setattr("mesh.decisions.EVERY", 0.1)


async def command(mesh: Mesh, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``mesh policy`` as the operator."""
    return await asyncio.to_thread(run, "policy", *arguments, "--data", str(mesh.data))


async def observed(mesh: Mesh, *arguments: str) -> list[dict[str, Any]]:
    """Give what was observed."""
    done = await command(mesh, "observed", "-o", "json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@asynccontextmanager
async def shop(mesh: Mesh) -> AsyncIterator[dict[str, sealmesh.Node]]:
    """Run a service, and give its callers."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(mesh.node("shop"))
        node.server().add_generic_rpc_handlers((Echo(),))
        await node.server().start()
        yield {name: await stack.enter_async_context(mesh.node(name)) for name in CALLERS}


def call(node: sealmesh.Node, method: str, **metadata: str) -> Callable[[], Any]:
    """Give what makes one call."""
    made: Any = node.channel("shop").unary_unary(method)
    entries = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    return lambda: made(b"hello", metadata=entries, timeout=TIMEOUT)


async def traffic(callers: dict[str, sealmesh.Node]) -> None:
    """Make seven calls, of which one is denied."""
    acme, beta = callers["acme"], callers["beta"]
    for tenant in ("one", "one", "two"):
        await works(call(acme, UNARY, x_tenant=tenant, authorization="Bearer hush", x_other="x"))
    await fails(call(acme, UNARY))
    await works(ask(beta.channel("shop")))
    await works(ask(beta.channel("shop")))
    await works(call(beta, NAME))


def told(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        one["source"],
        one["method"],
        one.get("metadata"),
        one["verdict"],
        one.get("rule"),
        one.get("by"),
        one["count"],
    )


async def everything(mesh: Mesh, since: int, count: int) -> list[dict[str, Any]]:
    """Wait until so many calls are recorded, and give them."""
    request = decisions_pb2.ListDecisionsRequest(since_ms=since)

    async def calls() -> int:
        async with mesh.operator() as operator:
            parts = [part async for part in operator.decisions.ListDecisions(request, timeout=TIMEOUT)]
        return sum(one.decision.count for part in parts for one in part.decisions)

    async with asyncio.timeout(TIMEOUT):
        while await calls() < count:
            pass
    return await observed(mesh)


async def test_from_traffic_to_policy(mesh: Mesh, tmp_path: Path) -> None:
    """What was called is shown, judged again exactly, and suggested as a policy that permits just that."""
    await mesh.apply(BEFORE)
    async with shop(mesh) as callers:
        await traffic(callers)
        found = await everything(mesh, 0, 7)
    tenant = {"x-tenant": ["one"]}
    assert sorted(map(told, found), key=repr) == sorted(
        [
            ("acme", UNARY, tenant, "allow", "tenants", None, 2),
            ("acme", UNARY, {"x-tenant": ["two"]}, "allow", "tenants", None, 1),
            ("acme", UNARY, {"x-tenant": []}, "deny", None, None, 1),
            ("beta", UNARY, {"x-tenant": []}, "allow", "beta", None, 2),
            ("beta", NAME, {"x-tenant": []}, "audit", "beta", "trial", 1),
        ],
        key=repr,
    )
    database = mesh.data / "decisions.db"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    assert not any(b"hush" in file.read_bytes() for file in mesh.data.glob("decisions.db*"))
    await replays(mesh, tmp_path)
    await suggests(mesh, tmp_path)


async def replays(mesh: Mesh, tmp_path: Path) -> None:
    """Judge it again: what is exactly different, and what hangs on what was not recorded."""
    after = json.loads(json.dumps(BEFORE))
    section = after["services"]["shop"]
    section["allow"][0]["headers"][0]["values"] = ["one"]
    section["deny"][0]["mode"] = "enforce"
    section["allow"].append(
        {"name": "late", "principals": ["acme"], "paths": ["*"], "when": '!("x-tenant" in metadata)'}
    )
    policy, lines = tmp_path / "after.yaml", tmp_path / "recorded.jsonl"
    policy.write_text(yaml.safe_dump(after))
    assert (await command(mesh, "observed", "--file", str(lines))).returncode == 0
    for source in ("live", str(lines)):
        done = await command(mesh, "replay", source, str(policy), "-o", "json")
        assert (
            done.stderr == f"error: {policy}: of 7 calls, 2 would be newly denied (docs/cli.md#mesh-policy)\n"
        )
        assert done.returncode == 1
        replayed = json.loads(done.stdout)
        totals = {change: one["calls"] for change, one in replayed["totals"].items() if change != "calls"}
        assert totals == {"denied": 2, "unknown": 0, "allowed": 1, "audit": 0, "judged": 0, "unchanged": 4}
        rows = [
            (row["change"], *told(row["seen"])[:4], row["verdict"], row["rule"]) for row in replayed["rows"]
        ]
        assert rows == [
            ("denied", "acme", UNARY, {"x-tenant": ["two"]}, "allow", "deny", None),
            ("denied", "beta", NAME, {"x-tenant": []}, "audit", "deny", "trial"),
            ("allowed", "acme", UNARY, {"x-tenant": []}, "deny", "allow", "late"),
        ]
    done = await command(mesh, "apply", str(policy), "--dry-run")
    assert (
        "replay of the last 24 h: 7 calls, newly denied: 2, newly allowed: 1, unchanged: 4\n" in done.stdout
    )
    section["allow"][1]["headers"] = [{"key": "x-other", "values": ["x"]}]
    policy.write_text(yaml.safe_dump(after))
    done = await command(mesh, "replay", "live", str(policy), "--since", "1h")
    assert (
        "? beta -> shop /test.v1.Echo/Unary (no x-tenant): allow (beta) => unknown: rule 'beta' looks at "
        in done.stdout
    )
    assert "of 7 calls, 2 would be newly denied and 2 cannot be told" in done.stderr
    same = await command(mesh, "replay", "live", "1")
    assert (same.returncode, same.stdout) == (0, "7 calls, unchanged: 7\n")


async def suggests(mesh: Mesh, tmp_path: Path) -> None:
    """Suggest a policy, apply it, and let exactly the same traffic pass."""
    suggested = tmp_path / "suggested.yaml"
    done = await command(mesh, "suggest", "--file", str(suggested))
    assert (done.returncode, done.stderr) == (0, "")
    text = suggested.read_text()
    assert "# calls that came by rule 'tenants', which asks for more than caller and method: 3" in text
    assert "# calls permitted only because of mode: audit: 1" in text
    assert text.endswith("that none of these calls came by:\n#   shop: never\n")
    assert yaml.safe_load(text) == {
        "services": {
            "acme": {},
            "beta": {},
            "shop": {
                "allow": [
                    {"principals": ["acme"], "paths": [UNARY]},
                    {"principals": ["beta"], "paths": [NAME, UNARY]},
                ]
            },
        }
    }
    assert run("policy", "check", suggested).returncode == 0
    assert (await command(mesh, "apply", str(suggested), "--yes")).returncode == 0
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(mesh.node("shop"))
        node.server().add_generic_rpc_handlers((Echo(),))
        await node.server().start()
        acme = await stack.enter_async_context(mesh.node("acme"))
        beta = await stack.enter_async_context(mesh.node("beta"))
        for seen in (call(acme, UNARY), call(beta, UNARY), call(beta, NAME)):
            await works(seen)
        for unseen in (call(acme, NAME), call(beta, f"/{SERVICE}/Peer")):
            error = await fails(unseen)
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_kept_over_a_restart(mesh: Mesh, tmp_path: Path) -> None:
    """What is recorded outlives gatekeeper; what nodes count while it is away comes after it is back."""
    await mesh.apply(BEFORE)
    began = max([one["last"] for one in await observed(mesh)], default=0) + 1
    async with shop(mesh) as callers:
        await works(call(callers["beta"], UNARY))
        await everything(mesh, began, 1)
        mesh.gatekeeper.kill()
        await works(call(callers["beta"], UNARY))
        another = {"services": BEFORE["services"] | {"late": {}}}
        (tmp_path / "policy.json").write_text(json.dumps(another))
        done = await command(mesh, "apply", str(tmp_path / "policy.json"), "--dry-run")
        assert done.returncode == 0
        assert "replay of the last 24 h: not possible: " in done.stdout
        await mesh.start_gatekeeper()
        await everything(mesh, began, 2)


async def test_a_damaged_file(mesh: Mesh) -> None:
    """A file that is damaged is moved aside, and gatekeeper serves on."""
    await mesh.apply(BEFORE)
    await mesh.gatekeeper.stop()
    path = mesh.data / "decisions.db"
    path.write_bytes(b"no database at all" * 1000)
    await mesh.start_gatekeeper()
    assert await observed(mesh) == []
    await mesh.gatekeeper.says(r"decisions.db is damaged: moved to decisions.db.damaged")
    await until((mesh.data / "decisions.db.damaged").exists, "it to be moved", TIMEOUT)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM decision").fetchone() == (0,)
    async with mesh.operator() as operator:
        parts = [one async for one in operator.decisions.ListDecisions(decisions_pb2.ListDecisionsRequest())]
    assert parts == []
