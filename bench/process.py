"""One child process of the bench: started, read line by line, weighed, and ended with all it holds.

Ends only what it started. A child that talks ends when its standard input does, and so does not outlive even
a bench that was killed; the others get SIGTERM. Whoever heeds neither in time gets SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ANSWER_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0


class NotMeasuredError(Exception):
    """Something needed is missing or has failed; the message is one line that says what."""


class Process:
    """A running child."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, errors: Path) -> None:
        """Use ``started``."""
        self.name, self._child, self._errors = name, child, errors

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls,
        name: str,
        command: Sequence[str],
        scratch: Path,
        environment: Mapping[str, str] | None = None,
        *,
        talks: bool = True,
    ) -> AsyncIterator[Process]:
        """Run a command while the context lasts; ``talks`` gives it a standard input and output of ours."""
        errors = scratch / f"{name}.log"
        stream = PIPE if talks else DEVNULL
        with errors.open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=stream,
                stdout=stream,
                stderr=log,
                env={**os.environ, **(environment or {})},
                limit=64 * 1024 * 1024,  # an answer is one line, of ten thousand moments
                start_new_session=True,  # an interrupt from the terminal is for the bench, which ends them
            )
        process = cls(name, child, errors)
        try:
            yield process
        finally:
            await process._end()

    async def ask(self, question: Mapping[str, object]) -> None:
        """Send one line of JSON."""
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(question).encode() + b"\n")
            await self._child.stdin.drain()
        except OSError:
            raise self.failure("ended") from None

    async def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Read one line of JSON; raise ``NotMeasuredError`` if there is none in time."""
        assert self._child.stdout
        try:
            async with asyncio.timeout(seconds):
                line = await self._child.stdout.readline()
        except TimeoutError:
            raise self.failure(f"gave no answer within {seconds:g} s") from None
        if not line:
            raise self.failure("ended")
        return dict(json.loads(line))

    async def until(self, ready: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> None:
        """Wait until a condition holds that the process brings about."""
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(ready):
            if self._child.returncode is not None:
                raise self.failure("ended")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready within {seconds:g} s")
            await asyncio.sleep(0.02)

    def failure(self, what: str) -> NotMeasuredError:
        """Say what happened, with the last line that the process wrote about it."""
        lines = self._errors.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return NotMeasuredError(f"{self.name} {what}: {last[:200]}")

    def cpu_seconds(self) -> float:
        """Give user and system time of all its threads, ended ones too, in nanosecond resolution."""
        # The CPU clock of another process, as clock_getcpuclockid(3) makes it on Linux. /proc/PID/stat has
        # the same figure in steps of 10 ms.
        try:
            return time.clock_gettime((~self._child.pid << 3) | 2)
        except OSError:
            raise self.failure("ended") from None

    def resident_bytes(self) -> int:
        """Give what it holds in memory now (VmRSS)."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def written_bytes(self) -> int:
        """Give how much it has caused to be written to storage so far (``write_bytes`` of proc_pid_io(5))."""
        counters = Path(f"/proc/{self._child.pid}/io").read_text()
        found = re.search(r"^write_bytes: (\d+)$", counters, re.MULTILINE)
        return int(found[1]) if found else 0

    async def _end(self) -> None:
        child = self._child
        if child.stdin:
            child.stdin.close()
            await self._ended()
        for signal in (child.terminate, child.kill):
            if child.returncode is None:
                signal()
                await self._ended()

    async def _ended(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), END_SECONDS)
