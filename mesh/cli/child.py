"""Child processes: started on a leash, kept running, ended with a grace."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final

log = logging.getLogger("mesh.up")

#: Seconds that a child has to end after SIGTERM.
GRACE: Final = 10.0
#: Seconds before a child that ended is started again: first, and at most.
PAUSE_FIRST, PAUSE_MOST = 0.2, 5.0
#: A child that ran for so many seconds is not one that fails at every start.
STABLE: Final = 10.0


class Child:
    """A running ``python -m MODULE ARGUMENTS…`` that ends when this process does, however that ends."""

    def __init__(self, process: asyncio.subprocess.Process, leash: int) -> None:
        """Take a process, and the end of the pipe that holds it."""
        self._process, self._leash = process, leash

    @classmethod
    async def start(
        cls,
        module: str,
        arguments: Sequence[str],
        secret: str = "",
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Child:
        """Start a module; ``secret`` is a line for its standard input, where nobody else can read it.

        ``environment`` goes before this process's own.
        """
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "mesh.cli.leash", str(reading), module, *arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(reading,),
                # What gRPC says by itself on stderr, each of them says in a line of its own.
                env={"GRPC_VERBOSITY": "NONE", **os.environ, **environment},
                # A session of its own: Ctrl-C reaches the supervisor alone, which ends its children in order.
                start_new_session=True,
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        child = cls(process, writing)
        child._tell(secret)
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end; give the exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self, grace: float = GRACE) -> None:
        """End it: ask, wait, and then insist."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except TimeoutError:
            log.warning("process %d did not end in %.0f s: killed", self.pid, grace)
            self._process.kill()
            await self._process.wait()
        self.release()

    def release(self) -> None:
        """Let go of the leash of a child that has ended."""
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def _tell(self, secret: str) -> None:
        # A line fits into the pipe, so nothing waits for the child to read it.
        pipe = self._process.stdin
        if pipe is None:
            raise AssertionError
        if secret:
            pipe.write(f"{secret}\n".encode())
        pipe.close()


class EndedError(Exception):
    """A child ended before it was ready; it has said why itself."""

    def __init__(self, name: str, status: int) -> None:
        """Take who it is and its exit status."""
        super().__init__(f"{name} ended with status {status} before it was ready")
        self.status = status


class Kept:
    """A child that is started again whenever it ends."""

    def __init__(self, name: str, start: Callable[[], Awaitable[Child]]) -> None:
        """Take its name, and how to start it; ``start`` waits for what it needs, for ever if need be."""
        self.name, self._start = name, start
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The process id, as it runs now."""
        if self._child is None:
            msg = f"{self.name} was not started"
            raise RuntimeError(msg)
        return self._child.pid

    async def begin(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Start it for the first time and wait until it is ready; raise ``EndedError`` if it ends first."""
        self._child = await self._start()
        ended = asyncio.ensure_future(self._child.wait())
        answers = asyncio.ensure_future(ready())
        try:
            await asyncio.wait((ended, answers), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise EndedError(self.name, ended.result())
            await answers
        finally:
            ended.cancel()
            answers.cancel()
            await asyncio.gather(ended, answers, return_exceptions=True)

    async def keep(self) -> None:
        """Start it again and again, for as long as this runs."""
        loop = asyncio.get_running_loop()
        pause, began = PAUSE_FIRST, loop.time()
        while self._child is not None:
            status = await self._child.wait()
            self._child.release()
            if loop.time() - began > STABLE:
                pause = PAUSE_FIRST
            log.warning("%s ended with status %d: starting it again in %.1f s", self.name, status, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MOST)
            self._child = await self._start()
            began = loop.time()
            log.info("%s started again as process %d", self.name, self.pid)

    async def stop(self) -> None:
        """End it, if it runs."""
        if self._child is not None:
            await self._child.stop()
            self._child = None
