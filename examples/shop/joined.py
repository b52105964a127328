"""A service with the mesh inside, until SIGTERM or SIGINT; it joins by ``MESH_TOKEN`` and ``MESH_AUTH``."""

import asyncio
import signal
from collections.abc import Callable

import mesh


async def serve_joined(service: str, add: Callable[[mesh.Node], None]) -> None:
    """Join as ``service``, serve what ``add`` adds to the node's server, and leave at a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with mesh.join(service) as node:
        add(node)
        await node.server().start()
        await stop.wait()
