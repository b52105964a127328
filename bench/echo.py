"""The server of every variant: gives back what it got, as bytes.

``python -m bench.echo`` serves in plaintext on a free loopback port; with ``--join SERVICE`` it serves as an
embedded node (``MESH_TOKEN_FILE`` and ``MESH_AUTH`` say how to join). It says on one line of JSON where it
listens, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Final

import grpc
import grpc.aio

METHOD: Final = "/bench.Echo/Echo"
STREAM: Final = "/bench.Echo/Stream"


async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Answer with the request."""
    del context
    return request


async def stream(_requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    """Answer each message of a stream with itself."""
    while isinstance(request := await context.read(), bytes):
        await context.write(request)


async def serve(service: str | None) -> None:
    """Serve until the end of standard input."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    handler = grpc.method_handlers_generic_handler("bench.Echo", methods)
    async with AsyncExitStack() as stack:
        if service:
            from bench.joined import joined  # noqa: PLC0415  the direct variant must not pay for it

            node = await stack.enter_async_context(joined(service))
            server: grpc.aio.Server = node.server()
            port = node.server().port
        else:
            server = grpc.aio.server()
            port = server.add_insecure_port("127.0.0.1:0")
        server.add_generic_rpc_handlers((handler,))
        await server.start()
        print(json.dumps({"port": port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--join", metavar="SERVICE")
    asyncio.run(serve(parser.parse_args().join))
