"""Waiting for one thing while another may come first, and telling whose cancellation ended a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def first(waiting: Awaitable[Any], settled: asyncio.Future[_T]) -> Any:
    """Give whichever comes first: what is waited for, or what somebody else settles."""
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait((task, settled), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else settled.result()
    finally:
        task.cancel()


def being_cancelled() -> bool:
    """Whether it is the task that waits which is being cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def within(seconds: float, waiting: Awaitable[_T]) -> _T:
    """Give what is waited for; raise ``TimeoutError`` after ``seconds``.

    ``asyncio.wait_for`` loses a cancellation that comes in the same moment (Python before 3.12), and a loop
    that was to end goes on.
    """
    async with asyncio.timeout(seconds):
        return await waiting
