"""Calls between plain gRPC applications through two sidecars: whole both ways, whatever becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually, reason_of
from tests.rpc.http2 import Http2, grpc_message, headers
from tests.sidecar.beside import MAX_MESSAGE, Beside, to

C = grpc.StatusCode
WAYS = pytest.mark.parametrize("way", ["socket", "port"])


@WAYS
async def test_all_four_kinds(beside: Beside, way: str) -> None:
    """Messages arrive as they are, in order, in all four kinds of calls."""
    channel, metadata = beside.channel(way), to(way)
    assert await channel.unary_unary(path("Unary"))(b"m", metadata=metadata) == b"m"
    assert await channel.unary_unary(path("Unary"))(b"", metadata=metadata) == b""
    down = channel.unary_stream(path("Down"))(b"3", metadata=metadata)
    assert [m async for m in down] == [b"0", b"1", b"2"]
    assert [m async for m in channel.unary_stream(path("Down"))(b"0", metadata=metadata)] == []
    assert await channel.stream_unary(path("Up"))(iter([b"a", b"", b"c"]), metadata=metadata) == b"a,,c"
    assert await channel.stream_unary(path("Up"))(iter([]), metadata=metadata) == b""
    call = channel.stream_stream(path("Both"))(metadata=metadata)
    for index in range(5):
        await call.write(b"%d" % index)
        assert await call.read() == b"%d" % index
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert (await call.code(), beside.echo.ends) == (C.OK, 3)


@WAYS
async def test_metadata(beside: Beside, way: str) -> None:
    """Metadata of all sorts passes both ways: binary, repeated, empty; the app hears who calls."""
    sent = (("x-a", "1"), ("x-a", "2,3"), ("x-empty", ""), ("x-b-bin", b"\0\xff"), ("x-empty-bin", b""))
    call = beside.channel(way).unary_unary(path("Meta"))(b"m", metadata=(*sent, *to(way)))
    assert await call == b"m"
    (seen,) = beside.echo.metadata
    assert sorted(e for e in seen if e[0].startswith("x-")) == sorted(sent)
    assert [e for e in seen if e[0].startswith("mesh-")] == [("mesh-peer", "spiffe://test.example/caller")]
    assert sorted(await call.initial_metadata()) == sorted(sent)
    assert sorted(await call.trailing_metadata()) == sorted((("x-trailing", "t"), *sent))


async def test_initial_metadata_comes_before_any_message(beside: Beside) -> None:
    """An application that sends initial metadata and then waits is heard at once."""
    call = beside.channel("socket").stream_stream(path("Hold"))()
    await call.write(b"a")
    assert await asyncio.wait_for(call.read(), 5) == b"a"
    assert list(await asyncio.wait_for(call.initial_metadata(), 5)) == []
    call.cancel()


class Failing(grpc.GenericRpcHandler):
    """An application that fails as richly as gRPC allows."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Find the handler."""

        async def unary(_request: bytes, context: Any) -> bytes:
            await context.abort(C.FAILED_PRECONDITION, "nö\n%41 ✓", (*RICH, ("x-why", "because")))
            return b""

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request
            await context.abort(C.DATA_LOSS, "nö", RICH)

        if details.method == path("Unary"):
            return grpc.unary_unary_rpc_method_handler(unary)
        return grpc.stream_stream_rpc_method_handler(stream)


RICH = (
    (
        "grpc-status-details-bin",
        status_pb2.Status(code=9, message="ö" * 4096).SerializeToString(),
    ),
)


