"""The warm workers of one service: one more than may be busy, so that a loss costs the next caller nothing.

Workers are given out last in, first out, and new ones go to the other end: while a worker lives, the same one
serves a service of one worker, which is what ``state = "kept"`` means. Lost ones are replaced at once, and
with growing pauses when too many are lost for the calls that went well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from services.lua_host.protocol import ViolationError
from services.lua_host.wire import WorkerGoneError
from services.lua_host.worker import ImpatientError, NotJailedError, UnfitError, Worker

log = logging.getLogger("mesh.lua")

#: Losses, beyond the calls that went well, that are made good at once.
FREE_LOSSES: Final = 3
#: Seconds before the next one is: first, and at most.
PAUSE_FIRST, PAUSE_MOST = 0.1, 5.0
#: Calls that may wait for a worker, for each that may run.
QUEUE: Final = 32
#: Seconds between looks at idle workers.
LOOK: Final = 1.0

#: What may come of starting a worker.
FAILURES: Final = (NotJailedError, UnfitError, ViolationError, WorkerGoneError, OSError)


class BusyError(Exception):
    """So many calls wait for a worker that one more makes no sense."""


class Pool:
    """Workers of one service. ``keep`` has to run for as long as it is used."""

    def __init__(self, name: str, spawn: Callable[[], Awaitable[Worker]], size: int, most_calls: int) -> None:
        """Take the service's name for the log, how to start a worker, how many may be busy at once, and after
        how many calls one is replaced (0: never).
        """  # noqa: D205  one sentence
        self._name, self._spawn, self._size, self._most_calls = name, spawn, size, most_calls
        self._idle: deque[Worker] = deque()
        self._busy: set[Worker] = set()
        self._waiting: deque[asyncio.Future[Worker]] = deque()
        self._lost = asyncio.Event()
        self._losses = self.kills = 0
        self._closed = False
        self._ending: set[asyncio.Task[None]] = set()

    async def fill(self) -> None:
        """Start the first worker; raise what ``FAILURES`` lists if it cannot serve."""
        self._add(await self._spawn())

    async def keep(self) -> None:
        """Keep as many workers as there should be, for ever."""
        while True:
            self._lost.clear()
            while len(self._idle) + len(self._busy) <= self._size:
                await asyncio.sleep(self._pause())
                await self._start()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._lost.wait()
            self._inspect()

    async def _start(self) -> None:
        try:
            worker = await self._spawn()
        except FAILURES as error:
            self._losses += 1
            log.error("%s: no new worker: %s", self._name, error)  # noqa: TRY400  the line says it all
        else:
            self._add(worker)

    def _add(self, worker: Worker) -> None:
        self._idle.appendleft(worker)
        self._serve()

    def _pause(self) -> float:
        beyond = self._losses - FREE_LOSSES
        return 0.0 if beyond < 0 else min(PAUSE_MOST, PAUSE_FIRST * 2.0 ** min(beyond, 10))

    async def take(self) -> Worker:
        """Wait for a worker, to be given back in any case; raise ``BusyError`` if too many wait."""
        if not self._waiting and (worker := self._free()):
            return worker
        if len(self._waiting) >= QUEUE * self._size:
            raise BusyError
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(turn.result())
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _free(self) -> Worker | None:
        """Give a worker that may be given a call now."""
        while self._idle and len(self._busy) < self._size:
            worker = self._idle.pop()
            if worker.alive:
                self._busy.add(worker)
                return worker
            self._lose(worker)
        return None

    def _serve(self) -> None:
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()  # cancelled a moment ago
            elif worker := self._free():
                self._waiting.popleft().set_result(worker)
            else:
                return

    def give_back(self, worker: Worker) -> None:
        """Take a worker back; it goes on if it is in order and not spent."""
        self._busy.discard(worker)
        worn = worker.worn or 0 < self._most_calls <= worker.calls
        if worker.alive and not worn and not worker.spent:
            self._losses = max(0, self._losses - 1)
            self._idle.append(worker)
        else:
            self._lose(worker, worn=worn and worker.alive)
        self._serve()

    def _lose(self, worker: Worker, *, worn: bool = False) -> None:
        """Part with a worker. Unless it is only worn, or that is a caller's doing, it is a loss."""
        if not self._closed and not worn and not isinstance(worker.why, ImpatientError):
            self._losses += 1
        if not self._closed and worker.why is not None:
            self.kills += not isinstance(worker.why, WorkerGoneError)
            log.warning("%s: worker %d was ended: %s", self._name, worker.pid, worker.why)
        task = asyncio.ensure_future(worker.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        self._lost.set()

    def _inspect(self) -> None:
        for worker in list(self._idle):
            worker.check_idle()
            if not worker.alive:
                self._idle.remove(worker)
                self._lose(worker)

    async def close(self) -> None:
        """End all workers, busy ones too, and wait until they are gone."""
        self._closed = True
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(worker.close() for worker in workers), *self._ending)
