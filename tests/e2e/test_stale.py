"""What is old permits nothing: stopped processes that go on, silence, and the gaps of restarts."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

import mesh as sealmesh
from mesh.core.errors import Denied
from mesh.rpc.authorize import authorize
from tests.e2e.echo import Dialogue, Echo, ask, fails, reason, served, works
from tests.e2e.process import Process, until
from tests.e2e.world import Mesh, SidecarProcess, Timers, appears, policy

#: How long a slice holds here, in seconds, and within how many something is back when its cause is.
STALE: Final = 4.0
SECONDS: Final = 8.0
ALLOWED: Final = policy(("caller", "callee"), ("front", "callee"))
FORBIDDEN: Final = policy(("caller", "nobody"), ("front", "nobody"), ("nobody", "callee"))
UNARY: Final = "/test.v1.Echo/Unary"

StartMesh = Callable[[Timers | None], Awaitable[Mesh]]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: a callee, and callers embedded and with a sidecar."""

    mesh: Mesh
    callee: sealmesh.Node
    caller: sealmesh.Node
    front: SidecarProcess
    calls: tuple[Callable[[], Awaitable[bytes]], ...]

    @property
    def gatekeeper(self) -> grpc.aio.Channel:
        """The way of the callee to gatekeeper."""
        return self.callee.channel("mesh.gatekeeper")


@asynccontextmanager
async def playing(mesh: Mesh) -> AsyncIterator[Cast]:
    """Run the cast with everything allowed and working."""
    await mesh.apply(ALLOWED)
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        calls = ask(caller.channel("callee")), ask(socket)
        for call in calls:
            await works(call)
        yield Cast(mesh, callee, caller, front, calls)


@asynccontextmanager
async def stopped(process: Process) -> AsyncIterator[None]:
    """Stop a process for the length of the block, as a debugger or a paused machine does."""
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


async def passes(call: Callable[[], Awaitable[object]], done: Callable[[], object]) -> int:
    """Call again and again until something is done; give how many calls went well."""
    passed = 0
    while not done():
        try:
            await asyncio.wait_for(call(), 1)
            passed += 1
        except (grpc.aio.AioRpcError, Denied, TimeoutError):
            await asyncio.sleep(0.002)
    return passed


async def test_a_gatekeeper_that_was_stopped_brings_nothing_back(start_mesh: StartMesh) -> None:
    """What it missed while it stood still is in force before anything that it permits is."""
    async with playing(await start_mesh(Timers(max_stale=STALE))) as cast:
        async with stopped(cast.mesh.gatekeeper):
            for call in cast.calls:
                await fails(call, STALE + SECONDS)
            forbidden = await cast.mesh.apply(FORBIDDEN)
        nodes = (cast.callee, cast.caller)

        def there() -> bool:
            return all(node.slice.version == forbidden and node.slice.in_force for node in nodes)

        assert await asyncio.gather(*(passes(call, there) for call in cast.calls)) == [0, 0]
        await cast.mesh.apply(ALLOWED)
        for call in cast.calls:
            await works(call)


async def test_a_gatekeeper_that_was_stopped_answers_by_nothing_old(start_mesh: StartMesh) -> None:
    """Stopped while slices hold, it is late, which denies, and then it answers by the new policy."""
    async with playing(await start_mesh(None)) as cast:

        async def may(source: str) -> bool:
            try:
                await authorize(cast.gatekeeper, source, UNARY)
            except Denied:
                return False
            return True

        await until_true(lambda: may("caller"))
        async with stopped(cast.mesh.gatekeeper):
            began = time.monotonic()
            assert not await may("caller")
            assert time.monotonic() - began < SECONDS / 2
            await cast.mesh.apply(FORBIDDEN)
            # Longer than gatekeeper goes by what it knows without a word of auth.
            await until(lambda: time.monotonic() - began > 3, "three seconds to pass")
        while not await may("nobody"):  # whom only the new policy allows
            assert not await may("caller")
        assert not await may("caller")


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110  what is looked at tells nobody
            await asyncio.sleep(0.02)


async def test_without_auth_nodes_go_on_until_their_slices_are_stale(start_mesh: StartMesh) -> None:
    """A gatekeeper that is well cannot stand in for auth's word: ``max_stale`` after it, calls end."""
    async with playing(await start_mesh(Timers(max_stale=STALE))) as cast:
        dialogue = Dialogue(cast.caller.channel("callee"))
        await dialogue.turn()
        cast.mesh.auth.kill()
        killed = time.monotonic()
        for call in cast.calls:
            await fails(call, STALE + SECONDS)
        assert time.monotonic() - killed > STALE / 2
        assert reason(await fails(dialogue.turn)) == "POLICY_DENIED"
        await cast.mesh.start_auth()
        for call in cast.calls:
            await works(call)


DENIED_METHOD: Final[dict[str, Any]] = {
    "services": {
        "caller": {},
        "callee": {
            "allow": [{"principals": ["caller"], "paths": ["*"]}],
            "deny": [{"principals": ["*"], "paths": ["*/Name"]}],
        },
    }
}


@pytest.mark.parametrize("restarted", ["sidecar", "gatekeeper", "both"])
async def test_nothing_passes_in_the_gap_of_a_restart(start_mesh: StartMesh, restarted: str) -> None:
    """A method that is denied is denied at every moment of it, while what is allowed comes back."""
    mesh = await start_mesh(None)
    await mesh.apply(DENIED_METHOD)
    async with AsyncExitStack() as stack:
        app = str(await stack.enter_async_context(served(Echo("reached"))))
        before = await mesh.sidecar("callee", "--app-port", app)
        caller = await stack.enter_async_context(mesh.node("caller"))
        allowed, denied = ask(caller.channel("callee")), ask(caller.channel("callee"), "Name")
        await works(allowed)
        back = asyncio.Event()
        trying = [asyncio.create_task(passes(denied, back.is_set)) for _ in range(4)]
        if restarted != "sidecar":
            mesh.gatekeeper.kill()
        if restarted != "gatekeeper":
            before.process.kill()
            await fails(allowed)
        if restarted != "sidecar":
            await mesh.start_gatekeeper()
        if restarted != "gatekeeper":
            await mesh.sidecar("callee", "--app-port", app)
        await works(allowed, SECONDS)
        version = (await mesh.policy()).version
        await until(lambda: caller.slice.version == version, "the caller to be up to date")
        assert reason(await fails(denied, why="POLICY_DENIED")) == "POLICY_DENIED"
        back.set()
        assert await asyncio.gather(*trying) == [0] * len(trying)
