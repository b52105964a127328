"""``python -m bench.counted``: how many Python functions a call takes, whatever else the machine does.

Client, server and what is between them are in this one process, as the tests have them, so a figure is of all
of it together: a call without the mesh, between embedded nodes, and by way of two sidecars. What runs by the
clock beside the calls (a listener's look at its connections) is in it, too: some three in a hundred. Runs
with the tests' dependencies. ``--by N`` names the N functions called most.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import grpc
import grpc.aio

from bench.load import payload
from tests.rpc.app import Echo, path
from tests.rpc.pair import World
from tests.sidecar.beside import Beside

CALLS: Final = 300
WARM: Final = 20
MESSAGE: Final = payload(100)

Work = Callable[[int], Awaitable[None]]


class Count:
    """Functions of Python and of C called, and tasks made, while it is ``running``."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.python: Counter[str] = Counter()
        self.native = self.tasks = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count in this thread."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._task)
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            loop.set_task_factory(None)

    def _event(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            code = frame.f_code
            self.python[f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"] += 1
        elif event == "c_call":
            self.native += 1

    def _task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        self.tasks += 1
        return asyncio.Task(coroutine, loop=loop, **more)


def unary(channel: grpc.aio.Channel) -> Work:
    """Give what makes so many calls of one message each way."""
    call: Any = channel.unary_unary(path("Unary"))

    async def work(count: int) -> None:
        for _ in range(count):
            await call(MESSAGE, timeout=10)

    return work


def streamed(channel: grpc.aio.Channel) -> Work:
    """Give what sends so many messages in one stream, each of which is answered before the next."""
    call: Any = channel.stream_stream(path("Both"))

    async def work(count: int) -> None:
        stream = call(timeout=60)
        for _ in range(count):
            await stream.write(MESSAGE)
            await stream.read()
        await stream.done_writing()
        await stream.read()

    return work


@asynccontextmanager
async def channels(run_dir: Path) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """Give a way to an application in each of the variants."""
    beside, world = Beside(World(), run_dir, Echo()), World()
    await beside.start()
    server = world.serve(world.member("callee"))
    server.add_generic_rpc_handlers((Echo(),))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{beside.app_port}") as direct:
        yield {
            "direct": direct,
            "embedded": world.channel(world.member("caller"), "callee"),
            "two sidecars": beside.channel("socket"),
        }
    await beside.close()
    await server.stop(None)


async def main(most: int) -> None:
    """Count, and print."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with channels(Path(scratch)) as found:
            print(f"{'each, both ends':32}   Python        C    tasks")
            for name, channel in found.items():
                for what, work in (
                    ("unary call", unary(channel)),
                    ("message of a stream", streamed(channel)),
                ):
                    await work(WARM)
                    count = Count()
                    with count.running():
                        await work(CALLS)
                    figures = (count.python.total(), count.native, count.tasks)
                    print(f"{f'{name}, {what}':32}", *(f"{figure / CALLS:8.1f}" for figure in figures))
                    for function, times in count.python.most_common(most):
                        print(f"    {times / CALLS:8.1f}  {function}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.counted")
    parser.add_argument("--by", type=int, default=0, metavar="N", help="name the N functions called most")
    asyncio.run(main(parser.parse_args().by))
