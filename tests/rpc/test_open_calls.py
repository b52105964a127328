"""Calls in progress: a permit is good for as long as what it hangs on, whatever the call is doing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from mesh.core.errors import Denied
from mesh.core.matcher import Matcher, Permit
from mesh.core.metadata import Entries
from mesh.core.names import InstanceId
from mesh.core.policy import Section
from mesh.rpc import open_calls
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, Rejection, deny_all
from mesh.rpc.open_calls import BATCH, OpenCall, OpenCalls
from mesh.rpc.server import MeshServer
from mesh.slices import Slice
from mesh.v1 import gatekeeper_pb2
from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually, reason_of
from tests.rpc.pair import World

C = grpc.StatusCode
DAY = 1_700_000_000_000  # at 22:13 UTC
BY_DAY = b'{"allow":[{"principals":["caller"],"paths":["*"],"when":"time.getHours() >= 18"}]}'
ANYBODY = b'{"allow":[{"principals":["caller"],"paths":["*"]}]}'
MAX_STALE = 600.0


class Held:
    """A slice in force at ``callee``, with the clocks and the certificate that it looks at."""

    def __init__(self, callee: Membership) -> None:
        """Judge calls by it."""
        self.now, self.clock_ms, self.certified = 1000.0, DAY, 3600.0
        self.judged = 0
        self.slice = Slice(lambda: self.now, lambda: self.certified, lambda: self.clock_ms)
        callee.now, callee.authorize, callee.standing = lambda: self.now, self.authorize, self.slice.standing

    def authorize(self, source: str, method: str, entries: Entries) -> Permit:
        """Judge, and count it."""
        self.judged += 1
        return self.slice.authorize(source, method, entries)

    def rules(self, rules: bytes) -> None:
        """Put rules in force."""
        held = gatekeeper_pb2.Slice(policy_version=1, rules=rules, max_stale_ms=int(MAX_STALE * 1000))
        self.slice.apply(held, self.clock_ms)

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.clock_ms += int(seconds * 1000)
        self.certified -= seconds


@pytest.fixture
async def held(callee: Membership) -> Held:
    """Judge calls to ``callee`` by a slice."""
    return Held(callee)


@pytest.fixture
def never_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but a message find out."""
    monkeypatch.setattr(open_calls, "LOOK", 3600.0)


@pytest.fixture
def often_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let idle calls be looked through without delay."""
    monkeypatch.setattr(open_calls, "LOOK", 0.01)


async def _all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def denial(call: Any) -> str | None:
    """Read to the end, which is a denial, and give its id."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(_all(call), 10)
    assert caught.value.code() is C.PERMISSION_DENIED
    reason, call_id = reason_of(caught.value.trailing_metadata())
    assert reason == "POLICY_DENIED"
    return call_id


def night_falls(held: Held) -> None:
    """Let the hour go by until which a condition holds."""
    held.certified = 1e9
    held.passes(40_000)
    held.slice.alive(held.clock_ms)


def gatekeeper_is_silent(held: Held) -> None:
    """Let the slice go stale."""
    held.passes(MAX_STALE)


def the_certificate_ends(held: Held) -> None:
    """Renew it too late, though gatekeeper is there."""
    held.passes(3600)
    held.slice.alive(held.clock_ms)


ENDS = [(BY_DAY, night_falls), (ANYBODY, gatekeeper_is_silent), (ANYBODY, the_certificate_ends)]
ends_of_permits = pytest.mark.parametrize(("rules", "end"), ENDS)


