"""The worker: one thing at a time, in order, away from the loop, and nothing lost."""

import asyncio
import threading

import pytest

from services.auth.worker import BATCH, Worker


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
