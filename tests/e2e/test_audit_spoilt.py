"""A running auth whose audit log is taken from under it: what the documentation says of that holds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable

import grpc
import pytest

import mesh as sealmesh
from mesh.cli import audit_source
from mesh.cli.audit_source import Place
from mesh.core.audit import Entry, Kind
from tests.cli.command import run
from tests.e2e.echo import SERVICE, Echo, ask, works
from tests.e2e.world import TIMEOUT, Mesh

pytestmark = pytest.mark.timeout(120)

StartMesh = Callable[[], Awaitable[Mesh]]
POLICY = {
    "services": {
        "caller": {},
        "callee": {"allow": [{"principals": ["caller"], "paths": [f"/{SERVICE}/Unary"]}]},
    }
}


async def mesh_command(mesh: Mesh, *arguments: str) -> tuple[int, str]:
    done = await asyncio.to_thread(run, *arguments, "--data", mesh.data)
    assert done.stderr.count("\n") <= 1, done.stderr
    return done.returncode, done.stderr


async def denials(mesh: Mesh) -> list[Entry]:
    async with mesh.operator() as connected:
        found = await audit_source.ask(connected, "denials", Place())
    return [entry for _, entry in found.entries(Place())[0] if entry.kind is Kind.DENIAL]


async def test_a_file_in_the_place_of_the_directory(start_mesh: StartMesh) -> None:
    """Actions and joins are refused, with what to do; looking, calls and denials go on; then it heals."""
    mesh = await start_mesh()
    await mesh.apply(POLICY)
    async with mesh.node("callee") as callee, mesh.node("caller") as caller:
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        await works(ask(caller.channel("callee")))
        token = await mesh.token("caller", 600)
        audit = mesh.data / "audit"
        audit.rename(mesh.data / "taken")
        audit.write_text("in the way")
        status, said = await mesh_command(mesh, "token", "create", "caller")
        assert status == 3
        assert "audit/ is no directory: move away what stands there: nothing was done" in said
        assert await mesh_command(mesh, "status") == (0, "")
        status, said = await mesh_command(mesh, "audit", "verify")
        assert status != 0
        assert "audit/ is no directory: move away what stands there" in said
        with pytest.raises(sealmesh.JoinError, match="audit/ is no directory"):
            async with sealmesh.join("caller", token=token, auth=mesh.join_address):
                pass
        await works(ask(caller.channel("callee")))
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await caller.channel("callee").unary_unary(f"/{SERVICE}/Purge")(b"", timeout=TIMEOUT)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert audit.read_text() == "in the way"
        audit.unlink()
        (mesh.data / "taken").rename(audit)
        async with asyncio.timeout(TIMEOUT * 3):
            while sum(one.count for one in await denials(mesh)) < 5:
                pass
        assert sum(one.count for one in await denials(mesh)) == 5
        async with sealmesh.join("caller", token=token, auth=mesh.join_address):
            pass
    assert await mesh_command(mesh, "audit", "verify") == (0, "")


async def test_a_directory_that_is_gone(start_mesh: StartMesh) -> None:
    """It is made anew, with an alarm, and verify names what is missing; nobody is held up."""
    mesh = await start_mesh()
    assert await mesh_command(mesh, "audit", "verify") == (0, "")
    shutil.rmtree(mesh.data / "audit")
    assert await mesh_command(mesh, "token", "create", "caller") == (0, "")
    status, said = await mesh_command(mesh, "audit", "verify")
    assert status == 6
    assert "audit log actions is not whole: entry 0 (segment 0, line 1) is missing" in said
    await mesh.auth.stop()
    await mesh.start_auth()
    assert (await mesh_command(mesh, "audit", "verify"))[0] == 6
