"""Routes hold behind sidecars as between embedded nodes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.core.traffic import Fault, Hedge, Retry, Route, Traffic
from mesh.rpc.status import reason_of
from tests.rpc.attack import eventually
from tests.rpc.flaky import PATH, Flaky
from tests.rpc.pair import World
from tests.sidecar.beside import Beside

C = grpc.StatusCode
FAST = Retry(3, backoff_ms=1, longest_ms=1)
ECHOED = {"Unary": [b"a"], "Down": [b"a", b"a"], "Up": [b"a,b"], "Both": [b"a", b"b"]}


class Road:
    """Two sidecars, the application behind one, and the other application's channel."""

    def __init__(self, beside: Beside, flaky: Flaky) -> None:
        """Begin without routes."""
        self.beside, self.flaky, self.channel = beside, flaky, beside.channel("socket")

    def says(self, **said: Any) -> None:
        """Put one route for every method in force."""
        self.beside.introduce(traffic=Traffic(routes=(Route(("*",), **said),)))

    async def made(self, kind: str, seconds: float = 10) -> list[bytes]:
        """Make a call of a kind with what it takes, and give its messages."""
        channel = self.channel
        if kind == "Unary":
            return [await channel.unary_unary(PATH + kind)(b"a", timeout=seconds)]
        if kind == "Down":
            return [message async for message in channel.unary_stream(PATH + kind)(b"a", timeout=seconds)]
        if kind == "Up":
            return [await channel.stream_unary(PATH + kind)(iter([b"a", b"b"]), timeout=seconds)]
        call = channel.stream_stream(PATH + kind)(iter([b"a", b"b"]), timeout=seconds)
        return [message async for message in call]

    async def failed(self, kind: str, seconds: float = 10) -> grpc.aio.AioRpcError:
        """Make a call that fails, and give how."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.made(kind, seconds)
        return caught.value


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    """Run two sidecars beside an application that fails as it is told."""
    flaky = Flaky()
    with tempfile.TemporaryDirectory(prefix="mesh-") as run_dir:
        application: Any = flaky
        beside = Beside(World(), Path(run_dir), application)
        await beside.start()
        yield Road(beside, flaky)
        await beside.close()


@pytest.mark.parametrize("kind", ECHOED)
async def test_what_is_declared_safe_is_repeated(road: Road, kind: str) -> None:
    """A call that fails is made again with all its requests; without a route it is not."""
    road.flaky.script = [C.UNAVAILABLE, C.UNAVAILABLE]
    assert (await road.failed(kind)).code() is C.UNAVAILABLE
    assert len(road.flaky.calls) == 1
    road.says(retry=FAST)
    road.flaky.script, road.flaky.calls = [C.UNAVAILABLE, C.UNAVAILABLE], []
    assert await road.made(kind) == ECHOED[kind]
    assert len(road.flaky.calls) == 3
    assert len(set(road.flaky.calls)) == 1


@pytest.mark.parametrize(("pushback", "calls"), [("0", 2), ("-1", 1)])
async def test_an_application_says_when(road: Road, pushback: str, calls: int) -> None:
    """What it says of the next attempt passes both sidecars."""
    road.says(retry=Retry(2, backoff_ms=3_600_000, longest_ms=3_600_000))
    road.flaky.script = [(C.UNAVAILABLE, pushback)]
    if calls == 1:
        error = await road.failed("Unary")
        assert tuple(error.trailing_metadata() or ()) == (("x-t", "t"),)
    else:
        assert await road.made("Unary") == [b"a"]
    assert len(road.flaky.calls) == calls


@pytest.mark.parametrize("kind", ECHOED)
async def test_an_attempt_that_takes_too_long(road: Road, kind: str) -> None:
    """It is given up, at its application as well, and the next one made."""
    road.says(retry=Retry(2, per_try_ms=400, backoff_ms=1, longest_ms=1))
    road.flaky.script = ["wait"]
    assert await road.made(kind) == ECHOED[kind]
    await eventually(lambda: road.flaky.cancelled == 1)


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_a_slow_attempt_is_overtaken(road: Road, kind: str) -> None:
    """The second wins, and the first is cancelled; a stream of requests is not hedged."""
    road.says(hedge=Hedge(2, 50))
    road.flaky.script = ["wait"]
    assert await road.made(kind) == ECHOED[kind]
    await eventually(lambda: road.flaky.cancelled == 1)
    assert len(road.flaky.calls) == 2


async def test_an_application_that_gives_up(road: Road) -> None:
    """All attempts of its call end."""
    road.says(hedge=Hedge(2, 10))
    road.flaky.script = ["wait", "wait"]
    call = road.channel.unary_unary(PATH + "Unary")(b"a")
    await eventually(lambda: len(road.flaky.calls) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: road.flaky.cancelled == 2)


@pytest.mark.parametrize("kind", ECHOED)
async def test_timeouts_and_faults(road: Road, kind: str) -> None:
    """A timeout ends what has more time; an abort is never made, and says what it is."""
    road.says(timeout_ms=1_000)
    road.flaky.script = ["wait"]
    assert (await road.failed(kind)).code() is C.DEADLINE_EXCEEDED
    await eventually(lambda: road.flaky.cancelled == 1)
    road.says(fault=Fault(100, 10, "RESOURCE_EXHAUSTED"))
    error = await road.failed(kind)
    assert (error.code(), reason_of(error)) == (C.RESOURCE_EXHAUSTED, "mesh/FAULT")
    road.says()
    assert await road.made(kind) == ECHOED[kind]
    assert len(road.flaky.calls) == 2
