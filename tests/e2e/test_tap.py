"""``mesh tap`` and ``mesh stat`` with real processes: an embedded node, and an app behind a sidecar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

import mesh as sealmesh
from tests.cli.command import run
from tests.e2e.echo import SERVICE, Echo, ask, served, works
from tests.e2e.process import Process, until
from tests.e2e.world import TIMEOUT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

UNARY: Final = f"/{SERVICE}/Unary"
POLICY: Final[dict[str, Any]] = {
    "services": {
        "caller": {},
        "embedded": {"allow": [{"name": "calls", "principals": ["caller"], "paths": [UNARY]}]},
        "behind": {"allow": [{"name": "calls", "principals": ["caller"], "paths": [UNARY]}]},
    }
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """Give a mesh with a policy."""
    own = Mesh()
    try:
        await own.start()
        await own.apply(POLICY)
        yield own
    finally:
        own.close()


@asynccontextmanager
async def running(mesh: Mesh, mode: str) -> AsyncIterator[tuple[str, sealmesh.Node]]:
    """Run a service in one of the modes; give its name, and a caller."""
    async with mesh.node("caller") as caller:
        if mode == "embedded":
            async with mesh.node("embedded") as node:
                node.server().add_generic_rpc_handlers((Echo(),))
                await node.server().start()
                await works(ask(caller.channel("embedded")))
                yield "embedded", caller
        else:
            async with served(Echo()) as port:
                await mesh.sidecar("behind", "--app-port", str(port))
                await works(ask(caller.channel("behind")))
                yield "behind", caller


def tapping(mesh: Mesh, *arguments: str) -> Process:
    """Start ``mesh tap`` as the operator."""
    return mesh.python("tap", "mesh.cli", "tap", *arguments, "-o", "json", "--data", str(mesh.data))


async def denied(caller: sealmesh.Node, name: str) -> str:
    call = caller.channel(name).unary_unary(f"/{SERVICE}/Purge")(b"", timeout=TIMEOUT)
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    return str(await call.details())


@pytest.mark.parametrize("mode", ["embedded", "behind"])
async def test_calls_are_seen_as_they_end(mesh: Mesh, mode: str) -> None:
    """What passes and what is denied is shown with who, what, why and how long; nothing of its content."""
    async with running(mesh, mode) as (name, caller):
        tap = tapping(mesh, name, "--limit", "2")
        await tap.says("tapping 1 instance")
        await works(ask(caller.channel(name)))
        told = await denied(caller, name)
        assert await tap.ended() == 0
    passed, refused = map(json.loads, tap.out.splitlines())
    assert (passed["source"], passed["destination"], passed["method"]) == ("caller", name, UNARY)
    assert (passed["verdict"], passed["status"], passed["rule"]) == ("allow", "OK", "calls")
    assert passed["source_instance"] == str(caller.instance)
    assert passed["seconds"] > 0
    assert (refused["verdict"], refused["status"]) == ("deny", "PERMISSION_DENIED")
    assert refused["call_id"] in told
    query = ("audit", "query", "--kind", "tap", "-o", "json", "--data", str(mesh.data))
    audited = json.loads((await asyncio.to_thread(run, *query)).stdout)
    assert [one["event"] for one in audited if one["service"] == name] == ["tap begun"]


async def test_a_tap_that_is_gone(mesh: Mesh) -> None:
    """Once the operator is gone, though killed, nothing is on the way of calls any more."""
    async with mesh.node("embedded") as node:
        node.server().add_generic_rpc_handlers((Echo(),))
        await node.server().start()
        tap = tapping(mesh, "embedded")
        await tap.says("tapping 1 instance")
        await until(lambda: node.membership.tap is not None, "the node to be tapped")
        tap.kill()
        await until(lambda: node.membership.tap is None, "the tap to end")


async def test_to_and_nobody(mesh: Mesh) -> None:
    """With --to calls are those from the service, and where there is nobody to tell, that is said."""
    async with running(mesh, "embedded") as (name, caller):
        tap = tapping(mesh, "caller", "--to", name, "--verdict", "allow", "--method", UNARY, "--limit", "1")
        await tap.says("tapping 1 instance")
        await denied(caller, name)
        await works(ask(caller.channel(name)))
        assert json.loads(await tap.prints())["source"] == "caller"
        assert await tap.ended() == 0
    nobody = tapping(mesh, "nobody", "--from", "caller")
    await nobody.says("warning: no instance of nobody is there to tell")
    nobody.kill()


@pytest.mark.parametrize("mode", ["embedded", "behind"])
async def test_how_long_calls_took(mesh: Mesh, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``mesh stat`` has quantiles and success of what the callee measured."""
    monkeypatch.setattr("mesh.decisions.EVERY", 0.1)
    async with running(mesh, mode) as (name, caller):
        for _ in range(5):
            await works(ask(caller.channel(name)))

    async def found() -> list[dict[str, Any]]:
        done = await asyncio.to_thread(run, "stat", name, "-o", "json", "--data", str(mesh.data))
        assert (done.returncode, done.stderr) == (0, "")
        stats: list[dict[str, Any]] = json.loads(done.stdout)
        return [one for one in stats if one["method"] == UNARY and one["ended"] >= 5]

    async with asyncio.timeout(TIMEOUT):
        while not (stats := await found()):
            pass
    (one,) = stats
    assert (one["source"], one["failed"], one["success"]) == ("caller", 0, 1.0)
    assert 0 < one["p50_seconds"] <= one["p95_seconds"] <= one["p99_seconds"] < TIMEOUT
    shown = await asyncio.to_thread(run, "stat", name, "-o", "wide", "--data", str(mesh.data))
    assert {"P50", "P95", "P99", "FAILED", "DENIED"} <= set(shown.stdout.split())
