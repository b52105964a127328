"""The worker: one thing at a time, in order, away from the loop, and nothing lost."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from services.auth.worker import BATCH, Gathering, Turns, Worker


async def test_it_gives_and_raises() -> None:
    """What the function gives or raises, the caller gets."""
    with Worker() as worker:
        assert await worker.do(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await worker.do(divmod, 7, 0)


async def test_it_works_in_order_in_one_thread() -> None:
    """Whatever is handed over runs in its turn, in one thread that is not the loop's."""
    seen = list[tuple[int, int]]()
    with Worker() as worker:

        def work(number: int) -> None:
            seen.append((number, threading.get_ident()))

        await asyncio.gather(*(worker.do(work, number) for number in range(3 * BATCH)))
    assert [number for number, _ in seen] == list(range(3 * BATCH))
    threads = {thread for _, thread in seen}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_caller_that_gave_up_stops_nothing() -> None:
    """What was handed over is done though nobody waits for it, and the next caller is served."""
    go, done = threading.Event(), list[str]()
    with Worker() as worker:
        first = asyncio.create_task(worker.do(go.wait, 30))
        second = asyncio.create_task(worker.do(lambda: done.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait((second,))
        go.set()
        assert await worker.do(lambda: "third") == "third"
        assert await first
    assert done == ["second"]


async def test_the_end_waits_for_what_was_handed_over() -> None:
    """Leaving the block does not drop work."""
    done = list[int]()
    with Worker() as worker:
        tasks = [asyncio.create_task(worker.do(done.append, number)) for number in range(40)]
        await asyncio.sleep(0)
    assert done == list(range(40))
    await asyncio.gather(*tasks)


async def test_those_that_wait_are_served_together() -> None:
    """What comes while the worker is busy is done in one go, up to a bound, and each gets its own result."""
    go, batches = threading.Event(), list[list[int]]()

    def halves(numbers: Sequence[int]) -> list[int | Exception]:
        batches.append(list(numbers))
        return [number // 2 if number % 2 == 0 else ValueError(number) for number in numbers]

    with Worker() as worker:
        gathering = Gathering(worker, halves, 4)
        busy = asyncio.create_task(worker.do(go.wait, 30))
        asked = [asyncio.create_task(gathering.do(number)) for number in range(10)]
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert await busy
        assert await gathering.do(20) == 10
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [20]]
    assert [str(result) for result in results] == ["0", "1", "1", "3", "2", "5", "3", "7", "4", "9"]


async def test_a_batch_that_fails_fails_for_all_of_it() -> None:
    """What the work raises as a whole, each of the batch gets, and the next batch is served."""

    def work(numbers: Sequence[int]) -> list[int | Exception]:
        return [10 // number for number in numbers]

    with Worker() as worker:
        gathering = Gathering(worker, work, 4)
        results = await asyncio.gather(*map(gathering.do, (1, 0, 5)), return_exceptions=True)
        assert [type(result) for result in results][1] is ZeroDivisionError
        assert await gathering.do(2) == 5


async def test_one_who_asks_for_much_keeps_others_waiting_for_little() -> None:
    """Of a flood of one asker's, another's work and that of nobody in particular wait for a few alone."""
    go, done = threading.Event(), list[str]()
    with Worker() as worker:
        turns = Turns(worker, 4)
        held = asyncio.create_task(worker.do(go.wait, 30))
        flood = [asyncio.create_task(turns.do("many", done.append, "many")) for _ in range(100)]
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(turns.do("other", done.append, "other")),
            asyncio.create_task(worker.do(done.append, "renewal")),
        ]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(held, *flood, *others)
    assert sorted(done[4:6]) == ["other", "renewal"]
    assert done.count("many") == 100


async def test_nothing_is_begun_for_who_gave_up() -> None:
    """Else who asks and leaves, again and again, would have the worker do all of it."""
    go, done = threading.Event(), list[int]()
    with Worker() as worker:
        turns = Turns(worker, 4)
        held = asyncio.create_task(worker.do(go.wait, 30))
        asked = [asyncio.create_task(turns.do("many", done.append, number)) for number in range(20)]
        await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        last = asyncio.create_task(turns.do("many", done.append, 20))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(held, last)
    assert done == [20]
