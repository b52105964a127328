"""Warm workers: who gets which, what a loss costs, and what happens when there are many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from services.lua_host import pool as pools
from services.lua_host.pool import BusyError, Pool
from services.lua_host.wire import WorkerGoneError
from services.lua_host.worker import NotJailedError


class FakeWorker:
    """As much of a worker as a pool looks at."""

    def __init__(self, number: int) -> None:
        self.pid = number
        self.calls = 0
        self.spent = self.worn = False
        self.why: Exception | None = None
        self.closed = False
        self.looked = 0

    @property
    def alive(self) -> bool:
        """Whether it may be given a call."""
        return self.why is None and not self.closed

    def check_idle(self) -> None:
        """Take note of the look."""
        self.looked += 1

    def kill(self) -> None:
        """End it."""
        self.why = WorkerGoneError("killed by the test")

    async def close(self) -> None:
        """End it."""
        self.closed = True


class Yard:
    """Makes workers, and a pool of them."""

    def __init__(self, size: int = 1, most_calls: int = 0) -> None:
        self.made: list[FakeWorker] = []
        self.refusals = 0
        self.hold = asyncio.Event()
        self.hold.set()
        spawn: Any = self._spawn
        self.pool = Pool("test", spawn, size, most_calls)
        self._task: asyncio.Task[None] | None = None

    async def _spawn(self) -> FakeWorker:
        await self.hold.wait()
        if self.refusals:
            self.refusals -= 1
            raise NotJailedError("the test says no")
        self.made.append(FakeWorker(len(self.made)))
        return self.made[-1]

    async def open(self) -> Yard:
        """Fill the pool and keep it."""
        await self.pool.fill()
        self._task = asyncio.create_task(self.pool.keep())
        return self

    async def close(self) -> None:
        """End it all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.pool.close()

    async def take(self) -> Any:
        """Take a worker, soon."""
        return await asyncio.wait_for(self.pool.take(), 5)


@pytest_asyncio.fixture
async def yards() -> AsyncIterator[Callable[..., Yard]]:
    made: list[Yard] = []

    def make(**settings: int) -> Yard:
        made.append(Yard(**settings))
        return made[-1]

    yield make
    for yard in made:
        await yard.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the pool tells nobody what it does
            await asyncio.sleep(0.001)


async def test_one_more_worker_is_warm_than_may_be_busy(yards: Callable[..., Yard]) -> None:
    """And no more than that."""
    yard = await yards(size=2).open()
    await until(lambda: len(yard.made) == 3)
    await asyncio.sleep(0.01)
    assert len(yard.made) == 3


async def test_the_same_worker_serves_while_it_lives(yards: Callable[..., Yard]) -> None:
    """With one at a time, what it keeps is what the service keeps, though a spare came later."""
    yard = await yards(size=1).open()
    await until(lambda: len(yard.made) == 2)
    for _ in range(5):
        worker = await yard.take()
        assert worker.pid == yard.made[0].pid
        yard.pool.give_back(worker)


async def test_a_loss_costs_the_next_caller_nothing(yards: Callable[..., Yard]) -> None:
    """The spare is there at once, even while no new worker can be started."""
    yard = await yards(size=1).open()
    await until(lambda: len(yard.made) == 2)
    worker = await yard.take()
    yard.hold.clear()
    worker.kill()
    yard.pool.give_back(worker)
    assert await yard.take() is yard.made[1]
    await until(lambda: worker.closed)
    yard.hold.set()
    await until(lambda: len(yard.made) == 3)


async def test_a_spare_that_died_is_not_given_out(yards: Callable[..., Yard]) -> None:
    """It is replaced, and the caller gets the replacement."""
    yard = await yards(size=1).open()
    await until(lambda: len(yard.made) == 2)
    for worker in yard.made:
        worker.kill()
    fresh = await yard.take()
    assert fresh.alive
    await until(lambda: all(dead.closed for dead in yard.made[:2]))


