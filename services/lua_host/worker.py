"""One jailed process: started, spoken to by turns, and ended at the first thing that is not in order.

A worker belongs to one service for all its life. Whoever holds it drives its calls (``turns``); this keeps
the process: how it starts, how long it may compute, that it is gone when it should be. All of that from
outside: nothing here depends on what runs in the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias

from mesh.v1 import lua_pb2
from services.lua_host.jail.launch import command
from services.lua_host.protocol import (
    JAILED,
    MISSING,
    SLACK,
    UNSAFE,
    State,
    Turns,
    ViolationError,
    WorkerFrame,
    start_frames,
)
from services.lua_host.wire import Wire, WorkerGoneError

log = logging.getLogger("mesh.lua")

Hear: TypeAlias = Callable[[lua_pb2.Log], Awaitable[None]]

#: Seconds that a process has to come up and jail itself.
BOOT: Final = 10.0
#: Seconds of computing after which a worker gives way to everybody else on the machine.
GREEDY: Final = 0.02
#: Seconds of CPU that a worker may use, in all, from one call to the next.
IDLE_CPU: Final = 0.25
_TICK: Final = os.sysconf("SC_CLK_TCK")


class UnfitError(Exception):
    """The script cannot be used; ``problems`` says why, each with its line (0: none)."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        """Take the lines and what is wrong in each."""
        super().__init__("; ".join(text for _, text in problems) or "the script cannot be used")
        self.problems = problems


class NotJailedError(Exception):
    """A layer of the jail is missing, or the process did not come up: nothing of the script has run."""


class TimedOutError(WorkerGoneError):
    """The worker was ended because its time was over."""


class ImpatientError(TimedOutError):
    """The worker was ended because its caller waited no longer: that is no fault of the script's."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a worker is made with: sizes in bytes."""

    memory: int
    message: int
    jailed: bool = True


