"""Nothing of the mesh needs anything else to be there first: it waits, says for what, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

import mesh as sealmesh
from mesh.core.names import GATEKEEPER
from tests.e2e.echo import Echo, ask, served, works
from tests.e2e.process import until
from tests.e2e.world import Mesh, policy

#: Within how many seconds of the last process being ready a call goes through.
SECONDS: Final = 8.0

NewMesh = Callable[[], Mesh]


async def call_from_a_waiting_node(
    mesh: Mesh, says: str, log: pytest.LogCaptureFixture, come: Callable[[], Awaitable[object]]
) -> None:
    """Start both ends of a call into a mesh that is not whole, see them wait, have the rest ``come``."""
    token, callee = await mesh.token("caller"), await mesh.token("callee")
    async with served(Echo()) as port:
        if says == "auth":
            await mesh.auth.stop()
        sidecar = await mesh.begin_sidecar("callee", "--app-port", str(port), token=callee)

        async def called() -> bytes:
            async with sealmesh.join("caller", token=token, auth=mesh.join_address) as node:
                return await works(ask(node.channel("callee")))

        calling = asyncio.create_task(called())
        await sidecar.says(f"waiting for {says}")
        await until(lambda: f"waiting for {says}" in log.text, "the embedded node to say so, too")
        assert not calling.done()
        await come()
        assert await asyncio.wait_for(calling, SECONDS) == b"hello"


async def test_nodes_and_gatekeeper_wait_for_auth(
    new_mesh: NewMesh, caplog: pytest.LogCaptureFixture
) -> None:
    """With auth down, gatekeeper, sidecar and embedded node say that they wait for it, and then go on."""
    mesh = new_mesh()
    await mesh.start_auth()
    await mesh.apply(policy(("caller", "callee")))
    token = await mesh.token(GATEKEEPER.text)

    async def come() -> None:
        await mesh.begin_gatekeeper(token).says(f"waiting for auth at {mesh.join_address}")
        await mesh.start_auth()
        await mesh.gatekeeper.says("is in force", seconds=SECONDS)

    await call_from_a_waiting_node(mesh, "auth", caplog, come)


async def test_nodes_wait_for_gatekeeper(new_mesh: NewMesh, caplog: pytest.LogCaptureFixture) -> None:
    """With gatekeeper down, nodes that auth let in say that they wait for it, and then go on."""
    mesh = new_mesh()
    await mesh.start_auth()
    await mesh.apply(policy(("caller", "callee")))
    await call_from_a_waiting_node(mesh, "gatekeeper", caplog, mesh.start_gatekeeper)
