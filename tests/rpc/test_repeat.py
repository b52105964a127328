"""Calls that were refused before dispatch: sealed anew and made again, exactly once in the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.core.names import InstanceId, ServiceName
from mesh.rpc import targets
from mesh.rpc.caller import ATTEMPTS
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Endpoint
from mesh.rpc.held import MAX_HELD
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually, reason_of
from tests.rpc.pair import World

C = grpc.StatusCode


@pytest.fixture
async def restarted(world: World, server: MeshServer, app: Echo) -> AsyncIterator[Membership]:
    """Restart ``callee`` at its address under a new instance id; the directory does not know yet."""
    await server.stop(None)
    fresh = world.member("callee")
    again = MeshServer(fresh, f"127.0.0.1:{server.port}")
    again.add_generic_rpc_handlers((app,))
    await again.start()
    yield fresh
    await again.stop(None)


async def learn(world: World, server: MeshServer, told: list[Rejection], fresh: Membership) -> None:
    """Let the directory learn of the restart only when a call was refused for it."""
    await eventually(lambda: bool(told))
    world.directory.put(fresh, f"127.0.0.1:{server.port}")


async def make(channel: MeshChannel, kind: str) -> list[bytes]:
    """Make a call of a kind, and give its messages."""
    call: Any
    if kind == "Unary":
        return [await channel.unary_unary(path(kind))(b"a", timeout=10)]
    if kind == "Up":
        return [await channel.stream_unary(path(kind))(iter([b"a", b"b"]), timeout=10)]
    if kind == "Down":
        return [message async for message in channel.unary_stream(path(kind))(b"2", timeout=10)]
    call = channel.stream_stream(path("Both"))(timeout=10)
    for message in (b"a", b"b"):
        await call.write(message)
    if kind == "Both, ended before it is read":
        await call.done_writing()
        return [message async for message in call]
    got = [await call.read(), await call.read()]
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    return got


KINDS = {
    "Unary": [b"a"],
    "Up": [b"a,b"],
    "Down": [b"0", b"1"],
    "Both": [b"a", b"b"],
    "Both, ended before it is read": [b"a", b"b"],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_is_not_noticed(
    world: World,
    server: MeshServer,
    channel: MeshChannel,
    restarted: Membership,
    app: Echo,
    kind: str,
) -> None:
    """A call for an instance that is no more goes to the new one, and is dispatched once."""
    told: list[Rejection] = []
    restarted.on_rejected(told.append)
    learning = asyncio.ensure_future(learn(world, server, told, restarted))
    assert await make(channel, kind) == KINDS[kind]
    await learning
    assert len(app.calls) == len(told) == 1


async def test_a_restart_is_not_noticed_by_who_waits_for_the_reply_to_begin(
    world: World, server: MeshServer, channel: MeshChannel, restarted: Membership, app: Echo
) -> None:
    """As a sidecar does; what was seen of the refused attempt is not taken for the start of the next."""
    told: list[Rejection] = []
    restarted.on_rejected(told.append)
    learning = asyncio.ensure_future(learn(world, server, told, restarted))
    exchange = channel.exchanges(path("Down"), (), 10)(b"2")
    await exchange.start()
    await exchange.initial_sealed()
    assert [await exchange.receive() for _ in range(3)] == [b"0", b"1", None]
    assert (await exchange.settled()).code is C.OK
    await learning
    assert len(app.calls) == len(told) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_directory_that_does_not_learn(
    monkeypatch: pytest.MonkeyPatch, channel: MeshChannel, restarted: Membership, app: Echo, kind: str
) -> None:
    """While the directory still lists the instance that refused, the call fails clearly and in time."""
    assert restarted.name.text == "callee"
    monkeypatch.setattr(targets, "SETTLE", 0.1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(channel, kind)
    assert caught.value.code() is C.UNAVAILABLE
    assert reason_of(caught.value.trailing_metadata())[0] == "NOT_READY"
    assert app.calls == []


@pytest.mark.parametrize("size", [MAX_HELD, MAX_HELD + 1])
async def test_what_is_no_longer_held_is_not_repeated(
    world: World, server: MeshServer, channel: MeshChannel, restarted: Membership, app: Echo, size: int
) -> None:
    """A stream is repeated whole or not at all: one of more than 256 KiB fails."""
    told: list[Rejection] = []
    restarted.on_rejected(told.append)
    learning = asyncio.ensure_future(learn(world, server, told, restarted))
    message = b"x" * size
    call = channel.unary_stream(path("Down"))(b"1" + b" " * (size - 1), timeout=10)
    if size <= MAX_HELD:
        assert [m async for m in call] == [b"0"]
        assert app.calls == ["Down"]
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [m async for m in call]
        assert reason_of(caught.value.trailing_metadata())[0] == "STALE_PEER"
        assert caught.value.code() is C.UNAVAILABLE
        assert app.calls == []
    await learning
    assert await channel.unary_unary(path("Unary"))(message) == message


@pytest.mark.parametrize("kind", KINDS)
async def test_attempts_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    server: MeshServer,
    channel: MeshChannel,
    app: Echo,
    kind: str,
) -> None:
    """A callee that refuses and refuses, with proof, is asked three times."""
    told: list[Rejection] = []
    world.members[0].on_rejected(told.append)

    def ever_another(_service: ServiceName) -> list[Endpoint]:
        return [Endpoint(InstanceId(os.urandom(16)), f"127.0.0.1:{server.port}")]

    monkeypatch.setattr(world.directory, "endpoints", ever_another)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(channel, kind)
    assert reason_of(caught.value.trailing_metadata())[0] == "STALE_PEER"
    assert len(told) == ATTEMPTS
    assert app.calls == []
    assert server.open_calls == set()


async def test_a_repeat_is_within_the_deadline(
    monkeypatch: pytest.MonkeyPatch, channel: MeshChannel, restarted: Membership
) -> None:
    """Waiting for a moved instance takes no longer than the caller does."""
    assert restarted.name.text == "callee"
    monkeypatch.setattr(targets, "SETTLE", 30.0)
    loop = asyncio.get_running_loop()
    for make_call, request in (
        (channel.unary_unary(path("Unary")), b"a"),
        (channel.unary_stream(path("Down")), b"1"),
    ):
        began = loop.time()
        call: Any = make_call(request, timeout=0.3)
        code = await asyncio.wait_for(call.code(), 10)
        assert code in (C.DEADLINE_EXCEEDED, C.UNAVAILABLE)
        assert loop.time() - began < 5


async def test_cancelled_while_it_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    server: MeshServer,
    channel: MeshChannel,
    restarted: Membership,
    app: Echo,
) -> None:
    """A call that is cancelled between refusal and repeat is not made again."""
    monkeypatch.setattr(targets, "SETTLE", 30.0)
    told: list[Rejection] = []
    restarted.on_rejected(told.append)
    for make_call, request in (
        (channel.unary_unary(path("Unary")), b"a"),
        (channel.unary_stream(path("Down")), b"1"),
        (channel.stream_stream(path("Both")), iter([b"a"])),
    ):
        told.clear()
        call: Any = make_call(request)
        reading = asyncio.ensure_future(call.read() if hasattr(call, "read") else call.code())
        await eventually(lambda: bool(told))
        assert call.cancel()
        assert await asyncio.wait_for(call.code(), 5) is C.CANCELLED
        await asyncio.wait((reading,), timeout=5)
        assert reading.done()
        assert reading.cancelled() or reading.result() is C.CANCELLED
    world.directory.put(restarted, f"127.0.0.1:{server.port}")
    assert await channel.unary_unary(path("Unary"))(b"next") == b"next"
    assert app.calls == ["Unary"]
