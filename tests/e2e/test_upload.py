"""An upload that its server does not read: it waits, and nobody on the way holds it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.e2e.process import Process, until
from tests.e2e.world import HOST, Mesh, appears

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB: Final = 1 << 20
CHUNK: Final = bytes(64 * 1024)
CHUNKS: Final = (1024 * MIB) // len(CHUNK)
#: What either sidecar may hold of it.
HELD: Final = 32 * MIB
#: An upload that has not moved in these many seconds is held up.
STILL: Final = 2.0


class Busy(grpc.GenericRpcHandler):
    """An application that takes one message, and the rest when it is told to."""

    def __init__(self) -> None:
        """Tell when the first message is there."""
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Find the handler."""
        return grpc.stream_unary_rpc_method_handler(self.upload)

    async def upload(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        """Count what comes."""
        taken = 0
        async for request in requests:
            taken += len(request)
            self.began.set()
            await self.go_on.wait()
        return b"%d" % taken


def resident(process: Process) -> int:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


async def test_a_server_that_stops_reading(shared: Mesh) -> None:
    """A gigabyte is held up at its sender, not in the sidecars, and goes on when the server does."""
    busy, app = Busy(), grpc.aio.server()
    app.add_generic_rpc_handlers((busy,))
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    sidecars = [await shared.sidecar("front"), await shared.sidecar("back", "--app-port", str(port))]
    front, back = sidecars
    await appears(front.socket("back"))
    async with front.channel("back") as channel:
        warm: Any = channel.stream_unary("/test.v1.Upload/Warm")
        busy.go_on.set()

        async def works() -> None:
            while await warm(iter([CHUNK] * 64)).code() is not grpc.StatusCode.OK:
                pass

        await asyncio.wait_for(works(), 20)
        busy.go_on.clear()
        busy.began.clear()
        before = [resident(one.process) for one in (front, back)]
        call: Any = channel.stream_unary("/test.v1.Upload/Upload")()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for sent in range(1, CHUNKS + 1):  # noqa: B007
                await call.write(CHUNK)

        sending = asyncio.create_task(send())
        await asyncio.wait_for(busy.began.wait(), 20)
        last, since = -1, 0.0
        loop = asyncio.get_running_loop()

        def still() -> bool:
            nonlocal last, since
            if sent != last:
                last, since = sent, loop.time()
            return loop.time() - since > STILL

        await until(still, "the upload to be held up")
        grown = [resident(one.process) - was for one, was in zip((front, back), before, strict=True)]
        assert max(grown) < HELD, grown
        assert sent < CHUNKS // 2
        there = sent
        busy.go_on.set()
        await until(lambda: sent > there + 1000, "the upload to go on")
        assert max(resident(one.process) - was for one, was in zip((front, back), before, strict=True)) < HELD
        call.cancel()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    for one in sidecars:
        await one.process.stop()
    await app.stop(None)
