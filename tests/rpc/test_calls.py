"""All four kinds of calls between two members: what gRPC promises holds, sealed."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc
from tests.rpc.app import Echo, path
from tests.rpc.pair import World


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 70_000, 1 << 20])
async def test_unary(channel: MeshChannel, app: Echo, size: int) -> None:
    """A message of any size comes back as it was."""
    assert await channel.unary_unary(path("Unary"))(b"x" * size) == b"x" * size
    assert app.seen == [b"x" * size]


async def test_streams(channel: MeshChannel) -> None:
    """Streams carry every message in order, whichever way they are read and written."""
    assert [m async for m in channel.unary_stream(path("Down"))(b"3")] == [b"0", b"1", b"2"]
    assert [m async for m in channel.unary_stream(path("DownWrite"))(b"3")] == [b"0", b"1", b"2"]
    assert [m async for m in channel.unary_stream(path("Down"))(b"0")] == []
    assert await channel.stream_unary(path("Up"))(iter([b"a", b"", b"c"])) == b"a,,c"
    call = channel.stream_stream(path("Both"))()
    for index in range(5):
        await call.write(b"%d" % index)
        assert await call.read() == b"%d" % index
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_request_stream(channel: MeshChannel) -> None:
    """A stream without a message is a stream."""
    assert await channel.stream_unary(path("Up"))(iter([])) == b""
    assert [m async for m in channel.stream_stream(path("Both"))(iter([]))] == []


async def test_metadata_everywhere(channel: MeshChannel) -> None:
    """Metadata of all sorts arrives and comes back, initial and trailing."""
    sent = (("x-text", "a,b"), ("x-text", "c"), ("x-some-bin", b"\0\1"), ("x-empty-bin", b""))
    call = channel.unary_unary(path("Meta"))(b"m", metadata=sent)
    assert await call == b"m"
    assert sorted(await call.initial_metadata()) == sorted(sent)
    assert sorted(await call.trailing_metadata()) == sorted((("x-trailing", "t"), *sent))
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")


async def test_errors_keep_code_text_and_metadata(channel: MeshChannel) -> None:
    """An application's error reaches its caller whole."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path("Abort"))(b"")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "nö\n%41 ✓"
    assert set(caught.value.trailing_metadata()) == {("x-why", "because"), ("x-bin", b"\0\xff")}
    with pytest.raises(grpc.aio.AioRpcError, match="lost") as caught:
        await channel.unary_unary(path("SetCode"))(b"")
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    with pytest.raises(grpc.aio.AioRpcError, match="Unexpected <class 'KeyError'>") as caught:
        await channel.unary_unary(path("Raise"))(b"")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


async def test_unknown_method(channel: MeshChannel) -> None:
    """A method that nobody serves is UNIMPLEMENTED, under seal."""
    with pytest.raises(grpc.aio.AioRpcError, match="is not served here") as caught:
        await channel.unary_unary(path("Nothing"))(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [m async for m in channel.stream_stream(path("Nothing"))(iter([b"a", b"b"]))]
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_error_after_messages(channel: MeshChannel) -> None:
    """Messages sent before an error arrive before it."""
    call = channel.unary_stream(path("DownFail"))(b"2")
    assert [await call.read(), await call.read()] == [b"0", b"1"]
    with pytest.raises(grpc.aio.AioRpcError, match="enough"):
        await call.read()


async def test_ok_while_the_caller_streams(channel: MeshChannel) -> None:
    """A server may end a call well while its caller still streams."""
    call = channel.stream_stream(path("Early"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    assert await call.read() == grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"two")


async def test_deadline(channel: MeshChannel, app: Echo) -> None:
    """A deadline ends the call on both sides, and the handler knows it beforehand."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path("Wait"))(b"", timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(app.cancelled.wait(), 2)
    assert app.remaining is not None
    assert 0 < app.remaining <= 0.3


async def test_cancellation_reaches_the_handler(channel: MeshChannel, app: Echo) -> None:
    """Cancelling a call cancels its handler."""
    call = channel.unary_unary(path("Wait"))(b"")
    await app.waiting.wait()
    assert call.cancel()
    await asyncio.wait_for(app.cancelled.wait(), 2)
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancelling_the_waiter_cancels_the_call(channel: MeshChannel, app: Echo) -> None:
    """A task that waits for a call takes the call with it."""
    call = channel.unary_unary(path("Wait"))(b"")
    task = asyncio.ensure_future(asyncio.wait_for(call, 60))
    await app.waiting.wait()
    task.cancel()
    await asyncio.wait_for(app.cancelled.wait(), 2)
    assert call.cancelled()


async def test_peer_is_known(channel: MeshChannel) -> None:
    """A handler knows its verified caller."""
    assert await channel.unary_unary(path("Peer"))(b"") == b"caller"


async def test_mesh_metadata_is_refused_from_applications(channel: MeshChannel, app: Echo) -> None:
    """A key of the mesh's own is refused where it is sent, by name."""
    with pytest.raises(grpc.aio.AioRpcError, match="mesh-peer") as caught:
        await channel.unary_unary(path("Unary"))(b"", metadata=(("mesh-peer", "spiffe://test.example/boss"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert app.seen == []


async def test_a_method_that_a_servicer_leaves_out(world: World, caller: Membership) -> None:
    """A service may be served in part, as protoc's classes are made for; the rest is UNIMPLEMENTED."""

    class Partly(gatekeeper_pb2_grpc.GatekeeperServiceServicer):
        pass

    other = world.member("other")
    server = world.serve(other)
    gatekeeper_pb2_grpc.add_GatekeeperServiceServicer_to_server(Partly(), server)  # type: ignore[abstract]
    await server.start()
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(world.channel(caller, "other"))
    unary = stub.Authorize(gatekeeper_pb2.AuthorizeRequest())
    stream = stub.Watch(iter([gatekeeper_pb2.WatchRequest()]))
    for call in (unary, stream):
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(None)
