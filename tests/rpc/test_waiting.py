"""Waits that end with their task."""

from __future__ import annotations

import asyncio

import pytest

from mesh.rpc.waiting import within


async def test_a_cancellation_in_the_moment_of_an_answer() -> None:
    """It counts, though what was waited for is there."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(5, answer))
    await asyncio.sleep(0)
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_time_that_is_over() -> None:
    """It ends the wait, and what was waited for."""
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(0.01, answer)
    assert answer.cancelled()
