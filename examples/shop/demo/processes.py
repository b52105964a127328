"""The processes of the demo: each on a leash, so that none outlives it, and each with a log of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.shop import SHOP
from mesh.cli.ports import Ports

#: Seconds that a process has to end after SIGTERM, and to come up.
GRACE, START = 5.0, 30.0
_LAST_LINES = 8


class NotStartedError(Exception):
    """A process of the demo ended, or did not come up; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process and its log."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """Raise ``NotStartedError`` if it has ended."""
        if self.process.returncode is not None:
            self.fail(f"ended with status {self.process.returncode}")

    def fail(self, what: str) -> None:
        """Raise ``NotStartedError`` with the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        raise NotStartedError("\n    ".join([f"{self.name} {what}:", *lines]))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the process did its part; raise ``NotStartedError`` if it ends or takes too long."""
        try:
            async with asyncio.timeout(START):
                while not condition():
                    self.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self.fail(f"did not {what} within {START:.0f} s")


async def while_they_run(processes: Sequence[Running], work: Coroutine[Any, Any, None]) -> None:
    """Do some work; raise ``NotStartedError`` if a process ends meanwhile, or if it takes too long."""
    task = asyncio.ensure_future(work)
    ends = [asyncio.ensure_future(running.process.wait()) for running in processes]
    try:
        await asyncio.wait((task, *ends), return_when=asyncio.FIRST_COMPLETED, timeout=START)
        for running in processes:
            running.check()
        if not task.done():
            raise NotStartedError(f"the services did not find each other within {START:.0f} s")
        await task
    finally:
        for waiting in (task, *ends):
            waiting.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)


@asynccontextmanager
async def running(name: str, log: Path, arguments: Sequence[str], secret: str = "") -> AsyncIterator[Running]:
    """Run ``python -m ARGUMENTS…`` for the length of the block; ``secret`` goes to its standard input.

    The leash ends it if this process dies; a session of its own keeps a Ctrl-C here from reaching it first.
    """
    async with AsyncExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        try:
            with log.open("wb") as out:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "mesh.cli.leash", str(reading), *arguments),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    pass_fds=(reading,),
                    start_new_session=True,
                    cwd=SHOP.parents[1],
                )
        finally:
            os.close(reading)
        stack.push_async_callback(_end, process)
        assert process.stdin is not None
        process.stdin.write(secret.encode())
        process.stdin.close()
        yield Running(name, process, log)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:
        process.kill()
        await process.wait()


def free_ports(count: int) -> list[int]:
    """Give ports of the loopback interface that nobody listens on, and no outgoing connection takes."""
    found: set[int] = set()
    while len(found) < count:
        found.add(Ports(0, 0, 0).chosen("127.0.0.1").join)
    return list(found)