@pytest.mark.usefixtures("never_looking")
@ends_of_permits
async def test_the_next_request_finds_out(
    channel: MeshChannel,
    app: Echo,
    held: Held,
    rejected: list[Rejection],
    rules: bytes,
    end: Callable[[Held], None],
) -> None:
    """A message that comes after the permit has ended reaches no application, and ends the call."""
    held.rules(rules)
    call = channel.stream_stream(path("Both"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    end(held)
    await call.write(b"two")
    assert await denial(call) == rejected[0].id
    assert (app.seen, app.ends) == ([b"one"], 0)


@pytest.mark.usefixtures("never_looking")
@ends_of_permits
async def test_the_next_reply_finds_out(
    channel: MeshChannel, app: Echo, held: Held, rules: bytes, end: Callable[[Held], None]
) -> None:
    """A reply that the application makes after the permit has ended is not sent."""
    held.rules(rules)
    call = channel.stream_stream(path("Hold"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    await call.write(b"two")
    await app.waiting.wait()
    app.waiting.clear()
    app.go_on.set()
    assert await call.read() == b"two"
    await app.waiting.wait()
    end(held)
    await call.write(b"three")
    await denial(call)
    assert app.seen == [b"one", b"two"]


@pytest.mark.usefixtures("often_looking")
@pytest.mark.parametrize("method", ["Hold", "Wait", "Up", "Both"])
@ends_of_permits
async def test_an_idle_call_is_ended(
    server: MeshServer,
    channel: MeshChannel,
    app: Echo,
    held: Held,
    method: str,
    rules: bytes,
    end: Callable[[Held], None],
) -> None:
    """Without any message, too, whatever kind of call it is."""
    held.rules(rules)
    call: Any
    if method == "Wait":
        call = channel.unary_unary(path(method))(b"")
        await app.waiting.wait()
    else:
        call = (channel.stream_unary if method == "Up" else channel.stream_stream)(path(method))()
        await call.write(b"one")
        await eventually(lambda: app.seen == [b"one"])
    end(held)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(10):
            await (call if method in ("Wait", "Up") else _all(call))
    assert reason_of(caught.value.trailing_metadata())[0] == "POLICY_DENIED"
    await eventually(lambda: not server.open_calls)
    assert app.ends == 0


@pytest.mark.usefixtures("never_looking")
async def test_a_permit_that_lasts_is_not_judged_again(channel: MeshChannel, held: Held) -> None:
    """A message costs a look at the clock; only what hangs on time is judged, once a millisecond."""
    counts = []
    for rules in (ANYBODY, BY_DAY):
        held.rules(rules)
        held.judged = 0
        call = channel.stream_stream(path("Both"))()
        for _ in range(20):
            await call.write(b"m")
            assert await call.read() == b"m"
        for _ in range(5):
            held.passes(0.002)
            await call.write(b"m")
            assert await call.read() == b"m"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        counts.append(held.judged)
    assert counts == [1, 6]


async def test_an_extended_permit_goes_on(channel: MeshChannel, held: Held) -> None:
    """A permit that has ended is given anew if its cause still holds: the slice was kept alive meanwhile."""
    held.rules(ANYBODY)
    call = channel.stream_stream(path("Both"))()
    for _ in range(3):
        await call.write(b"m")
        assert await call.read() == b"m"
        held.passes(MAX_STALE - 1)
        held.slice.alive(held.clock_ms)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


class _Stubborn(grpc.GenericRpcHandler):
    """An application that takes no hint."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.entered = asyncio.Event()

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.stream_stream_rpc_method_handler(self.stay)

    async def stay(self, _requests: AsyncIterator[bytes], context: Any) -> None:
        self.entered.set()
        for _ in range(3):
            try:
                self.told.append((await context.read()).decode())
                await context.write(b"heard")
            except Denied:
                self.told.append("denied")
        await asyncio.get_running_loop().create_future()


@pytest.mark.usefixtures("often_looking")
async def test_a_handler_that_catches_its_end_is_ended(world: World, callee: Membership, held: Held) -> None:
    """What it reads and writes after the first denial is denied as well, and its rest is cancelled."""
    held.rules(ANYBODY)
    stubborn = _Stubborn()
    server = world.serve(callee)
    server.add_generic_rpc_handlers((stubborn,))
    await server.start()
    call: Any = world.channel(world.member("caller"), "callee").stream_stream("/p.S/Stay")()
    await call.write(b"one")
    assert await call.read() == b"heard"
    held.rules(ANYBODY)
    held.passes(MAX_STALE)
    with contextlib.suppress(grpc.aio.AioRpcError):  # it may have ended before the second is written
        for message in (b"two", b"three"):
            await call.write(message)
    await denial(call)
    assert set(stubborn.told) <= {"one", "denied"}
    await server.stop(None)


@pytest.mark.usefixtures("never_looking")
async def test_no_message_passes_before_the_calls_are_looked_through(
    server: MeshServer, channel: MeshChannel, callee: Membership, app: Echo
) -> None:
    """A change of rules counts for the very next message, even before anybody came to ending the call."""
    call = channel.stream_stream(path("Both"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    callee.authorize = deny_all
    for one in server.open_calls:
        one.recall()
    await call.write(b"two")
    await denial(call)
    assert app.seen == [b"one"]


@pytest.mark.parametrize("blocked", ["writing", "idle", "reading late"])
@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_the_callers_end_learns_why(
    server: MeshServer,
    channel: MeshChannel,
    callee: Membership,
    app: Echo,
    rejected: list[Rejection],
    kind: str,
    blocked: str,
) -> None:
    """Also where it is stuck in sending, waits for nothing, or asks only after the call has ended."""
    method = {"stream_unary": "Stuck", "stream_stream": "Hold"}[kind]
    call: Any = getattr(channel, kind)(path(method))()
    await call.write(b"first")
    await app.waiting.wait()
    if kind == "stream_stream" and blocked != "writing":
        assert await call.read() == b"first"  # gRPC tells no end while a message is unread
    writing = asyncio.ensure_future(_flood(call)) if blocked == "writing" else None
    if writing is not None:
        await _stands_still(writing, call)
    callee.authorize = deny_all
    server.recheck()
    if blocked == "reading late":
        await eventually(lambda: not server.open_calls)
    if writing is not None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(writing, 10)
        assert reason_of(caught.value.trailing_metadata()) == ("POLICY_DENIED", rejected[0].id)
    assert await asyncio.wait_for(call.code(), 10) is C.PERMISSION_DENIED
    assert reason_of(await call.trailing_metadata()) == ("POLICY_DENIED", rejected[0].id)


async def _flood(call: Any) -> None:
    while True:
        await call.write(bytes(64 * 1024))
        call.flooded = getattr(call, "flooded", 0) + 1


async def _stands_still(writing: asyncio.Future[None], call: Any) -> None:
    """Wait until a writer makes no headway: the transport holds all that it can."""
    before, still = -1, 0
    while still < 10:
        await asyncio.sleep(0.02)
        assert not writing.done()
        now = getattr(call, "flooded", 0)
        before, still = now, still + 1 if now == before else 0


async def test_many_ends_leave_turns_for_others(callee: Membership) -> None:
    """Of a thousand open calls some are ended, then everybody else has a turn, then some more."""
    callee.authorize = Matcher(Section.parse(ANYBODY)).permit
    calls, turns = OpenCalls(), 0
    admitted: Any = type("Admitted", (), {"metadata": (), "header": _Header()})()
    waiting: list[asyncio.Task[None]] = []

    async def open_one() -> None:
        calls.add(OpenCall(admitted, Permit("caller", "/p.S/M", "rule"), callee))
        await asyncio.get_running_loop().create_future()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = [asyncio.create_task(open_one()) for _ in range(1000)]
    await eventually(lambda: len(calls) == 1000)
    callee.authorize = deny_all
    calls.recall()
    tasks = [asyncio.create_task(calls.keep()), asyncio.create_task(take_turns())]
    await asyncio.wait(waiting, timeout=30)
    assert turns >= 1000 / BATCH - 1
    assert all(task.cancelled() for task in waiting)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Header:
    def __init__(self) -> None:
        self.source = self.method = type("Text", (), {"text": "caller"})()
        self.source_instance = InstanceId(bytes(16))


async def test_a_thousand_open_streams_end(
    server: MeshServer, channel: MeshChannel, callee: Membership, rejected: list[Rejection]
) -> None:
    """Each with its own denial, at both ends."""
    calls: list[Any] = [channel.stream_stream(path("Both"))() for _ in range(900)]
    for call in calls:
        await call.write(b"m")
    for call in calls:
        assert await call.read() == b"m"
    assert len(server.open_calls) == 900
    callee.authorize = deny_all
    server.recheck()
    ids = {await denial(call) for call in calls}
    assert ids == {one.id for one in rejected}
    assert len(ids) == 900
