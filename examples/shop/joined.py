"""A service with the mesh inside, until SIGTERM or SIGINT; it joins by ``MESH_TOKEN`` and ``MESH_AUTH``.

``MESH_LISTEN`` is where other nodes connect, where that is not this machine alone.
"""

import asyncio
import os
import signal
from collections.abc import Callable

import mesh


async def serve_joined(service: str, add: Callable[[mesh.Node], None]) -> None:
    """Join as ``service``, serve what ``add`` adds to the node's server, and leave at a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listen = os.environ.get("MESH_LISTEN", "127.0.0.1:0")
    async with mesh.join(service, listen=listen) as node:
        add(node)
        await node.server().start()
        await stop.wait()
