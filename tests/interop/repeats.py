"""Cancellation, ten thousand times over: what one call in a thousand leaves behind shows."""

from __future__ import annotations

import asyncio

import pytest

from tests.rpc.app import path
from tests.rpc.attack import eventually
from tests.sidecar.test_promises import Way, repeated, way

__all__ = ["way"]
TIMES = 5_000


@pytest.mark.timeout(300)
async def test_ten_thousand_cancellations(way: Way) -> None:
    """Each reaches its handler within a second; then there are no more tasks or calls than before."""
    assert await way.channel.unary_unary(path("Unary"))(b"m") == b"m"
    before = len(asyncio.all_tasks())
    await repeated(way, way.channel.unary_unary(path("Wait")), TIMES)
    await repeated(way, way.channel.unary_stream(path("Wait")), TIMES)
    await eventually(lambda: len(asyncio.all_tasks()) <= before)
    assert not way.server.open_calls
