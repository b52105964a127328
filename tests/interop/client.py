"""The client of the interop cases in Python: an ordinary application, or an embedded node of the mesh.

python -m tests.interop.client --target ADDRESS
python -m tests.interop.client --target SERVICE --join SERVICE --auth ADDRESS  # its token on standard input

It runs every case and prints a line of JSON for each: ``{"case", "error"}``, the error empty if it passed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

import grpc

import mesh
from tests.interop import testing_pb2 as pb
from tests.interop import testing_pb2_grpc as rpc
from tests.interop.server import INITIAL, TRAILING

C = grpc.StatusCode
Stub = Any
Open = Callable[[], AbstractAsyncContextManager[grpc.aio.Channel]]

REQUEST_SIZES: Final = (27182, 8, 1828, 45904)
REPLY_SIZES: Final = (31415, 9, 2653, 58979)
LARGE_REQUEST, LARGE_REPLY = 271828, 314159
SPECIAL: Final = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
SOAKED: Final = 20
METADATA: Final = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\x0a\x0b\x0a\x0b\x0a\x0b"))


def payload(size: int) -> pb.Payload:
    """Give so many zeros."""
    return pb.Payload(body=bytes(size))


def asking(*sizes: int, **more: Any) -> pb.StreamingOutputCallRequest:
    """Ask for messages of these sizes."""
    wanted = [pb.ResponseParameters(size=size) for size in sizes]
    return pb.StreamingOutputCallRequest(response_parameters=wanted, **more)


async def empty_unary(stub: Stub) -> None:
    """Nothing, each way."""
    assert await stub.EmptyCall(pb.Empty()) == pb.Empty()


async def large_unary(stub: Stub) -> None:
    """Send a large message each way."""
    await large(stub)


async def large(stub: Stub, *, compressed: bool = False) -> None:
    """Make one large call."""
    request = pb.SimpleRequest(response_size=LARGE_REPLY, payload=payload(LARGE_REQUEST))
    if compressed:
        request.response_compressed.value = True
    compression = grpc.Compression.Gzip if compressed else None
    reply = await stub.UnaryCall(request, compression=compression)
    assert reply.payload.body == bytes(LARGE_REPLY)


async def client_streaming(stub: Stub, compression: grpc.Compression | None = None) -> None:
    """Many messages out, one in."""
    requests = [pb.StreamingInputCallRequest(payload=payload(size)) for size in REQUEST_SIZES]
    reply = await stub.StreamingInputCall(iter(requests), compression=compression)
    assert reply.aggregated_payload_size == sum(REQUEST_SIZES)


async def server_streaming(stub: Stub, *, compressed: bool = False) -> None:
    """One message out, many in."""
    request = asking(*REPLY_SIZES)
    for wanted in request.response_parameters if compressed else ():
        wanted.compressed.value = True
    replies = [len(reply.payload.body) async for reply in stub.StreamingOutputCall(request)]
    assert replies == list(REPLY_SIZES)


async def ping_pong(stub: Stub) -> None:
    """Each reply before the next request."""
    call: Any = stub.FullDuplexCall()
    for out, back in zip(REQUEST_SIZES, REPLY_SIZES, strict=True):
        await call.write(asking(back, payload=payload(out)))
        assert len((await call.read()).payload.body) == back
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is C.OK


async def empty_stream(stub: Stub) -> None:
    """No message at all."""
    call: Any = stub.FullDuplexCall()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is C.OK


async def compressed_unary(stub: Stub) -> None:
    """Compress a call both ways."""
    await large(stub, compressed=True)


async def compressed_streaming(stub: Stub) -> None:
    """Streams compressed either way."""
    await client_streaming(stub, grpc.Compression.Gzip)
    await server_streaming(stub, compressed=True)


async def custom_metadata(stub: Stub) -> None:
    """Metadata out, and back in both places, unary and streaming."""
    unary: Any = stub.UnaryCall(pb.SimpleRequest(response_size=1, payload=payload(1)), metadata=METADATA)
    assert len((await unary).payload.body) == 1
    stream: Any = stub.FullDuplexCall(metadata=METADATA)
    await stream.write(asking(1, payload=payload(1)))
    assert METADATA[0] in tuple(await stream.initial_metadata())
    assert len((await stream.read()).payload.body) == 1
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    for call in (unary, stream):
        assert METADATA[0] in tuple(await call.initial_metadata())
        assert METADATA[1] in tuple(await call.trailing_metadata())


async def status_code_and_message(stub: Stub) -> None:
    """Get a status as the server says it, unary and streaming."""
    status = pb.EchoStatus(code=2, message="test status message")
    unary: Any = stub.UnaryCall(pb.SimpleRequest(response_status=status))
    stream: Any = stub.FullDuplexCall()
    await stream.write(pb.StreamingOutputCallRequest(response_status=status))
    await stream.done_writing()
    for call in (unary, stream):
        assert (await call.code(), await call.details()) == (C.UNKNOWN, status.message)


async def special_status_message(stub: Stub) -> None:
    """Get a text of blanks, line ends and characters beyond 16 bits."""
    status = pb.EchoStatus(code=2, message=SPECIAL)
    call: Any = stub.UnaryCall(pb.SimpleRequest(response_status=status))
    assert (await call.code(), await call.details()) == (C.UNKNOWN, SPECIAL)


async def unimplemented_method(stub: Stub) -> None:
    """Call a method that is not there."""
    call: Any = stub.UnimplementedCall(pb.Empty())
    assert await call.code() is C.UNIMPLEMENTED


async def cancel_after_begin(stub: Stub) -> None:
    """Cancel a call before it has sent anything."""
    call: Any = stub.StreamingInputCall()
    call.cancel()
    assert await call.code() is C.CANCELLED
    assert call.cancelled()


async def cancel_after_first_response(stub: Stub) -> None:
    """Cancel a call in the middle."""
    call: Any = stub.FullDuplexCall()
    await call.write(asking(REPLY_SIZES[0], payload=payload(REQUEST_SIZES[0])))
    assert len((await call.read()).payload.body) == REPLY_SIZES[0]
    call.cancel()
    assert await call.code() is C.CANCELLED


async def timeout_on_sleeping_server(stub: Stub) -> None:
    """Set a deadline that is too short."""
    call: Any = stub.FullDuplexCall(timeout=0.001)
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may be over even before that
        await call.write(pb.StreamingOutputCallRequest(payload=payload(REQUEST_SIZES[0])))
    assert await call.code() is C.DEADLINE_EXCEEDED


async def rpc_soak(stub: Stub) -> None:
    """Many large calls, one after the other."""
    for _ in range(SOAKED):
        await large(stub)


CASES: Final[tuple[Callable[[Stub], Awaitable[None]], ...]] = (
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    compressed_unary,
    compressed_streaming,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    rpc_soak,
)


async def unimplemented_service(channel: grpc.aio.Channel) -> None:
    """Call a service that is not there."""
    call: Any = rpc.UnimplementedServiceStub(channel).UnimplementedCall(pb.Empty())
    assert await call.code() is C.UNIMPLEMENTED


async def channel_soak(opened: Open) -> None:
    """Many large calls, each on a channel of its own."""
    for _ in range(SOAKED):
        async with opened() as channel:
            await large(rpc.TestServiceStub(channel))


async def run(opened: Open) -> None:
    """Run every case."""
    async with opened() as channel:
        stub = rpc.TestServiceStub(channel)
        for case in CASES:
            await tell(case.__name__, case(stub))
        await tell("unimplemented_service", unimplemented_service(channel))
    await tell("channel_soak", channel_soak(opened))


async def tell(case: str, running: Awaitable[None]) -> None:
    """Wait for a case and print what came of it."""
    error = ""
    try:
        await asyncio.wait_for(running, 20)
    except Exception as failed:  # noqa: BLE001  whatever it is, it is the result
        error = f"{failed!r:.500}"
    print(json.dumps({"case": case, "error": error}), flush=True)  # noqa: T201  the one thing that others read


async def main(arguments: argparse.Namespace) -> None:
    """Run every case over the way asked for."""
    if arguments.join:
        token = sys.stdin.readline().strip()
        async with mesh.join(arguments.join, token=token, auth=arguments.auth) as node:
            await run(lambda: node.channel(arguments.target))
        return

    @asynccontextmanager
    async def plain() -> Any:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(arguments.target, options) as channel:
            yield channel

    await run(plain)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--join")
    parser.add_argument("--auth")
    asyncio.run(main(parser.parse_args()))
