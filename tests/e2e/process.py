"""A process of a test: on a leash, with its output in files, ended whatever happens to the test."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).parents[2]
#: Seconds that anything at all may take on a busy machine, and how often it is looked for.
PATIENCE: Final = 20.0
LOOK: Final = 0.02


async def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; fail the test if it does not within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(LOOK)


class Process:
    """A running command, its standard output and its log (standard error)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        where: Path,
        leash: int = -1,
    ) -> None:
        """Start it; its files go to the directory ``where``."""
        number = len(list(where.glob(f"{name}.*.log")))
        self.name, self._leash = name, leash
        self._log, self._out = (where / f"{name}.{number}.{kind}" for kind in ("log", "out"))
        with self._log.open("wb") as log, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                pass_fds=() if leash < 0 else (leash,),
                # What it makes, and cannot remove when it is killed, goes with the test's directory.
                env={"GRPC_VERBOSITY": "NONE", **os.environ, "TMPDIR": str(where.parent)},
            )

    @classmethod
    def python(
        cls,
        name: str,
        module: str,
        arguments: Sequence[str],
        where: Path,
        secret: str = "",
        under: Sequence[str] = (),
    ) -> Self:
        """Start ``python -m module``, ended with this process; ``secret`` goes to its standard input.

        ``under``: a command that runs another, such as prlimit(1), which takes it as its last arguments.
        """
        reading, writing = os.pipe()
        command = [*under, sys.executable, "-m", "mesh.cli.leash", str(reading), module, *arguments]
        try:
            started = cls(name, command, where, reading)
        finally:
            os.close(reading)
        started._leash = writing
        started.tell(secret)
        return started

    def tell(self, secret: str) -> None:
        """Write to its standard input, and close it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(secret.encode())
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended; whoever waits for it finds out

    @property
    def log(self) -> str:
        """What it has said on standard error so far."""
        return self._log.read_text(errors="replace")

    @property
    def out(self) -> str:
        """What it has said on standard output so far."""
        return self._out.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def mark(self) -> int:
        """Give the place in the log to look from for what is yet to be said."""
        return len(self.log)

    async def says(self, pattern: str, since: int = 0, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait until its log has a line that matches; fail if it ends or takes too long."""
        await self._until(lambda: re.search(pattern, self.log[since:]), f"say {pattern!r}", seconds)
        found = re.search(pattern, self.log[since:])
        assert found
        return found

    async def prints(self) -> str:
        """Wait until it has printed a line, and give it."""
        await self._until(lambda: "\n" in self.out, "print a line", PATIENCE)
        return self.out.splitlines()[0]

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended, and give its exit status."""
        await until(lambda: not self.running, f"{self.name} ends; it said:\n{self.log}", seconds)
        self._let_go()
        return self.process.wait()

    async def stop(self, seconds: float = PATIENCE) -> int:
        """Send SIGTERM and give the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended(seconds)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end, if there has been none."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._let_go()

    async def _until(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        def met() -> object:
            return condition() or not self.running

        await until(met, f"{self.name} to {what}; it said:\n{self.log}", seconds)
        assert condition(), f"{self.name} ended and did not {what}; it said:\n{self.log}"

    def _let_go(self) -> None:
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1
