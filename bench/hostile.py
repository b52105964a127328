"""So many services whose scripts are hostile, each called again and again: ``python -m bench.hostile COUNT``.

Says on one line of JSON when all of them run, and ends when its standard input does. Their log lines and the
host's warnings about them are dropped.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bench.load import payload
from mesh.core.names import FullMethod
from services.lua_host.bundle import Bundle
from services.lua_host.outside import OutgoingCall
from services.lua_host.rehearsal import Stage, rehearse

HOSTILE: Final = Path(__file__).parent / "lua_hostile"
_METHOD: Final = FullMethod("/bench.Echo/Echo")


class Nobody:
    """An outside without anybody."""

    async def call(self, _call: OutgoingCall) -> AsyncGenerator[bytes]:
        """Answer nothing."""
        for reply in list[bytes]():
            yield reply


async def main(count: int) -> None:
    """Run them until the end of standard input."""
    logging.disable()
    bundle = Bundle.load(HOSTILE)
    async with AsyncExitStack() as stack:
        stages = [await stack.enter_async_context(rehearse(bundle, Nobody())) for _ in range(count)]
        tasks = [asyncio.create_task(_call(stage, number)) for number, stage in enumerate(stages)]
        print(json.dumps({"services": count}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _call(stage: Stage, number: int) -> None:
    while True:
        await stage.call(_METHOD, payload(10 + number))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
