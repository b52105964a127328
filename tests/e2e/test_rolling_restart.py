"""All instances of a service are restarted, one after the other, under load: no call fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from tests.e2e.echo import Echo
from tests.e2e.process import until
from tests.e2e.world import HOST, Mesh, Timers, appears, policy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

CALLERS = 4
#: Seconds: the shortest lease there is.
LEASE = 10.0


async def test_no_call_fails(start_mesh: Callable[[Timers | None], Awaitable[Mesh]]) -> None:
    """Sidecars that are told to end leave the directory, serve what still comes, and drain."""
    mesh, begun = await start_mesh(Timers(lease=LEASE)), time.monotonic()
    await mesh.apply(policy(("front", "back")))
    async with AsyncExitStack() as stack:
        app = grpc.aio.server()
        app.add_generic_rpc_handlers((Echo(),))
        port = app.add_insecure_port(f"{HOST}:0")
        await app.start()
        stack.push_async_callback(app.stop, 0)
        front = await mesh.sidecar("front")
        stack.push_async_callback(front.process.stop)
        running = [await mesh.sidecar("back", "--app-port", str(port)) for _ in range(2)]
        await appears(front.socket("back"))
        channel = await stack.enter_async_context(front.channel("back"))
        call: Any = channel.unary_unary("/test.v1.Echo/Unary")
        stream: Any = channel.stream_stream("/test.v1.Echo/Both")
        # Until then nodes do not believe in departures: a gatekeeper that is new does not know everybody yet.
        await until(lambda: time.monotonic() > begun + 1.5 * LEASE, "gatekeeper to have settled")
        while await call(b"m").code() is not grpc.StatusCode.OK:
            pass
        made, failed, ending = 0, list[str](), asyncio.Event()

        async def load() -> None:
            nonlocal made
            while not ending.is_set():
                try:
                    await call(b"m")
                    assert [reply async for reply in stream(iter([b"a", b"b"]))] == [b"a", b"b"]
                except grpc.aio.AioRpcError as error:
                    failed.append(f"{error.code()} {error.details()}")
                made += 1

        async def goes_on() -> None:
            before = made
            await until(lambda: made > before + 20, "calls to be made")

        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(load())
            for old in list(running):
                await goes_on()
                new = await mesh.sidecar("back", "--app-port", str(port))
                stack.push_async_callback(new.process.stop)
                await _listed(mesh, new.instance)
                assert await old.process.stop() == 0
            await goes_on()
            ending.set()
        assert failed == [], front.process.log


async def _listed(mesh: Mesh, instance: str) -> None:
    async with asyncio.timeout(20):
        while instance not in str([node.instance.hex() for node in (await mesh.nodes()).nodes]):
            pass