async def test_no_more_are_busy_than_may_be(yards: Callable[..., Yard]) -> None:
    """The next caller waits for one to come back."""
    yard = await yards(size=1).open()
    worker = await yard.take()
    waiting = asyncio.ensure_future(yard.pool.take())
    await until(lambda: len(yard.made) == 2)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    yard.pool.give_back(worker)
    assert await asyncio.wait_for(waiting, 5) is worker


async def test_a_caller_that_stops_waiting_takes_no_place(yards: Callable[..., Yard]) -> None:
    """Its turn goes to the next."""
    yard = await yards(size=1).open()
    worker = await yard.take()
    waiting = [asyncio.ensure_future(yard.pool.take()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    yard.pool.give_back(worker)
    assert await asyncio.wait_for(waiting[1], 5) is worker


async def test_too_many_waiting_are_told_at_once(yards: Callable[..., Yard]) -> None:
    """The queue has a bound."""
    yard = await yards(size=1).open()
    await yard.take()
    waiting = [asyncio.ensure_future(yard.pool.take()) for _ in range(pools.QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(BusyError):
        await yard.pool.take()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_worker_is_replaced_after_its_calls(yards: Callable[..., Yard]) -> None:
    """With one call a worker, none sees a second."""
    yard = await yards(size=1, most_calls=1).open()
    seen = []
    for _ in range(4):
        worker = await yard.take()
        worker.calls += 1
        seen.append(worker)
        yard.pool.give_back(worker)
    assert len(set(map(id, seen))) == 4
    await until(lambda: all(worker.closed for worker in seen))


async def test_a_spent_worker_is_replaced(yards: Callable[..., Yard]) -> None:
    """Though it is alive."""
    yard = await yards(size=1).open()
    worker = await yard.take()
    worker.spent = True
    yard.pool.give_back(worker)
    assert await yard.take() is not worker
    await until(lambda: worker.closed)


async def test_losses_are_made_good_with_growing_pauses(
    yards: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first at once, and good calls earn new ones."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    yard = await yards(size=1).open()
    await until(lambda: len(yard.made) == 2)
    monkeypatch.setattr("services.lua_host.pool.asyncio.sleep", slept)
    for count in range(3, 12):
        worker = await yard.take()
        worker.kill()
        yard.pool.give_back(worker)
        await asyncio.wait_for(_made(yard, count), 5)
    assert pauses[:3] == [0.0, 0.0, 0.1]
    assert pauses == sorted(pauses)
    assert max(pauses) == pools.PAUSE_MOST
    for _ in range(20):
        worker = await yard.take()
        yard.pool.give_back(worker)
    worker = await yard.take()
    worker.kill()
    yard.pool.give_back(worker)
    await asyncio.wait_for(_made(yard, 12), 5)
    assert pauses[-1] == 0.0


async def _made(yard: Yard, count: int) -> None:
    loop = asyncio.get_running_loop()
    while len(yard.made) < count:
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


async def test_workers_that_do_not_start_are_tried_again(yards: Callable[..., Yard]) -> None:
    """With pauses, and the pool is full in the end."""
    yard = yards(size=1)
    await yard.pool.fill()
    yard.refusals = 3
    yard._task = asyncio.create_task(yard.pool.keep())
    await until(lambda: len(yard.made) == 2)
    assert yard.refusals == 0


async def test_the_first_worker_has_to_start(yards: Callable[..., Yard]) -> None:
    """Otherwise there is no service."""
    yard = yards(size=1)
    yard.refusals = 1
    with pytest.raises(NotJailedError):
        await yard.pool.fill()


async def test_idle_workers_are_looked_at(
    yards: Callable[..., Yard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And replaced if they are no longer in order."""
    monkeypatch.setattr(pools, "LOOK", 0.01)
    yard = await yards(size=1).open()
    await until(lambda: len(yard.made) == 2 and all(worker.looked for worker in yard.made))
    yard.made[0].kill()
    await until(lambda: len(yard.made) == 3)


async def test_closing_ends_all_of_them(yards: Callable[..., Yard]) -> None:
    """Busy ones, too."""
    yard = await yards(size=2).open()
    await until(lambda: len(yard.made) == 3)
    await yard.take()
    await yard.close()
    assert all(worker.closed for worker in yard.made)
