"""Keys and certificates roll under load: nobody notices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from tests.e2e.echo import Dialogue, Echo, Traffic, ask, served
from tests.e2e.process import until
from tests.e2e.world import Mesh, Timers, appears, policy

PAIRS = (("caller", "callee"), ("caller", "back"), ("front", "back"), ("front", "callee"))
ROLLS = 3


async def test_epochs_and_certificates_roll_under_load_without_a_failed_call(
    start_mesh: Callable[[Timers], Awaitable[Mesh]],
) -> None:
    """Over three epochs and certificates, no call and no open stream fails, embedded or through sidecars."""
    mesh = await start_mesh(Timers(svid=4, epoch=4, grace=2))
    await mesh.apply(policy(*PAIRS))
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        port = await stack.enter_async_context(served(Echo()))
        await mesh.sidecar("back", "--app-port", str(port))
        front = await mesh.sidecar("front")
        await appears(front.socket("back"))
        socket = await stack.enter_async_context(front.channel("back"))
        loopback = await stack.enter_async_context(front.port())
        embedded, mixed = caller.channel("callee"), caller.channel("back")
        dialogues = [Dialogue(embedded), Dialogue(socket), Dialogue(mixed), Dialogue(loopback, "callee")]
        calls = [
            ask(embedded),
            ask(embedded),
            ask(mixed),
            ask(socket),
            ask(socket),
            ask(loopback, to="callee"),
        ]
        certificates = {caller.membership.svid.chain_pem}
        first = (await mesh.status()).epoch.number

        def rolled() -> bool:
            certificates.add(caller.membership.svid.chain_pem)
            return len(certificates) > 2 * ROLLS

        async with Traffic([*calls, *(dialogue.turn for dialogue in dialogues)]) as traffic:
            await until(rolled, "certificates to roll", 40)
            while (await mesh.status()).epoch.number < first + ROLLS:
                await until(partial(lambda seen: traffic.count > seen + 200, traffic.count), "calls to go on")
        for dialogue in dialogues:
            await dialogue.end()
        assert [failure.details() for failure in traffic.failures] == []
        assert traffic.slowest() > 50
