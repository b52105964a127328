"""An ordinary gRPC server at a local address, until SIGTERM or SIGINT."""

import asyncio
import signal
from collections.abc import Callable

import grpc


async def serve(address: str, add: Callable[[grpc.aio.Server], None]) -> None:
    """Serve what ``add`` adds to a server at ``address`` (host:port or unix:/path); end calls on a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server()
    add(server)
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(grace=0.5)
