"""What gRPC promises its applications, kept between embedded nodes and through two sidecars alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually
from tests.rpc.pair import World
from tests.sidecar.beside import Beside

C = grpc.StatusCode
DETAILS = ("grpc-status-details-bin", status_pb2.Status(code=9, message="ö" * 4096).SerializeToString())
TEXT = "nö\n%41 ✓ 😈"
BINARY = (("x-a-bin", b""), ("x-a-bin", b"\0,\xff"), ("x-a-bin", b""), ("x-b-bin", b"\0" * 100))
FEW, MANY, FAN = 100, 10_000, 1_000


class App(Echo):
    """An application that can fail as well."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler."""
        if details.method == path("Rich"):
            return grpc.unary_unary_rpc_method_handler(self.rich)
        if details.method == path("RichDown"):
            return grpc.unary_stream_rpc_method_handler(self.rich_down)
        if details.method == path("First"):
            return grpc.stream_stream_rpc_method_handler(self.first)
        return super().service(details)

    async def rich(self, _request: bytes, context: Any) -> bytes:
        """End before anything was sent."""
        await context.abort(C.FAILED_PRECONDITION, TEXT, (DETAILS, *BINARY))
        raise AssertionError

    async def first(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Speak before anything was said."""
        yield b"first"
        async for request in requests:
            yield request

    async def rich_down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Do the same, as a stream."""
        yield await self.rich(request, context)


@dataclass
class Way:
    """A channel to the application, and the mesh's server on the way to it."""

    app: App
    channel: Any
    server: MeshServer
    embedded: bool


@pytest.fixture(params=["embedded", "sidecar"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    """Call an application in both modes."""
    world, app = World(), App()
    if request.param == "embedded":
        server = world.serve(world.member("callee"))
        server.add_generic_rpc_handlers((app,))
        await server.start()
        yield Way(app, world.channel(world.member("caller"), "callee"), server, embedded=True)
        await server.stop(None)
        return
    with TemporaryDirectory(prefix="mesh-") as run_dir:
        beside = Beside(world, Path(run_dir), app)
        await beside.start()
        yield Way(app, beside.channel("socket"), beside.callee.server(), embedded=False)
        await beside.close()


@pytest.mark.parametrize("method", ["Rich", "RichDown"])
async def test_errors_before_any_message(way: Way, method: str) -> None:
    """An error without a message keeps its code, text of any alphabet, 8 KB of details, and -bin values."""
    kind = way.channel.unary_unary if method == "Rich" else way.channel.unary_stream
    call = kind(path(method))(b"m")
    assert (await call.code(), await call.details()) == (C.FAILED_PRECONDITION, TEXT)
    assert sorted(await call.trailing_metadata()) == sorted((DETAILS, *BINARY))
    assert tuple(await call.initial_metadata()) == ()


async def test_repeated_and_empty_binary_metadata(way: Way) -> None:
    """Each of several values of one key arrives, in order, empty ones too, in every place."""
    call = way.channel.unary_unary(path("Meta"))(b"m", metadata=BINARY)
    assert await call == b"m"
    for entries in (way.app.metadata[0], await call.initial_metadata(), await call.trailing_metadata()):
        for key in ("x-a-bin", "x-b-bin"):
            assert [v for k, v in entries if k == key] == [v for k, v in BINARY if k == key]


async def test_a_server_that_speaks_first(way: Way) -> None:
    """A stream is open, and answered, before its caller has sent a message."""
    call = way.channel.stream_stream(path("First"))()
    assert await asyncio.wait_for(call.read(), 5) == b"first"
    await call.write(b"second")
    assert await asyncio.wait_for(call.read(), 5) == b"second"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_many_replies_after_the_half_close(way: Way) -> None:
    """A caller that has ended its requests gets thousands of replies, each once and in order."""
    call = way.channel.unary_stream(path("Down"))(b"%d" % MANY)
    assert [int(message) async for message in call] == list(range(MANY))


async def test_ok_while_the_caller_still_streams(way: Way) -> None:
    """The application may end a call well while its caller goes on sending."""
    call = way.channel.stream_stream(path("Early"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    assert await call.read() is grpc.aio.EOF
    with pytest.raises((asyncio.InvalidStateError, grpc.aio.AioRpcError)):
        await asyncio.wait_for(endless(call), 10)
    assert await call.code() is C.OK


async def endless(call: Any) -> None:
    """Write until it fails."""
    while True:
        await call.write(b"x" * 1000)


async def test_fan_in(way: Way) -> None:
    """A thousand streams at once, each open until the last has been answered."""
    calls = [way.channel.stream_stream(path("Both"))() for _ in range(FAN)]

    async def ask(index: int, call: Any) -> bytes:
        await call.write(b"%d" % index)
        answer: bytes = await call.read()
        return answer

    answers = await asyncio.gather(*(ask(index, call) for index, call in enumerate(calls)))
    assert [int(answer) for answer in answers] == list(range(FAN))
    assert len(way.server.open_calls) == FAN
    await asyncio.gather(*(call.done_writing() for call in calls))
    assert {await call.code() for call in calls} == {C.OK}


@pytest.mark.parametrize("given", [5.0, 999.5, 1001.0, 90_001.0, 3_000_001.0])
async def test_deadlines_only_shrink(way: Way, given: float) -> None:
    """A handler has no more time than its caller gave; behind a sidecar up to gRPC's own rounding of 1 %."""
    await way.channel.unary_unary(path("Unary"))(b"m", timeout=given)
    assert way.app.remaining is not None
    latest = given + 0.002 if way.embedded else given * 1.03
    assert given - 5 < way.app.remaining <= latest
    await way.channel.unary_unary(path("Unary"))(b"m")
    assert way.app.remaining is None


async def test_cancellation_leaves_nothing(way: Way) -> None:
    """Cancelled calls reach their handlers within a second, and leave no task and no open call."""
    assert await way.channel.unary_unary(path("Unary"))(b"m") == b"m"
    before = len(asyncio.all_tasks())
    for kind in (way.channel.unary_unary(path("Wait")), way.channel.unary_stream(path("Wait"))):
        await repeated(way, kind, FEW)
    await eventually(lambda: len(asyncio.all_tasks()) <= before)
    assert not way.server.open_calls


async def repeated(way: Way, kind: Any, times: int) -> None:
    """Make calls and cancel each when its handler runs."""
    for _ in range(times):
        way.app.waiting.clear()
        way.app.cancelled.clear()
        call = kind(b"m")
        await asyncio.wait_for(way.app.waiting.wait(), 5)
        call.cancel()
        await asyncio.wait_for(way.app.cancelled.wait(), 1)
        assert await call.code() is C.CANCELLED
