"""One thread for everything that waits for the disk, so that the event loop never does.

What is handed to it runs in the order in which it was handed over, one at a time: that is why ``Authority``
needs no locks. A caller who gives up waiting stops nothing. Results go back to the loop in batches: under
load, changing threads would otherwise cost as much as the work.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Final, Generic, ParamSpec, Self, TypeAlias, TypeVar
from weakref import WeakValueDictionary

_A = TypeVar("_A")
_P = ParamSpec("_P")
_R = TypeVar("_R")

#: Few enough that the first of a batch does not wait long for the last.
BATCH: Final = 16

_Deliver: TypeAlias = Callable[[], None]
_Job: TypeAlias = Callable[[], _Deliver]


class GivenUpError(Exception):
    """Nobody waits for this any more."""


class Worker:
    """Runs functions in its thread, for one event loop."""

    def __init__(self) -> None:
        """Start the thread; to be made in the loop that it works for."""
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="auth", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Run ``work`` in the thread, and give what it gives or raise what it raises."""
        future: asyncio.Future[_R] = self._loop.create_future()
        self.put(partial(_outcome, future, partial(work, *args, **kwargs)))
        return await future

    def put(self, job: _Job) -> None:
        """Run a job in the thread, and what it gives in the loop."""
        self._jobs.put(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do what was handed over, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        batch: list[_Deliver] = []
        while (job := self._jobs.get()) is not None:
            batch.append(job())
            if len(batch) >= BATCH or self._jobs.empty():
                self._loop.call_soon_threadsafe(_deliver, batch)
                batch = []
        self._loop.call_soon_threadsafe(_deliver, batch)


class Gathering(Generic[_A, _R]):
    """Has the worker do in one go what many ask for while it is busy: the disk then waits for them once."""

    def __init__(
        self, worker: Worker, work: Callable[[Sequence[_A]], Sequence[_R | Exception]], most: int
    ) -> None:
        """Take what does up to ``most`` at a time: it gives, for each, what that gives or raises."""
        self._worker, self._work, self._most = worker, work, most
        self._waiting: deque[tuple[_A, asyncio.Future[_R]]] = deque()

    async def do(self, asked: _A) -> _R:
        """Have it done with those that wait, and give what it gives or raise what it raises."""
        future: asyncio.Future[_R] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        self._worker.put(self._turn)
        return await future

    def _turn(self) -> _Deliver:
        # There is a turn for each that asked; the earlier ones leave less to do to the later ones.
        taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        try:
            results = self._work([asked for asked, _ in taken]) if taken else ()
        except Exception as error:  # noqa: BLE001  whatever it is, it is the callers'
            results = [error] * len(taken)
        return partial(_share, [future for _, future in taken], results)


class Turns:
    """Hands the worker little of one asker's at a time: who asks for much keeps others waiting for little."""

    def __init__(self, worker: Worker, most: int) -> None:
        """Take how many of one asker's wait for the worker; the rest wait here."""
        self._worker, self._most = worker, most
        self._turns = WeakValueDictionary[Hashable, asyncio.Semaphore]()

    async def do(self, asker: Hashable, work: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Give what ``work`` gives or raise what it raises; it is not begun for one who gave up waiting."""
        turn = self._turns.setdefault(asker, asyncio.Semaphore(self._most))
        wanted: list[Callable[[], _R]] = [partial(work, *args, **kwargs)]
        async with turn:
            try:
                return await self._worker.do(_taken, wanted)
            finally:
                wanted.clear()


def _taken(wanted: list[Callable[[], _R]]) -> _R:
    # The two threads may want it at once: one of them has it.
    try:
        work = wanted.pop()
    except IndexError:
        raise GivenUpError from None
    return work()


def _share(futures: Sequence[asyncio.Future[_R]], results: Sequence[_R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if isinstance(result, Exception):
            _fail(future, result)
        else:
            _give(future, result)


def _outcome(future: asyncio.Future[_R], work: Callable[[], _R]) -> _Deliver:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the caller's
        return partial(_fail, future, error)
    return partial(_give, future, result)


def _give(future: asyncio.Future[_R], result: _R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_R], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _deliver(batch: list[_Deliver]) -> None:
    for deliver in batch:
        deliver()
