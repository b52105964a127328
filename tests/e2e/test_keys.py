"""The mesh's own keys change under load: nobody notices, embedded or beside a sidecar."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from cryptography import x509

import mesh as sealmesh
from mesh.enrol import JoinError
from mesh.v1 import keys_pb2
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, fails, served, works
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


@pytest.mark.timeout(180)
async def test_auth_is_restored_on_an_empty_machine(
    start_mesh: Callable[[Timers], Awaitable[Mesh]],
) -> None:
    """While nodes go on: no call fails, they renew with the restored auth, and take the next policy."""
    mesh = await start_mesh(Timers(svid=40, epoch=300, grace=5))
    await mesh.apply(policy(*PAIRS))
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(mesh.node("caller"))
        callee = await stack.enter_async_context(mesh.node("callee"))
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        dialogue = Dialogue(caller.channel("callee"))
        calls = [ask(caller.channel("callee")), ask(socket), dialogue.turn]
        async with Traffic(calls) as traffic:
            token = await mesh.token("later", ttl=3600)
            backup = mesh.root / "backup"
            await succeeds(mesh, "backup", "backup", str(backup), "--data", str(mesh.data))
            lost = await mesh.apply(policy(*PAIRS, ("other", "callee")))
            kek = mesh.root / "kek"
            kek.touch(0o600)
            kek.write_bytes((mesh.data / "kek").read_bytes())
            mesh.auth.kill()
            shutil.rmtree(mesh.data)
            await succeeds(mesh, "restore", "restore", str(backup), str(mesh.data), "--kek", str(kek))
            await mesh.start_auth()
            certificates = [node.membership.svid.chain_pem for node in (caller, callee)]

            def renewed() -> bool:
                now = [node.membership.svid.chain_pem for node in (caller, callee)]
                return all(one != before for one, before in zip(now, certificates, strict=True))

            await until(renewed, "nodes to renew with the restored auth", 60)
            assert (await mesh.policy()).version > lost
            version = await mesh.apply(policy(*PAIRS, ("other", "front")))
            await until(lambda: caller.slice.version == version, "the new policy to arrive", 20)
            seen = traffic.count
            await until(lambda: traffic.count > seen + 100, "calls to go on")
            with pytest.raises(JoinError):
                async with sealmesh.join("later", token=token, auth=mesh.join_address):
                    pass
            async with mesh.node("caller") as fresh:
                await works(ask(fresh.channel("callee")))
        await dialogue.end()
        assert [failure.details() for failure in traffic.failures] == []


async def succeeds(mesh: Mesh, name: str, *arguments: str) -> None:
    """Run a command of mesh to its good end."""
    process = mesh.python(name, "mesh.cli", *arguments)
    assert await process.ended(60) == 0, process.log


@pytest.mark.timeout(180)
async def test_everything_has_expired_and_comes_back(new_mesh: Callable[[Timers], Mesh]) -> None:
    """auth and gatekeeper away until CA and all certificates have ended: started again, all is as ever."""
    mesh = new_mesh(Timers(svid=4, epoch=4, grace=2, ca=24))
    await mesh.start()
    await mesh.apply(policy(("caller", "callee")))
    async with mesh.node("caller") as slept:
        ends_ms = (await mesh.status()).ca_expires_ms
        mesh.auth.kill()
        mesh.gatekeeper.kill()
        await until(lambda: time.time() * 1000 > ends_ms, "the CA to end", 40)
        await mesh.start()
        assert (await mesh.status()).ca_expires_ms > ends_ms
        async with mesh.node("callee") as callee, mesh.node("caller") as caller:
            callee.server().add_generic_rpc_handlers((Echo(),))
            await callee.server().start()
            assert await works(ask(caller.channel("callee"))) == b"hello"
            assert issuer(caller) == issuer(callee) != issuer(slept)
            await fails(ask(slept.channel("callee")))
