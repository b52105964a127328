"""Taps: who may look at calls, what nodes are told to tell, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

import services.gatekeeper.taps as module
from mesh.core.names import InstanceId, ServiceName
from mesh.core.observed import MAX_COUNT
from mesh.core.receiver import Peer
from mesh.v1 import gatekeeper_pb2, tap_pb2
from services.gatekeeper.taps import MOST, QUEUE, Tap, Taps
from tests.gatekeeper.house import House, beat, policy, serving, until

M = "/p.S/M"
ORDERS = ServiceName("orders")


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    async with serving() as served:
        served.watchers.take(policy(3))
        yield served


def call(verdict: str = "allow", source: str = "frontend", **more: Any) -> tap_pb2.TappedCall:
    return tap_pb2.TappedCall(source=source, method=M, verdict=verdict, status="OK", **more)


def tapping(house: House, destination: str = "orders", **wanted: str) -> Any:
    """Begin to tap, as the operator."""
    request = tap_pb2.TapRequest(destination=destination, filter=tap_pb2.TapFilter(**wanted))
    return house.node("mesh.operator").taps.Tap(request)


async def orders(watch: Any) -> list[tap_pb2.TapFilter]:
    """Read until the node is told what to tell."""
    while True:
        response = await asyncio.wait_for(watch.read(), 10)
        assert isinstance(response, gatekeeper_pb2.WatchResponse), "the stream ended"
        if response.HasField("taps"):
            return list(response.taps.filters)


def told(*calls: tap_pb2.TappedCall, untold: int = 0) -> gatekeeper_pb2.WatchRequest:
    said = beat()
    said.tapped.extend(calls)
    said.untold = untold
    return said


async def test_from_node_to_operator(house: House) -> None:
    """A node hears what is wanted, what it tells arrives if it is wanted, and it hears when it is enough."""
    node = house.node("orders")
    watch = await node.watch()
    other = await house.node("inventory").watch()
    tap = tapping(house, verdict="deny")
    assert (await tap.read()).nodes == 1
    assert await orders(watch) == [tap_pb2.TapFilter(verdict="deny")]
    await other.write(told(call("deny")))
    await watch.write(told(call("allow"), call("deny", call_id="7"), untold=4))
    found = await tap.read()
    assert [one.call_id for one in found.calls] == ["7"]
    assert (found.dropped, found.instance) == (4, node.membership.instance.raw)
    tap.cancel()
    assert await orders(watch) == []
    assert house.watchers.taps.orders(ORDERS) == ()


async def test_the_log_comes_first(house: House) -> None:
    """Who looks at what is in the audit log; where it cannot be written, nothing is tapped."""
    tap = tapping(house, method=M)
    await tap.read()
    (record,) = house.auth.taps
    assert (record.destination, record.filter.method) == ("orders", M)
    assert InstanceId(record.operator) in {node.membership.instance for node in house.nodes}
    tap.cancel()
    house.auth.away = True
    with pytest.raises(grpc.aio.AioRpcError, match="does not write to the audit log") as failed:
        await tapping(house).read()
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: not house.watchers.taps.orders(ORDERS))


async def test_nobody_but_the_operator_taps(house: House) -> None:
    """No service may look at calls, not even at those to itself."""
    request = tap_pb2.TapRequest(destination="orders")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await house.node("orders").taps.Tap(request).read()
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert house.auth.taps == []


@pytest.mark.parametrize(
    ("destination", "wanted", "said"),
    [
        ("mesh.auth", {}, "cannot be tapped"),
        ("No", {}, "bad service name"),
        ("orders", {"source": "No"}, "bad service name"),
        ("orders", {"method": "no"}, "bad method"),
        ("orders", {"verdict": "maybe"}, "unknown verdict"),
    ],
)
async def test_what_is_no_tap(house: House, destination: str, wanted: dict[str, str], said: str) -> None:
    """It is refused before anything is written."""
    with pytest.raises(grpc.aio.AioRpcError, match=said) as failed:
        await tapping(house, destination, **wanted).read()
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert house.auth.taps == []


async def test_so_many_and_no_more(house: House) -> None:
    """Past the bound a tap is refused, until another has ended."""
    taps = [tapping(house) for _ in range(MOST)]
    for tap in taps:
        await tap.read()
    with pytest.raises(grpc.aio.AioRpcError, match="8 taps already") as failed:
        await tapping(house).read()
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    taps[0].cancel()
    await until(lambda: house.watchers.taps._waiting < MOST)
    assert (await tapping(house).read()).nodes == 0


async def test_an_operator_that_is_gone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet tap says something all the same, and one that lasts too long ends."""
    monkeypatch.setattr(module, "QUIET", 0.01)
    monkeypatch.setattr(module, "LONGEST", 0.5)
    tap = tapping(house)
    parts = [part async for part in tap]
    assert len(parts) > 2
    assert not any(part.calls for part in parts)
    assert await tap.code() is grpc.StatusCode.OK
    assert house.watchers.taps.orders(ORDERS) == ()


async def test_more_than_there_is_room_for() -> None:
    """What the operator does not take in time is dropped and counted, also of a node that tells too much."""
    taps, tap = Taps(), Tap(ORDERS, tap_pb2.TapFilter())
    by = Peer(ORDERS, InstanceId(bytes(16)))
    with taps.tapping(tap):
        for _ in range(QUEUE // 200 + 1):
            taps.told(by, told(*[call()] * 250))
    first = await tap.next()
    assert first.dropped == 50 * (QUEUE // 200 + 1) + 200
    assert (await tap.next()).dropped == 0


@pytest.mark.parametrize(
    "odd",
    [{"at_ms": 2**63}, {"duration_us": 2**64 - 1}, {"reason": "x" * 5000}],
    ids=lambda odd: next(iter(odd)),
)
async def test_what_no_honest_node_tells(odd: dict[str, Any]) -> None:
    """A call that cannot be shown is dropped and counted, and the calls of other nodes go on."""
    taps, tap = Taps(), Tap(ORDERS, tap_pb2.TapFilter())
    with taps.tapping(tap):
        for told_by, said in ((1, call(**odd)), (2, call(call_id="7"))):
            taps.told(Peer(ORDERS, InstanceId(bytes([told_by]) * 16)), told(said, untold=2**64 - 1))
    found = await tap.next()
    assert [one.call_id for one in found.calls] == ["7"]
    assert found.dropped == MAX_COUNT


async def test_a_stream_that_comes_later(house: House) -> None:
    """A node that was not there when the tap began hears of it as well."""
    tap = tapping(house)
    await tap.read()
    assert len(await orders(await house.node("orders").watch())) == 1
    tap.cancel()