class Worker:
    """A running worker. Made by ``spawn``; ends with ``kill``, by itself, or with this process."""

    def __init__(self, process: subprocess.Popen[bytes], wire: Wire, hear: Hear) -> None:
        """Take the process, this end of its socket, and who hears its log lines."""
        self._process, self._wire, self._hear = process, wire, hear
        self.turns = Turns()
        self.calls = 0
        self.yielded = False
        #: Not to be given another call: because it ran out of something; because it may not run as it should.
        self.spent = self.worn = False
        self._why: Exception | None = None
        self._seen: tuple[int, float] | None = None

    @classmethod
    async def spawn(cls, cell: Cell, hear: Hear) -> Worker:
        """Start a process and wait until it is jailed; raise ``NotJailedError``."""
        ours, theirs = socket.socketpair()
        wire = Wire(2 * cell.message + SLACK)
        with theirs:
            try:
                worker = cls(_exec(cell, theirs), wire, hear)
            except BaseException:
                ours.close()
                raise
        try:
            ours.setblocking(False)
            await asyncio.get_running_loop().create_connection(lambda: wire, sock=ours)
            await worker._greeting(cell)
        except BaseException:
            await worker.close()
            ours.close()
            raise
        return worker

    async def _greeting(self, cell: Cell) -> None:
        try:
            async with asyncio.timeout(BOOT):
                said = await self._wire.receive()
        except TimeoutError:
            raise NotJailedError(f"the worker said nothing within {BOOT:.0f} s") from None
        except (WorkerGoneError, ViolationError):
            status = await asyncio.to_thread(self._process.wait)
            raise NotJailedError(f"the worker ended with status {status} before it was jailed") from None
        if said.startswith(MISSING):
            layer = said.removeprefix(MISSING).decode(errors="replace")
            raise NotJailedError(f"a layer of the jail is missing: {layer:.500}")
        if said != (JAILED if cell.jailed else UNSAFE):
            raise NotJailedError("the worker does not speak this version's language")
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            raise NotJailedError(
                "the host may not end its workers: give it CAP_KILL, or another user"
            ) from None

    async def load(self, start: lua_pb2.Start, seconds: float) -> lua_pb2.Ready | lua_pb2.Report:
        """Have it load a script; give what it says.

        Raises ``TimedOutError``, ``WorkerGoneError`` and ``ViolationError``.
        """
        for body in start_frames(start):
            self._wire.send(body)
        return await self.settled(seconds)

    async def settled(self, seconds: float) -> lua_pb2.Ready | lua_pb2.Report:
        """Wait until it is ready for a call; give what it says."""
        timer = asyncio.get_running_loop().call_later(seconds, self._overdue, seconds)
        greedy = self.watch()
        try:
            while True:
                frame = await self.receive()
                if frame.HasField("ready"):
                    self._rest()
                    return frame.ready
                if frame.HasField("report"):
                    return frame.report
        finally:
            timer.cancel()
            greedy.cancel()

    def _overdue(self, seconds: float) -> None:
        self.kill(TimedOutError(f"the script did not get ready within {seconds:g} s"))

    def watch(self) -> asyncio.TimerHandle:
        """Let it give way to others once it has computed for long; cancel what this gives."""
        return asyncio.get_running_loop().call_later(GREEDY, self.give_way)

    def give_way(self) -> None:
        """Run it, from now on, only when nothing else wants to: at idle priority (sched(7), SCHED_IDLE)."""
        if not self.yielded and self._why is None and hasattr(os, "SCHED_IDLE"):
            try:
                os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))
                self.yielded = True
            except ProcessLookupError:
                pass
            except OSError:
                _say_that_workers_do_not_yield()

    def come_back(self) -> bool:
        """Undo ``give_way``; False if this process may not."""
        if self.yielded:
            try:
                os.sched_setscheduler(self.pid, os.SCHED_OTHER, os.sched_param(0))
            except OSError:
                return False
            self.yielded = False
        return True

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it may be given a call: it is idle, and has said nothing that it was not asked."""
        return self._why is None and self.turns.state is State.IDLE and self._wire.quiet

    @property
    def why(self) -> Exception | None:
        """Why it was ended, or ``None``."""
        return self._why

    async def receive(self) -> WorkerFrame:
        """Wait for what it says, besides log lines; anything out of turn, and its end, is raised."""
        while True:
            try:
                frame = self.turns.received(await self._wire.receive())
            except (WorkerGoneError, ViolationError) as error:
                self.kill(error)
                raise self._why or error from None
            if not frame.HasField("log"):
                return frame
            # It waits, at its own expense, while nobody listens.
            await self._hear(frame.log)

    def ask(self, request: lua_pb2.Request, *, streaming: bool) -> None:
        """Give it a call."""
        self._wire.unasked = lambda: None
        self.calls += 1
        self._wire.send(self.turns.request(request, streaming=streaming))

    def answer(self, result: lua_pb2.Result) -> None:
        """Answer what it asked for; end it if it has not waited for that."""
        body = self.turns.result(result)
        if self._wire.quiet:
            self._wire.send(body)
        else:
            self.kill(ViolationError("a frame before the answer to the one before"))

    def kill(self, why: Exception) -> None:
        """End it at once, for the first reason given."""
        if self._why is None:
            self._why = why
            self._wire.end(why)
            with suppress(ProcessLookupError, PermissionError):  # ``spawn`` has seen that it may
                self._process.kill()

    async def close(self) -> None:
        """End it and wait until it is gone."""
        self.kill(WorkerGoneError("it was ended"))
        if self._process.poll() is None:
            await asyncio.to_thread(self._process.wait)

    def _rest(self) -> None:
        self._wire.unasked = self._unasked

    def _unasked(self) -> None:
        self.kill(ViolationError("a frame that nobody asked for"))

    def check_idle(self) -> None:
        """End it if it computes though it has nothing to do. To be called now and then."""
        if not self.alive:
            return
        used = self._cpu()
        if self._seen is None or self._seen[0] != self.calls:
            self._seen = self.calls, used
        elif used - self._seen[1] > IDLE_CPU:
            self.kill(ViolationError("computing while idle"))

    def _cpu(self) -> float:
        """Give the seconds of CPU it has used (proc(5), stat fields 14 and 15); 0 where nobody can say."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:  # noqa: PTH123  once a call: a Path costs more
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICK


@cache
def _say_that_workers_do_not_yield() -> None:
    log.warning(
        "busy scripts cannot be made to give way to others: give the host CAP_SYS_NICE, or another user"
    )


async def ignore(_line: lua_pb2.Log) -> None:
    """Hear no log line."""


def _exec(cell: Cell, end: socket.socket) -> subprocess.Popen[bytes]:
    # Not in another thread, though it takes some hundred µs: a worker dies with the thread that began it.
    return subprocess.Popen(
        command(cell.memory, cell.message, jailed=cell.jailed),
        stdin=end.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        process_group=0,
    )
