"""What policy says of traffic holds behind sidecars as between embedded nodes."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from mesh.core.traffic import Breaker, Rate, Traffic
from mesh.rpc.status import reason_of
from tests.rpc.app import path
from tests.rpc.attack import eventually
from tests.sidecar.beside import Beside, to

C = grpc.StatusCode


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Give how a call that is refused ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), reason_of(caught.value)


@pytest.mark.parametrize("way", ["socket", "port"])
async def test_places(beside: Beside, way: str) -> None:
    """One more than there are is refused by its own sidecar, until one ends or policy gives more."""
    beside.introduce(traffic=Traffic(breaker=Breaker(1)))
    channel, metadata = beside.channel(way), to(way)
    first = channel.unary_unary(path("Wait"))(b"m", metadata=metadata)
    await eventually(beside.echo.waiting.is_set)
    unary = channel.unary_unary(path("Unary"))
    assert await refusal(unary(b"m", metadata=metadata)) == (C.RESOURCE_EXHAUSTED, "mesh/OVERLOADED")
    stream = channel.stream_stream(path("Both"))(iter([b"a"]), metadata=metadata)
    assert await refusal(stream.read()) == (C.RESOURCE_EXHAUSTED, "mesh/OVERLOADED")
    beside.introduce(traffic=Traffic(breaker=Breaker(2)))
    assert await unary(b"m", metadata=metadata) == b"m"
    first.cancel()


async def test_rates(beside: Beside) -> None:
    """One more than the rate is refused by the callee's sidecar, and the application does not see it."""
    beside.callee.know({}, own=Traffic(rate=Rate(1, 3)))
    unary: Any = beside.channel("socket").unary_unary(path("Unary"))
    for _ in range(3):
        await unary(b"m")
    assert await refusal(unary(b"m")) == (C.RESOURCE_EXHAUSTED, "mesh/RATE_LIMITED")
    assert len(beside.echo.calls) == 3
    assert beside.callee.rejected == []
    beside.callee.know({})
    assert await unary(b"m") == b"m"
