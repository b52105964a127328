"""``kill -9`` of a sidecar: its peers recover, its successor is not in its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import grpc

from mesh.cli.ports import Ports
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, fails, served, works
from tests.e2e.process import until
from tests.e2e.world import HOST, Mesh, appears, policy

#: Within how many seconds of a restart everything has recovered.
SECONDS: Final = 5.0
POLICY: Final = policy(("caller", "callee"), ("front", "callee"))

StartMesh = Callable[[], Awaitable[Mesh]]


async def test_the_only_callee_is_killed_and_comes_back_at_its_port(start_mesh: StartMesh) -> None:
    """Callers get UNAVAILABLE while it is gone, and recover within seconds of a new one at the same port."""
    mesh = await start_mesh()
    await mesh.apply(POLICY)
    listen = f"{HOST}:{Ports(0, 0, 0).chosen(HOST).join}"
    async with AsyncExitStack() as stack:
        app = str(await stack.enter_async_context(served(Echo())))
        before = await mesh.sidecar("callee", "--app-port", app, "--listen", listen)
        caller = await stack.enter_async_context(mesh.node("caller"))
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        calls = ask(caller.channel("callee")), ask(socket)
        for call in calls:
            await works(call)
        dialogue = Dialogue(socket)
        await dialogue.turn()
        before.process.kill()
        for call in (*calls, dialogue.turn):
            error = await fails(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
        after = await mesh.sidecar("callee", "--app-port", app, "--listen", listen)
        assert after.instance != before.instance
        for call in calls:
            await works(call, SECONDS)


async def test_one_of_two_callees_is_killed(start_mesh: StartMesh) -> None:
    """Only calls that were in progress there can fail; all others go on at the other one."""
    mesh = await start_mesh()
    await mesh.apply(POLICY)
    async with AsyncExitStack() as stack:
        callees = {}
        for which in ("one", "two"):
            app = str(await stack.enter_async_context(served(Echo(which))))
            callees[which] = await mesh.sidecar("callee", "--app-port", app)
        caller = await stack.enter_async_context(mesh.node("caller"))
        name = ask(caller.channel("callee"), "Name")
        answered = set()

        async def call() -> bytes:
            answered.add(await name())
            return b""

        tasks = 4
        async with Traffic([call] * tasks) as traffic:
            await until(lambda: answered == {b"one", b"two"}, "both to be called")
            callees["one"].process.kill()
            answered.clear()
            before = traffic.count
            await until(lambda: traffic.count > before + 200, "calls to go on")
            assert b"two" in answered
        assert {failure.code() for failure in traffic.failures} <= {grpc.StatusCode.UNAVAILABLE}
        assert len(traffic.failures) <= tasks


async def test_a_killed_caller_leaves_nothing_in_the_way(start_mesh: StartMesh) -> None:
    """A new sidecar takes over the run directory, with its stale sockets, and the port of a killed one."""
    mesh = await start_mesh()
    await mesh.apply(POLICY)
    run_dir, port = str(mesh.root / "run"), str(Ports(0, 0, 0).chosen(HOST).join)
    async with AsyncExitStack() as stack:
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        for life in range(2):
            front = await mesh.sidecar("front", "--run-dir", run_dir, "--outbound-port", port)
            await appears(front.socket("callee"))
            async with front.channel("callee") as socket, front.port() as loopback:
                await works(ask(socket), SECONDS)
                await works(ask(loopback, to="callee"), SECONDS)
            if life == 0:
                front.process.kill()
                assert front.socket("callee").exists()
                async with front.channel("callee") as socket:
                    assert (await fails(ask(socket))).code() is grpc.StatusCode.UNAVAILABLE
