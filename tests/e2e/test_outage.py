"""auth and gatekeeper are killed while traffic runs: it goes on, and everything recovers afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import mesh as sealmesh
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, fails, works
from tests.e2e.process import until
from tests.e2e.world import Mesh, SidecarProcess, Timers, appears, disappears, policy

#: Within how many seconds of a restart everything has recovered.
SECONDS: Final = 8.0
ESTABLISHED: Final = (("caller", "callee"), ("front", "callee"))
WITH_LATER: Final = (*ESTABLISHED, ("caller", "later"), ("front", "later"))

StartMesh = Callable[[Timers | None], Awaitable[Mesh]]


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: callers embedded and with a sidecar, a callee that both may call, and a later one."""

    mesh: Mesh
    caller: sealmesh.Node
    front: SidecarProcess
    traffic: Traffic

    async def goes_on(self, calls: int = 30) -> None:
        """See that every kind of traffic goes on without a failure."""
        before = self.traffic.counts[:]
        await until(
            lambda: all(now >= then + calls for then, now in zip(before, self.traffic.counts, strict=True)),
            "traffic to go on",
        )
        assert [failure.details() for failure in self.traffic.failures] == []


@asynccontextmanager
async def playing(mesh: Mesh) -> AsyncIterator[Cast]:
    """Run the cast, with traffic between the established pairs; nothing of it may fail."""
    await mesh.apply(policy(*ESTABLISHED))
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        later = await stack.enter_async_context(mesh.node("later"))
        later.server().add_generic_rpc_handlers((Echo(),))
        await later.server().start()
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        dialogues = [Dialogue(caller.channel("callee")), Dialogue(socket)]
        calls = [ask(caller.channel("callee")), ask(socket), *(dialogue.turn for dialogue in dialogues)]
        for call in calls:
            await works(call)
        async with Traffic(calls) as traffic:
            cast = Cast(mesh, caller, front, traffic)
            await cast.goes_on()
            yield cast
            await cast.goes_on()
        for dialogue in dialogues:
            await dialogue.end()


async def test_auth_is_killed(start_mesh: StartMesh) -> None:
    """Established pairs do not notice; after the restart certificates renew and new pairs are served."""
    mesh = await start_mesh(Timers(svid=12))
    async with playing(mesh) as cast:
        certificate = cast.caller.membership.svid
        mesh.auth.kill()
        await cast.goes_on()
        await mesh.start_auth()
        ready = time.monotonic()
        await mesh.apply(policy(*WITH_LATER))
        await works(ask(cast.caller.channel("later")))
        await appears(cast.front.socket("later"))
        async with cast.front.channel("later") as socket:
            await works(ask(socket))
        assert time.monotonic() - ready < SECONDS
        async with mesh.node("caller") as new:
            await works(ask(new.channel("callee")))
        await until(lambda: cast.caller.membership.svid is not certificate, "a renewal", 12)


async def test_gatekeeper_is_killed(start_mesh: StartMesh) -> None:
    """Established pairs do not notice, no endpoint is lost while it settles, and policy moves again."""
    mesh = await start_mesh(None)
    async with playing(mesh) as cast:
        mesh.gatekeeper.kill()
        await cast.goes_on()
        await mesh.apply(policy(*WITH_LATER))
        await mesh.start_gatekeeper()
        ready = time.monotonic()
        await works(ask(cast.caller.channel("later")))
        await appears(cast.front.socket("later"))
        assert time.monotonic() - ready < SECONDS
        nodes = ["callee", "caller", "front", "later"]
        while [node.service for node in (await mesh.nodes()).nodes] != nodes:
            assert time.monotonic() - ready < SECONDS
        await cast.goes_on()


async def test_both_are_killed_at_once(start_mesh: StartMesh) -> None:
    """Established pairs do not notice; after the restart of both, a policy change arrives within seconds."""
    mesh = await start_mesh(None)
    async with playing(mesh) as cast:
        mesh.auth.kill()
        mesh.gatekeeper.kill()
        await cast.goes_on()
        await mesh.start()
        ready = time.monotonic()
        await mesh.apply(policy(*WITH_LATER))
        await works(ask(cast.caller.channel("later")))
        await appears(cast.front.socket("later"))
        assert time.monotonic() - ready < SECONDS
        await mesh.apply(policy(*ESTABLISHED))
        await disappears(cast.front.socket("later"))
        await fails(ask(cast.caller.channel("later")), SECONDS, "NAME_UNAVAILABLE")
