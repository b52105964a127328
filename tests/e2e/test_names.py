"""A name that may not be called and one that does not exist are the same to whoever asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

import mesh as sealmesh
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc
from tests.e2e.echo import Dialogue, Echo, ask, reason, works
from tests.e2e.world import TIMEOUT, Mesh, SidecarProcess, appears

#: A service that runs, and that nobody here may call; and names of none.
FORBIDDEN = "secret"
NOWHERE = ("nowhere", "secrets", "secret.secret", "mesh.operator")


@pytest.fixture
async def caller(shared: Mesh) -> AsyncIterator[sealmesh.Node]:
    """Give a node, while the service that it may not know of is running."""
    async with shared.node("secret") as secret, shared.node("caller") as node, shared.node("other") as other:
        secret.server().add_generic_rpc_handlers((Echo(),))
        await secret.server().start()
        await works(ask(other.channel(FORBIDDEN)))
        yield node


async def outcome(call: Callable[[], Awaitable[object]]) -> tuple[Any, ...]:
    """Give all that a caller can see of a call that is to fail for its name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    error = caught.value
    assert reason(error) == "NAME_UNAVAILABLE"
    initial, trailing = (
        sorted(found or ()) for found in (error.initial_metadata(), error.trailing_metadata())
    )
    return error.code(), error.details(), initial, [(k, v) for k, v in trailing if k != "date"]


async def test_embedded(caller: sealmesh.Node) -> None:
    """A channel to a forbidden name fails in every word as one to a name that does not exist."""
    for make in (ask, lambda channel: Dialogue(channel).turn):
        told = [await outcome(make(caller.channel(name))) for name in (FORBIDDEN, *NOWHERE)]
        assert told == [told[0]] * len(told)


@pytest.mark.usefixtures("caller")
async def test_sidecar(shared: Mesh) -> None:
    """There is no socket for either, and the loopback port gives the same answer."""
    front: SidecarProcess = await shared.sidecar("front")
    try:
        await appears(front.socket("callee"))
        sockets = {path.stem for path in front.run_dir.iterdir()}
        assert sockets == {"back", "callee", "inventory"}
        async with front.port() as port:
            told = [await outcome(ask(port, to=name)) for name in (FORBIDDEN, *NOWHERE, "mesh.auth")]
        assert told == [told[0]] * len(told)
    finally:
        await front.process.stop()


async def test_gatekeeper(caller: sealmesh.Node) -> None:
    """Asked directly, gatekeeper resolves what may be called, and gives all else the same answer."""
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(caller.channel("mesh.gatekeeper"))

    def resolve(name: str) -> Callable[[], Awaitable[gatekeeper_pb2.ResolveResponse]]:
        request = gatekeeper_pb2.ResolveRequest(service=name)
        return lambda: stub.Resolve(request, timeout=TIMEOUT)

    assert (await resolve("callee")()).destination.service == "callee"
    told = [await outcome(resolve(name)) for name in (FORBIDDEN, *NOWHERE, "caller", "No Name", "")]
    # Under seal, each end has a mac of its own.
    assert {(code, details) for code, details, _, _ in told} == {told[0][:2]}
    assert {tuple((key, len(value)) for key, value in trailing) for *_, trailing in told} == {
        tuple((key, len(value)) for key, value in told[0][3])
    }
