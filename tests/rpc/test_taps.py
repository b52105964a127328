"""Taps on a node: what is told of which calls, without what is in them, and nothing while nobody looks."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from mesh.core.errors import Cause, PeerError
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, deny_all
from mesh.rpc.server import MeshServer
from mesh.taps import BYTES, RATE, WAITING, NodeTaps
from mesh.v1 import gatekeeper_pb2, tap_pb2
from services.gatekeeper.service import MAX_REQUEST
from tests.rpc.app import path
from tests.rpc.attack import eventually

ANY = tap_pb2.TapFilter()


class Beats:
    """Counts how often the node was to send a heartbeat."""

    count = 0

    def tell(self) -> None:
        """Count."""
        self.count += 1


@pytest.fixture
def beats() -> Beats:
    return Beats()


@pytest.fixture
def taps(callee: Membership, beats: Beats) -> Iterator[NodeTaps]:
    made = NodeTaps(callee, beats.tell)
    yield made
    if made._due is not None:
        made._due.cancel()


def order(taps: NodeTaps, *filters: tap_pb2.TapFilter, stream: str = "s") -> None:
    taps.order(stream, tap_pb2.TapOrders(filters=filters))


async def called(channel: MeshChannel, method: str = "Unary", payload: bytes = b"payload") -> grpc.StatusCode:
    code: grpc.StatusCode = await channel.unary_unary(path(method))(
        payload, metadata=(("x-a", "hush"),)
    ).code()
    return code


async def test_a_call(channel: MeshChannel, callee: Membership, caller: Membership, taps: NodeTaps) -> None:
    """Its names, numbers and times are told, and nothing that is in it."""
    order(taps, ANY)
    assert await called(channel, payload=b"very-secret") is grpc.StatusCode.OK
    (one,), untold = taps.take("s")
    assert (one.source, one.source_instance) == ("caller", caller.instance.raw)
    assert (one.method, one.verdict, one.status, one.reason) == (path("Unary"), "allow", "OK", "")
    assert (one.key_epoch, untold, len(one.call_id)) == (1, 0, 16)
    assert one.duration_us > 0
    assert abs(one.at_ms - callee.clock.now_ms()) < 60_000
    assert b"hush" not in one.SerializeToString()
    assert b"very-secret" not in one.SerializeToString()
    assert taps.take("s") == ([], 0)


async def test_nobody_looks(channel: MeshChannel, callee: Membership, taps: NodeTaps) -> None:
    """Without a tap there is nothing on the way of a call, and nothing again once it has ended."""
    seen = [callee.tap]
    order(taps, ANY)
    seen.append(callee.tap)
    taps.forget("s")
    assert [*seen, callee.tap] == [None, taps, None]
    await called(channel)
    assert taps.take("s") == ([], 0)


async def test_denied(channel: MeshChannel, callee: Membership, taps: NodeTaps) -> None:
    """A denial has the id that its caller is told."""
    callee.authorize = deny_all
    order(taps, tap_pb2.TapFilter(verdict="deny"))
    call = channel.unary_unary(path("Unary"))(b"x")
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    (one,), _ = taps.take("s")
    assert (one.verdict, one.status, one.reason) == ("deny", "PERMISSION_DENIED", "POLICY_DENIED")
    assert one.call_id in str(await call.details())


async def test_denied_while_it_runs(
    channel: MeshChannel, callee: Membership, server: MeshServer, taps: NodeTaps
) -> None:
    """A call whose permit ends is a denied one."""
    order(taps, ANY)
    call = channel.stream_stream(path("Both"))()
    await call.write(b"x")
    await call.read()
    callee.authorize = deny_all
    server.recheck()
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    (one,), _ = taps.take("s")
    assert (one.verdict, one.status, one.reason) == ("deny", "PERMISSION_DENIED", "POLICY_DENIED")


async def test_the_applications_own_error(channel: MeshChannel, taps: NodeTaps) -> None:
    """What the application said is its status, and no refusal."""
    order(taps, ANY)
    assert await called(channel, "Nothing") is grpc.StatusCode.UNIMPLEMENTED
    (one,), _ = taps.take("s")
    assert (one.verdict, one.status, one.reason) == ("allow", "UNIMPLEMENTED", "")


async def test_filters(channel: MeshChannel, taps: NodeTaps) -> None:
    """A call is told where any filter of a stream takes it, once; streams have filters of their own."""
    order(taps, tap_pb2.TapFilter(method=path("Unary")), ANY, stream="one")
    order(taps, tap_pb2.TapFilter(source="nobody"), stream="two")
    order(taps, tap_pb2.TapFilter(source="caller", verdict="allow"), stream="three")
    await called(channel)
    assert [len(taps.take(stream)[0]) for stream in ("one", "two", "three", "four")] == [1, 0, 1, 0]
    taps.forget("one")
    await called(channel)
    assert [len(taps.take(stream)[0]) for stream in ("one", "three")] == [0, 1]


def rejected(taps: NodeTaps, number: int, method: str = "/p.S/M") -> None:
    for _ in range(number):
        taps.rejected(PeerError(Cause.BAD_MAC), method, "0" * 16)


async def test_so_many_and_no_more(taps: NodeTaps, beats: Beats, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over the rate is counted; a second later there is room again."""
    now = [100.0]
    monkeypatch.setattr("mesh.taps.monotonic", lambda: now[0])
    taps._at = now[0]
    order(taps, ANY)
    rejected(taps, 3 * int(RATE))
    calls, untold = taps.take("s")
    assert (len(calls), untold) == (RATE, 2 * RATE)
    assert {(one.verdict, one.source, one.status) for one in calls} == {("reject", "", "")}
    now[0] += 0.5
    rejected(taps, int(RATE))
    assert (len(taps.take("s")[0]), taps.take("s")[1]) == (RATE / 2, 0)
    await eventually(lambda: beats.count > 0)


async def test_a_stream_that_does_not_move(taps: NodeTaps, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded, and one heartbeat bears no more than gatekeeper takes."""
    monkeypatch.setattr("mesh.taps.RATE", 1e9)
    order(taps, ANY)
    taps._left = 1e9
    rejected(taps, 2 * WAITING, "/p.S/" + "M" * 600)
    calls, untold = taps.take("s")
    assert untold == WAITING
    assert 0 < len(calls) < WAITING
    beat = gatekeeper_pb2.WatchRequest(tapped=calls)
    assert BYTES <= beat.ByteSize() < MAX_REQUEST
    total = len(calls)
    while calls := taps.take("s")[0]:
        total += len(calls)
    assert total == WAITING
