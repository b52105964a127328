"""A name that may not be called and one that does not exist are the same to whoever asks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import Any

import grpc
import pytest

import mesh as sealmesh
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc
from tests.e2e.echo import Dialogue, Echo, ask, reason, works
from tests.e2e.process import until
from tests.e2e.world import TIMEOUT, Mesh, SidecarProcess, Timers, appears, policy

#: A service that runs, and that nobody here may call; and names of none.
FORBIDDEN = "secret"
StartMesh = Callable[[Timers | None], Awaitable[Mesh]]
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


async def test_nodes_at_rest_cost_auth_nothing(
    start_mesh: StartMesh,
) -> None:
    """Heartbeat after heartbeat renews a lease, and nothing is written to auth's database."""
    mesh = await start_mesh(Timers(max_stale=2))
    await mesh.apply(policy(("caller", "callee")))
    async with mesh.node("caller"), mesh.node("callee"):
        while {node.policy_version for node in (await mesh.nodes()).nodes} != {1}:
            pass
        with closing(sqlite3.connect(f"file:{mesh.data / 'auth.db'}?mode=ro", uri=True)) as database:
            quiet = [commits(database), 0.0]

            def at_rest() -> bool:
                # Through four heartbeats of each: they come three times in a max_stale.
                if commits(database) != quiet[0]:
                    quiet[:] = commits(database), time.monotonic()
                return time.monotonic() - quiet[1] > 3

            quiet[1] = time.monotonic()
            await until(at_rest, "three seconds to pass without a commit")
            before = commits(database)
            await mesh.token("caller")
            assert commits(database) != before


def commits(database: sqlite3.Connection) -> int:
    """Give a number that is another one after every commit of somebody else."""
    found: int = database.execute("PRAGMA data_version").fetchone()[0]
    return found


@pytest.mark.parametrize("name", ["c\u0430ller", "\uff43aller", "caller\u200b", "Caller"])
async def test_nobody_registers_under_a_look_alike(shared: Mesh, name: str) -> None:
    """There is no token for such a name, so there is no certificate, and a node has no other name."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shared.token(name)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    token = await shared.token("caller")
    with pytest.raises(ValueError, match="bad service name"):
        async with sealmesh.join(name, token=token, auth=shared.join_address):
            pass


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