@WAYS
async def test_rich_errors(beside: Beside, way: str) -> None:
    """Errors keep code, text of any alphabet, metadata, and 8 KB of details; messages before them arrive."""
    assert beside.app is not None
    await beside.app.stop(None)
    beside.app = grpc.aio.server()
    beside.app.add_generic_rpc_handlers((Failing(),))
    beside.app.add_insecure_port(f"127.0.0.1:{beside.app_port}")
    await beside.app.start()
    channel = beside.channel(way)
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path("Unary"))(b"m", metadata=to(way), wait_for_ready=True)
        if caught.value.code() is not C.UNAVAILABLE:
            break  # the sidecar's connection to its application is back
    assert caught.value.code() is C.FAILED_PRECONDITION
    assert caught.value.details() == "nö\n%41 ✓"
    assert set(caught.value.trailing_metadata()) == {*RICH, ("x-why", "because")}
    call = channel.stream_stream(path("Stream"))(iter([b"a", b"b"]), metadata=to(way))
    assert [await call.read(), await call.read()] == [b"a", b"b"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (C.DATA_LOSS, "nö")
    assert set(caught.value.trailing_metadata()) == set(RICH)


async def test_unknown_methods(beside: Beside) -> None:
    """What the application does not serve is its own UNIMPLEMENTED."""
    with pytest.raises(grpc.aio.AioRpcError, match="Method not found") as caught:
        await beside.channel("socket").unary_unary(path("Nothing"))(b"")
    assert caught.value.code() is C.UNIMPLEMENTED


@WAYS
async def test_deadlines(beside: Beside, way: str) -> None:
    """A deadline goes all the way, shrinks on it, and ends the call everywhere."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await beside.channel(way).unary_unary(path("Wait"))(b"", metadata=to(way), timeout=0.4)
    assert caught.value.code() is C.DEADLINE_EXCEEDED
    await asyncio.wait_for(beside.echo.cancelled.wait(), 5)
    assert beside.echo.remaining is not None
    assert 0 < beside.echo.remaining <= 0.4
    await eventually(lambda: not beside.callee.server().open_calls)


@WAYS
async def test_cancellation_by_the_caller(beside: Beside, way: str) -> None:
    """A caller that cancels ends the far application's handler, and no stream of it looks whole."""
    channel, echo = beside.channel(way), beside.echo
    call: Any = channel.unary_unary(path("Wait"))(b"", metadata=to(way))
    await asyncio.wait_for(echo.waiting.wait(), 5)
    call.cancel()
    await asyncio.wait_for(echo.cancelled.wait(), 5)
    echo.seen.clear()
    for method in ("Up", "Both"):
        call = getattr(channel, "stream_unary" if method == "Up" else "stream_stream")(path(method))(
            metadata=to(way)
        )
        await call.write(b"a")
        await call.write(b"b")
        await eventually(lambda: len(echo.seen) == 2)
        call.cancel()
        await eventually(lambda: not beside.callee.server().open_calls)
        echo.seen.clear()
    assert beside.callee.rejected == []


async def test_a_caller_whose_connection_breaks(beside: Beside) -> None:
    """A caller that dies in mid-stream leaves nothing open, and its stream does not look whole."""
    line = await Http2.unix(beside.socket)
    await line.start()
    await line.request(headers(path("Hold").encode()), grpc_message(b"a"), end=False)
    await asyncio.wait_for(beside.echo.waiting.wait(), 5)
    await line.close()
    await asyncio.wait_for(beside.echo.cancelled.wait(), 5)
    await eventually(lambda: not beside.callee.server().open_calls)
    assert (beside.echo.seen, beside.echo.ends) == ([b"a"], 0)


async def test_an_early_end(beside: Beside) -> None:
    """An application may end a call well while its caller still streams."""
    call = beside.channel("socket").stream_stream(path("Early"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    assert await call.read() == grpc.aio.EOF
    assert await call.code() is C.OK


async def test_app_down(beside: Beside) -> None:
    """While the application is down its callers get UNAVAILABLE, and it is found again when it is back."""
    channel = beside.channel("socket")
    assert beside.app is not None
    await beside.app.stop(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path("Unary"))(b"m")
    assert caught.value.code() is C.UNAVAILABLE
    await beside.start_app()

    async def back() -> bool:
        call = channel.unary_unary(path("Unary"))(b"m")
        return await call.code() is C.OK

    async with asyncio.timeout(10):
        while not await back():
            pass
    assert beside.callee.rejected == []


async def test_app_dies_in_mid_stream(beside: Beside) -> None:
    """A stream whose application dies ends with an error."""
    call = beside.channel("socket").stream_stream(path("Hold"))()
    await call.write(b"a")
    assert await call.read() == b"a"
    assert beside.app is not None
    await beside.app.stop(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 5)
    assert caught.value.code() in (C.UNAVAILABLE, C.CANCELLED, C.UNKNOWN)
    await eventually(lambda: not beside.callee.server().open_calls)


@pytest.mark.parametrize("key", ["mesh-peer", "mesh-call-bin", "mesh-x", "mesh-to"])
async def test_mesh_metadata_from_the_calling_app(beside: Beside, key: str) -> None:
    """Keys of the mesh are refused from the calling application, by name, before anything is sent."""
    value: Any = b"x" if key.endswith("-bin") else "callee"
    with pytest.raises(grpc.aio.AioRpcError, match=key) as caught:
        await beside.channel("socket").unary_unary(path("Unary"))(b"m", metadata=((key, value),))
    assert caught.value.code() is C.INVALID_ARGUMENT
    assert reason_of(caught.value.trailing_metadata())[0] == "BAD_REQUEST"
    assert beside.echo.calls == []


@pytest.mark.parametrize("where", ["initial", "trailing", "error"])
async def test_mesh_metadata_from_the_called_app(beside: Beside, where: str) -> None:
    """Keys of the mesh are refused from the called application too: its caller gets an error that says so."""

    class Forger(Echo):
        async def unary(self, request: bytes, context: Any) -> bytes:
            forged = (("mesh-end-bin", b"x"), ("mesh-peer", "boss"))
            if where == "initial":
                await context.send_initial_metadata(forged)
            elif where == "trailing":
                context.set_trailing_metadata(forged)
            else:
                await context.abort(C.ABORTED, "no", forged)
            return request

    assert beside.app is not None
    beside.app.add_generic_rpc_handlers((Forger(),))
    beside.echo.__class__ = Forger
    with pytest.raises(grpc.aio.AioRpcError, match="mesh-") as caught:
        await beside.channel("socket").unary_unary(path("Unary"))(b"m")
    assert caught.value.code() is C.INTERNAL
    assert all(not key.startswith("mesh-") for key, _ in caught.value.trailing_metadata())


@pytest.mark.parametrize(
    "named", [(), ("callee", "callee"), ("callee", "other"), ("Callee",), ("",), ("../callee",), ("callee ",)]
)
async def test_bad_mesh_to(beside: Beside, named: tuple[str, ...]) -> None:
    """The port wants one name, and a good one."""
    metadata = tuple(("mesh-to", name) for name in named)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await beside.channel("port").unary_unary(path("Unary"))(b"m", metadata=metadata)
    assert caught.value.code() is C.INVALID_ARGUMENT
    assert reason_of(caught.value.trailing_metadata())[0] == "BAD_REQUEST"
    assert beside.echo.calls == []


@pytest.mark.parametrize("name", ["c\u0430llee", "\uff43allee", "callee\u200b", "calle\u0435"])
async def test_look_alikes_in_mesh_to(beside: Beside, name: str) -> None:
    """A name that only looks like a permitted one goes nowhere, though an HTTP/2 client sends its bytes."""
    line = await Http2.connect(beside.port, None)
    await line.start()
    sent = headers(path("Unary").encode(), (b"mesh-to", name.encode()))
    stream = await line.request(sent, grpc_message(b"m"))
    answer = await line.response(stream)
    assert answer is None or answer[b"grpc-status"] not in (None, b"0")
    await line.close()
    assert beside.echo.calls == []


async def test_names_that_are_not_to_be_known(beside: Beside) -> None:
    """Unknown, forbidden and reserved names are told apart by nothing in the answer."""
    answers = set()
    for name in ("nobody", "other", "caller", "mesh.auth", "mesh.gatekeeper", "mesh.nothing"):
        call = beside.channel("port").unary_unary(path("Unary"))(b"m", metadata=(("mesh-to", name),))
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        trailing = tuple(await call.trailing_metadata())
        answers.add((await call.code(), await call.details(), trailing, tuple(await call.initial_metadata())))
    ((code, _, trailing, _),) = answers
    assert (code, reason_of(trailing)[0]) == (C.NOT_FOUND, "NAME_UNAVAILABLE")


@pytest.mark.parametrize("size", [MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1])
async def test_sizes(beside: Beside, size: int) -> None:
    """A sidecar carries messages up to its limit, both ways, and says so of larger ones."""
    call = beside.channel("socket").unary_unary(path("Unary"))(b"x" * size)
    if size <= MAX_MESSAGE:
        assert await call == b"x" * size
    else:
        assert await call.code() is C.RESOURCE_EXHAUSTED


async def test_denied(beside: Beside) -> None:
    """A call that policy denies does not reach the application, and the caller learns why it failed."""
    beside.callee.know({}, b'{"allow":[{"principals":["other"],"paths":["*"]}]}')
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await beside.channel("socket").unary_unary(path("Unary"))(b"m")
    assert caught.value.code() is C.PERMISSION_DENIED
    reason, call_id = reason_of(caught.value.trailing_metadata())
    assert (reason, call_id) == ("POLICY_DENIED", beside.callee.rejected[0].id)
    assert beside.echo.calls == []


async def test_a_change_of_policy_ends_what_is_relayed(beside: Beside) -> None:
    """An open stream through both sidecars ends on both sides when policy forbids it."""
    call = beside.channel("socket").stream_stream(path("Hold"))()
    await call.write(b"a")
    assert await call.read() == b"a"
    beside.callee.know({}, b"{}")
    beside.callee.server().recheck()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 5)
    assert reason_of(caught.value.trailing_metadata())[0] == "POLICY_DENIED"
    await asyncio.wait_for(beside.echo.cancelled.wait(), 5)
    assert beside.echo.ends == 0


@pytest.mark.parametrize("method", ["Wait", "Down", "Stuck", "Both", "Hold"])
async def test_every_kind_of_call_ends_with_the_policy(beside: Beside, method: str) -> None:
    """Through both sidecars, whether the caller waits, reads too slowly, or is stuck in sending."""
    channel, writing = beside.channel("socket"), None
    call: Any
    if method == "Wait":
        call = channel.unary_unary(path(method))(b"m")
        await beside.echo.waiting.wait()
    elif method == "Down":
        call = channel.unary_stream(path(method))(b"1000000")
        assert await call.read() == b"0"
    else:
        call = (channel.stream_unary if method == "Stuck" else channel.stream_stream)(path(method))()
        await call.write(b"m")
        if method != "Stuck":
            assert await call.read() == b"m"
        if method != "Both":
            await beside.echo.waiting.wait()
            writing = asyncio.ensure_future(_flood(call))
    beside.callee.know({}, b"{}")
    beside.callee.server().recheck()
    while method == "Down" and await asyncio.wait_for(_next(call), 5):
        pass
    assert await asyncio.wait_for(call.code(), 5) is C.PERMISSION_DENIED
    assert reason_of(await call.trailing_metadata())[0] == "POLICY_DENIED"
    if writing is not None:
        with pytest.raises(grpc.aio.InternalError):
            await asyncio.wait_for(writing, 5)
    await eventually(lambda: not beside.callee.server().open_calls)


async def _next(call: Any) -> bool:
    try:
        return await call.read() is not grpc.aio.EOF
    except grpc.aio.AioRpcError:
        return False


async def _flood(call: Any) -> None:
    # The plain client's own write() replaces the status by INTERNAL where it loses the race with it.
    while True:
        await call._cython_call.send_serialized_message(bytes(64 * 1024))


async def test_backpressure(beside: Beside) -> None:
    """A caller that does not read slows its application down, and gets every message when it does."""
    call = beside.channel("socket").unary_stream(path("Down"))(b"3000")
    assert await call.read() == b"0"
    rest = [message async for message in _rest(call)]
    assert rest == [b"%d" % index for index in range(1, 3000)]


async def _rest(call: Any) -> AsyncIterator[bytes]:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message
