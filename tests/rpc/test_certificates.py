"""Certificates: replaced while calls run, and refused where they are not this trust domain's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest

from mesh.core.epochs import SKEW_MS
from mesh.core.errors import Cause
from mesh.core.names import Identity, InstanceId, ServiceName, TrustDomain
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import HELLO, MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually, shown_by
from tests.rpc.pair import DOMAIN, World

C = grpc.StatusCode


async def test_certificates_roll_under_load(
    world: World,
    server: MeshServer,
    channel: MeshChannel,
    caller: Membership,
    callee: Membership,
    app: Echo,
) -> None:
    """Both ends replace their certificates again and again: no call fails, long streams go on."""
    stream = channel.stream_stream(path("Both"))()
    await stream.write(b"before")
    assert await stream.read() == b"before"
    rolling = True
    made = 0

    async def load() -> None:
        nonlocal made
        while rolling:
            assert await channel.unary_unary(path("Unary"))(b"x", timeout=10) == b"x"
            made += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(load())
        for turn in range(6):
            before = await shown_by(server, caller.svid)
            for member in (callee, caller)[: turn % 3 or 2]:
                member.svid = world.svid(member.identity, member.instance)
            while await shown_by(server, caller.svid) == before:
                pass  # each look is a connection of its own
            target = made + 20
            await eventually(lambda: made >= target)  # noqa: B023  awaited here
        rolling = False
    await stream.write(b"after")
    assert await stream.read() == b"after"
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF
    assert app.ends == 1
    assert made >= 120


async def test_new_connections_show_the_new_certificate(
    world: World, channel: MeshChannel, caller: Membership
) -> None:
    """After a roll the callee sees the caller's new certificate, with the same instance."""
    seen: list[bytes] = []

    class Look(grpc.GenericRpcHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            async def look(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
                seen.extend(context.auth_context()["x509_pem_cert"])
                return request

            return grpc.unary_unary_rpc_method_handler(look)

    server = world.serve(world.members[0])
    server.add_generic_rpc_handlers((Look(),))
    await server.start()
    await channel.unary_unary(path("Look"))(b"")
    caller.svid = world.svid(caller.identity, caller.instance)
    await channel.unary_unary(path("Look"))(b"")
    assert len(set(seen)) == 2
    assert seen[1] == caller.svid.chain_pem
    await server.stop(None)


async def test_strangers_certificates(
    world: World, server: MeshServer, app: Echo, callee: Membership, caller: Membership
) -> None:
    """A certificate of another authority, though it says the same, gets no connection."""
    stranger = World().svid(caller.identity, caller.instance)
    mixed = replace(stranger, bundle_pem=caller.svid.bundle_pem)
    attacker = Attacker(mixed, server.port)
    answer = await attacker.replay(capture(caller, path("Unary"), to=(callee.name, callee.instance)))
    assert answer.code is C.UNAVAILABLE
    assert app.calls == []
    await attacker.close()
    assert world.members


CALLER = f"spiffe://{DOMAIN}/caller"


@pytest.mark.parametrize(
    ("uris", "common_name"),
    [
        (["spiffe://other.example/caller"], None),
        ([], None),
        ([CALLER, f"spiffe://{DOMAIN}/other"], None),
        ([CALLER, CALLER], None),
        (["https://test.example/caller"], None),
        ([f"spiffe://{DOMAIN}"], None),
        ([f"spiffe://{DOMAIN}/"], None),
        ([f"spiffe://{DOMAIN}/caller/x"], None),
        ([f"spiffe://{DOMAIN}/other"], None),
        ([CALLER], "caller"),
        ([CALLER], ""),
        ([CALLER], "00" * 15),
        ([CALLER], "AB" * 16),
        ([CALLER], "cd" * 16),
    ],
)
async def test_certificates_that_name_somebody_else(
    world: World,
    server: MeshServer,
    app: Echo,
    callee: Membership,
    caller: Membership,
    rejected: list[Rejection],
    uris: list[str],
    common_name: str | None,
) -> None:
    """A certificate of our authority is worth what it says: whom it does not name, it cannot speak for."""
    svid = world.svid(caller.identity, caller.instance, uris=uris, common_name=common_name)
    attacker = Attacker(svid, server.port)
    answer = await attacker.replay(capture(caller, path("Unary"), to=(callee.name, callee.instance)))
    assert answer.reason == "SEAL_REJECTED"
    assert rejected[-1].cause == Cause.WRONG_PEER
    assert app.calls == []
    await attacker.close()


async def test_a_server_that_is_not_the_callee(world: World, channel: MeshChannel, app: Echo) -> None:
    """Whoever listens at the callee's address with a name of its own gets not even the call."""
    other = world.member("other")
    false = world.serve(other)
    false.add_generic_rpc_handlers((app,))
    await false.start()
    world.directory.put(world.members[0], f"127.0.0.1:{false.port}")
    for make_call in (channel.unary_unary, channel.unary_stream):
        call = make_call(path("Unary"))(b"x", timeout=5)
        assert await call.code() is C.UNAVAILABLE
    assert app.calls == []
    await false.stop(None)


async def test_a_server_of_another_authority(channel: MeshChannel, world: World, app: Echo) -> None:
    """The callee's very name, from another authority, gets not even the call."""
    stranger = World()
    false = stranger.serve(stranger.member("callee"))
    false.add_generic_rpc_handlers((app,))
    await false.start()
    world.directory.put(world.members[0], f"127.0.0.1:{false.port}")
    assert await channel.unary_unary(path("Unary"))(b"x", timeout=5).code() is C.UNAVAILABLE
    assert app.calls == []
    await false.stop(None)


async def test_hello_says_who_is_there_and_no_more(
    server: MeshServer, world: World, callee: Membership
) -> None:
    """Any member may ask a node for its instance id; the answer holds nothing else."""
    options = (("grpc.ssl_target_name_override", "callee.test.example"),)
    credentials = world.member("other").svid.channel_credentials()
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options) as channel:
        hello: Any = channel.unary_unary(HELLO)
        answer = await hello(b"whatever")
    assert answer == b"\x0a\x10" + callee.instance.raw + b"\x12\x06callee"


def test_svids_never_print_their_key(world: World) -> None:
    """A certificate may stand in a log; its key does not."""
    svid = world.svid(Identity(TrustDomain("test.example"), ServiceName("caller")), InstanceId(bytes(16)))
    assert b"PRIVATE" in svid.key_pem
    assert "PRIVATE" not in repr(svid)


async def test_a_connection_outlives_no_certificate(
    server: MeshServer, app: Echo, callee: Membership, caller: Membership, rejected: list[Rejection]
) -> None:
    """TLS asks for a certificate once; on a connection still open at its end no call is taken any more."""
    attacker = Attacker(caller.svid, server.port)
    to = (callee.name, callee.instance)
    first, later = (capture(caller, path("Unary"), to=to) for _ in range(2))
    await attacker.replay(first)
    assert app.seen
    callee.clock.set(caller.svid.not_after_ms + SKEW_MS + 1000)
    answer = await attacker.replay(later)
    assert answer.reason == "SEAL_REJECTED"
    assert rejected[-1].cause == Cause.WRONG_PEER
    assert "ended" in rejected[-1].detail
