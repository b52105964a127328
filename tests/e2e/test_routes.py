"""Routes put in force while calls are made, with real processes, in both modes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from mesh.rpc.status import reason_of
from tests.e2e.process import until
from tests.e2e.world import HOST, Mesh, Timers, appears, policy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

C = grpc.StatusCode
CALL: Final = "/test.v1.Halting/Call"
#: Within how many seconds a change is in force at every node.
SECOND: Final = 1.0
PAIRS: Final = (("front", "back"), ("direct", "back"))


class Halting(grpc.GenericRpcHandler):
    """Fails every third call before it has done anything."""

    def __init__(self) -> None:
        """Count."""
        self.calls = count(1)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler."""
        return grpc.unary_unary_rpc_method_handler(self.call) if details.method == CALL else None

    async def call(self, request: bytes, context: Any) -> bytes:
        """Echo, or not."""
        if next(self.calls) % 3 == 0:
            await context.abort(C.UNAVAILABLE, "halting")
        return request


@pytest_asyncio.fixture(loop_scope="session")
async def stack() -> AsyncIterator[AsyncExitStack]:
    """End what a test has begun."""
    async with AsyncExitStack() as stack:
        yield stack


async def outcome(call: Any) -> str:
    """Give how a call ends: OK, a reason of the mesh, or a status."""
    try:
        await call(b"", timeout=10)
    except grpc.aio.AioRpcError as error:
        return reason_of(error) or str(error.code().name)
    return "OK"


async def test_routes_change_under_load(
    start_mesh: Callable[[Timers | None], Awaitable[Mesh]], stack: AsyncExitStack
) -> None:
    """Failures end when retries are declared, and come back with a fault, within a second in both modes."""
    mesh = await start_mesh(None)
    await mesh.apply(policy(*PAIRS))
    app = grpc.aio.server()
    app.add_generic_rpc_handlers((Halting(),))
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    stack.push_async_callback(app.stop, 0)
    await mesh.sidecar("back", "--app-port", str(port))
    front = await mesh.sidecar("front")
    await appears(front.socket("back"))
    direct = await stack.enter_async_context(mesh.node("direct"))
    ways: dict[str, Any] = {
        "sidecar": (await stack.enter_async_context(front.channel("back"))).unary_unary(CALL),
        "embedded": direct.channel("back").unary_unary(CALL),
    }
    seen, ending = Counter[tuple[str, str]](), asyncio.Event()

    async def load(way: str) -> None:
        while not ending.is_set():
            seen[way, await outcome(ways[way])] += 1

    async def comes(what: str, times: int) -> None:
        before = seen.copy()
        told = f"{what} {times} times in each mode"
        await until(lambda: all(seen[way, what] - before[way, what] >= times for way in ways), told)

    async with asyncio.TaskGroup() as group:
        for way in (*ways, *ways):
            group.create_task(load(way))
        try:
            await comes("OK", 10)
            await comes("UNAVAILABLE", 10)
            retry = {"attempts": 10, "backoff": "1ms", "longest": "5ms", "budget": 100}
            await mesh.apply(
                policy(*PAIRS, traffic={"back": {"routes": [{"paths": [CALL], "retry": retry}]}})
            )
            await asyncio.sleep(SECOND)
            before = seen.copy()
            await comes("OK", 100)
            assert set(seen - before) == {(way, "OK") for way in ways}
            fault = {"percent": 100, "abort": "UNAVAILABLE"}
            aborting = {"paths": ["*"], "fault": fault, "retry": retry}
            await mesh.apply(policy(*PAIRS, traffic={"back": {"routes": [aborting]}}))
            await asyncio.sleep(SECOND)
            before = seen.copy()
            await comes("mesh/FAULT", 20)
            assert set(seen - before) == {(way, "mesh/FAULT") for way in ways}
            await mesh.apply(policy(*PAIRS))
            await comes("OK", 10)
        finally:
            ending.set()
