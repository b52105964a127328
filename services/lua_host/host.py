"""Many Lua services in one process: each with workers, an identity and keys of its own.

They share nothing but this process and its event loop. One that cannot start, or stops, is said so and does
not take the others along, unless there are none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from services.lua_host.member import Member, Settings, member

log = logging.getLogger("mesh.lua")


class NoneLeftError(Exception):
    """None of several services could go on; the log has said why of each."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("none of the services runs any more: see what was said of each")


async def host(services: Sequence[Settings], ready: Callable[[Member], None]) -> None:
    """Run services until cancelled; call ``ready`` with each that is in the mesh.

    Raises what ``member`` raises if there is one service, ``NoneLeftError`` once none of several is left.
    """
    running = {asyncio.create_task(_run(one, ready)): one for one in services}
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                settings = running.pop(task)
                if len(services) == 1:
                    task.result()
                log.error("%s is not served any more: %s", settings.bundle.manifest.name, task.exception())
        raise NoneLeftError
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _run(settings: Settings, ready: Callable[[Member], None]) -> None:
    async with member(settings) as running:
        if not settings.jailed:
            log.warning(
                "%s RUNS WITHOUT A JAIL: whoever wrote its script owns this process", running.service.name
            )
        ready(running)
        await asyncio.get_running_loop().create_future()
