"""The mesh's own keys change under load: nobody notices, embedded or beside a sidecar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from cryptography import x509

import mesh as sealmesh
from mesh.v1 import keys_pb2
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, served
from tests.e2e.process import until
from tests.e2e.world import TIMEOUT, Mesh, Timers, appears, policy

PAIRS = (("caller", "callee"), ("caller", "back"), ("front", "back"), ("front", "callee"))


async def rotate(mesh: Mesh, kind: keys_pb2.KeyKind.ValueType) -> str:
    """Rotate a key as an operator, and give the new one's id."""
    async with mesh.operator() as operator:
        request = keys_pb2.RotateKeyRequest(kind=kind)
        return (await operator.keys.RotateKey(request, timeout=TIMEOUT)).id


def issuer(node: sealmesh.Node) -> str:
    [leaf, *_] = x509.load_pem_x509_certificates(node.membership.svid.chain_pem)
    return leaf.issuer.rfc4514_string()


@pytest.mark.timeout(180)
async def test_cas_roll_under_load_without_a_failed_call(
    start_mesh: Callable[[Timers], Awaitable[Mesh]],
) -> None:
    """While two new CAs take over, no call and no open stream fails, and new nodes join."""
    mesh = await start_mesh(Timers(svid=4, epoch=6, grace=2, ca=24))
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
        dialogues = [Dialogue(embedded), Dialogue(socket), Dialogue(mixed)]
        calls = [ask(embedded), ask(mixed), ask(socket), ask(loopback, to="callee")]
        issuers = {issuer(caller)}

        def rolled(times: int) -> Callable[[], bool]:
            def enough() -> bool:
                issuers.update((issuer(caller), issuer(callee)))
                return len(issuers) > times

            return enough

        async with Traffic([*calls, *(dialogue.turn for dialogue in dialogues)]) as traffic:
            await until(rolled(1), "a CA to take over", 60)
            fresh = await stack.enter_async_context(mesh.node("caller"))
            await until(rolled(2), "another CA to take over", 60)
            seen = traffic.count
            await until(lambda: traffic.count > seen + 200, "calls to go on")
            assert await ask(fresh.channel("back"))() == b"hello"
        for dialogue in dialogues:
            await dialogue.end()
        assert [failure.details() for failure in traffic.failures] == []
        assert traffic.slowest() > 50
        nodes = {node.service for node in (await mesh.nodes()).nodes}
        assert {"caller", "callee", "front", "back"} <= nodes


@pytest.mark.timeout(180)
async def test_an_operator_rotates_everything_under_load(
    start_mesh: Callable[[Timers], Awaitable[Mesh]],
) -> None:
    """Epoch, CA, KEK and credential, each before its time: no call and no open stream fails."""
    mesh = await start_mesh(Timers(svid=4, epoch=300, grace=2))
    await mesh.apply(policy(*PAIRS))
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        dialogues = [Dialogue(caller.channel("callee")), Dialogue(socket)]
        calls = [ask(caller.channel("callee")), ask(socket), *(dialogue.turn for dialogue in dialogues)]
        before = issuer(caller)
        async with Traffic(calls) as traffic:
            epoch = await rotate(mesh, keys_pb2.KEY_KIND_EPOCH)
            await rotate(mesh, keys_pb2.KEY_KIND_CA)
            await rotate(mesh, keys_pb2.KEY_KIND_KEK)
            await rotate(mesh, keys_pb2.KEY_KIND_OPERATOR)
            await until(lambda: issuer(caller) != before != issuer(callee), "a CA to take over", 40)
            assert str((await mesh.status()).epoch.number) == epoch
            seen = traffic.count
            await until(lambda: traffic.count > seen + 200, "calls to go on")
        for dialogue in dialogues:
            await dialogue.end()
        assert [failure.details() for failure in traffic.failures] == []
