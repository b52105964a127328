"""The server of the interop cases in Python: an ordinary application, or an embedded node of the mesh.

python -m tests.interop.server --port PORT
python -m tests.interop.server --join SERVICE --auth ADDRESS     # its token on standard input
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc

import mesh
from mesh.rpc.connections import MAX_MESSAGE
from tests.interop import testing_pb2 as pb
from tests.interop import testing_pb2_grpc as rpc

INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Service(rpc.TestServiceServicer):
    """Does what the descriptions of the cases ask."""

    async def EmptyCall(self, request: pb.Empty, context: Any) -> pb.Empty:  # noqa: N802  the proto's
        """Answer nothing."""
        del context
        return request

    async def UnaryCall(self, request: pb.SimpleRequest, context: Any) -> pb.SimpleResponse:  # noqa: N802
        """Answer as many bytes as were asked for."""
        await echo_metadata(context)
        await end_with(request.response_status, context)
        compress(context, wanted=request.response_compressed.value)
        return pb.SimpleResponse(payload=payload(request.response_size))

    async def StreamingOutputCall(  # noqa: N802
        self, request: pb.StreamingOutputCallRequest, context: Any
    ) -> AsyncIterator[pb.StreamingOutputCallResponse]:
        """Answer as many messages as were asked for."""
        compress(context, wanted=any(p.compressed.value for p in request.response_parameters))
        async for reply in answers(request, context):
            yield reply

    async def StreamingInputCall(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamingInputCallRequest], context: Any
    ) -> pb.StreamingInputCallResponse:
        """Count."""
        del context
        return pb.StreamingInputCallResponse(
            aggregated_payload_size=sum([len(request.payload.body) async for request in requests])
        )

    async def FullDuplexCall(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamingOutputCallRequest], context: Any
    ) -> AsyncIterator[pb.StreamingOutputCallResponse]:
        """Answer each request when it comes."""
        await echo_metadata(context)
        async for request in requests:
            await end_with(request.response_status, context)
            async for reply in answers(request, context):
                yield reply


async def answers(
    request: pb.StreamingOutputCallRequest, context: Any
) -> AsyncIterator[pb.StreamingOutputCallResponse]:
    """Give the messages that one request asks for."""
    for wanted in request.response_parameters:
        if wanted.HasField("compressed") and not wanted.compressed.value:
            context.disable_next_message_compression()
        await asyncio.sleep(wanted.interval_us / 1e6)
        yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))


async def echo_metadata(context: Any) -> None:
    """Send back what the caller wants to see again."""
    sent = dict(tuple(context.invocation_metadata()))
    if INITIAL in sent:
        await context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
    if TRAILING in sent:
        context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))


async def end_with(status: pb.EchoStatus, context: Any) -> None:
    """End the call if it is to end with an error."""
    if status.code:
        await context.abort(CODES[status.code], status.message)


def compress(context: Any, *, wanted: bool) -> None:
    """Compress all replies, if wanted."""
    if wanted:
        context.set_compression(grpc.Compression.Gzip)


def payload(size: int) -> pb.Payload:
    """Give so many zeros."""
    return pb.Payload(body=bytes(size))


async def main(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    async with AsyncExitStack() as stack:
        server: Any
        if arguments.join:
            token = sys.stdin.readline().strip()
            node = await stack.enter_async_context(
                mesh.join(arguments.join, token=token, auth=arguments.auth)
            )
            server = node.server((("grpc.max_receive_message_length", MAX_MESSAGE),))
        else:
            server = grpc.aio.server()
            server.add_insecure_port(f"127.0.0.1:{arguments.port}")
        rpc.add_TestServiceServicer_to_server(Service(), server)  # type: ignore[abstract]
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--join")
    parser.add_argument("--auth")
    asyncio.run(main(parser.parse_args()))
