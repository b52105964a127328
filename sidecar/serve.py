"""A sidecar as a process of its own: ``mesh sidecar``, ``python -m sidecar``.

Once it is in the mesh it says where it is found, as one line of JSON on stdout, and then serves until SIGTERM
or SIGINT. It then drains; a second signal ends what is still in progress. SIGUSR1 has it leave
the directory, and serve on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

from mesh.descriptors import allow_many
from sidecar.sidecar import Settings, sidecar


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises what ``sidecar`` raises, and what makes a part of it fail."""
    allow_many()
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(_serve(settings))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve(settings: Settings) -> None:
    async with sidecar(settings) as running:
        ready = {
            "service": settings.service,
            "instance": str(running.node.instance),
            "run_dir": str(running.run_dir),
            "outbound": f"127.0.0.1:{running.outbound_port}",
            "inbound_port": running.inbound_port,
        }
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, running.drain)
        print(json.dumps(ready), flush=True)  # noqa: T201  the one thing that others read of it
        await running.failed()
        await asyncio.get_running_loop().create_future()
