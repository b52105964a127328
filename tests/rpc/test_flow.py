"""Where a node's calls go, how many there may be, and who is left out: over real connections."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from mesh.core.balance import heaviest
from mesh.core.metadata import Entries
from mesh.core.names import ServiceName
from mesh.core.rules import HeaderRule
from mesh.core.traffic import NONE, Balance, Breaker, By, Eject, Rate, Retry, Route, Share, Traffic
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connections, Endpoint
from mesh.rpc.flow import Flow
from mesh.rpc.limits import Limits
from mesh.rpc.membership import Membership
from mesh.rpc.routing import Routings
from mesh.rpc.status import DETAILS, reason_of
from mesh.rpc.targets import DirectoryTarget
from mesh.telemetry import names
from mesh.telemetry.observer import NodeTelemetry
from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually
from tests.rpc.pair import World, _has_keys

C = grpc.StatusCode
CALLEE, OTHER = ServiceName("callee"), ServiceName("other")


class Ill(Echo):
    """An application that says it cannot, until it is well again."""

    ill = False

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Echo, or fail."""
        if self.ill:
            self.calls.append("Unary")
            await context.abort(C.UNAVAILABLE, "ill")
        return await super().unary(request, context)


class Several:
    """Three instances of ``callee``, one of ``other``, and ``caller``."""

    def __init__(self, world: World) -> None:
        """Let all in."""
        self.world, self.caller = world, world.member("caller")
        self.telemetry = NodeTelemetry(self.caller.identity)
        self.caller.observer = self.telemetry
        self.members = [world.member("callee") for _ in range(3)]
        self.apps = [Ill() for _ in range(3)]
        self.other = Echo()
        self.connections: dict[ServiceName, Connections] = {}
        self.channel = self.channel_of(self.caller)

    async def start(self, stack: AsyncExitStack) -> None:
        """Serve, and list."""
        endpoints = []
        for member, app in zip(
            (*self.members, self.world.member("other")), (*self.apps, self.other), strict=True
        ):
            server = self.world.serve(member)
            server.add_generic_rpc_handlers((app,))
            await server.start()
            stack.push_async_callback(server.stop, None)
            endpoints.append(Endpoint(member.instance, f"127.0.0.1:{server.port}"))
        self.world.directory.listed[CALLEE] = endpoints[:3]
        del self.world.directory.listed[OTHER]
        self._other = endpoints[3]

    def list_other(self, *, at_all: bool = True) -> None:
        """List ``other``, with its instance or without one."""
        self.world.directory.listed[OTHER] = [self._other] if at_all else []

    def say(self, **traffic: Any) -> None:
        """Have the policy say something of calls to ``callee``."""
        self.world.directory.told[CALLEE] = Traffic(**traffic)

    def channel_of(self, member: Membership) -> MeshChannel:
        """Give a node's channel, with a flow for each service."""
        held: dict[ServiceName, Connections] = {} if member is not self.caller else self.connections

        def connections(service: ServiceName) -> Connections:
            return held.get(service) or held.setdefault(service, Connections(member, service))

        target = DirectoryTarget(CALLEE, self.world.directory, connections, _has_keys)
        routing = Routings(self.world.directory.traffic, member.now).of(CALLEE)
        return MeshChannel(member, target, routing=routing)

    @property
    def flow(self) -> Flow:
        """The caller's flow to ``callee``."""
        return self.connections[CALLEE].flow

    async def call(self, metadata: Entries = (), **options: Any) -> bytes:
        """Call once."""
        call: Any = self.channel.unary_unary(path("Unary"))
        reply: bytes = await call(b"m", metadata=metadata, **options)
        return reply

    def counts(self) -> list[int]:
        """How many calls each instance has seen."""
        return [len(app.calls) for app in self.apps]


@pytest.fixture
async def several(world: World) -> AsyncIterator[Several]:
    """Serve all of them."""
    async with AsyncExitStack() as stack:
        several = Several(world)
        await several.start(stack)
        yield several


async def test_in_turn(several: Several) -> None:
    """Nine calls are three for each of three."""
    several.say(balance=Balance(By.ROUND_ROBIN))
    for _ in range(9):
        await several.call()
    assert several.counts() == [3, 3, 3]


async def test_by_hash_every_node_goes_to_the_same(several: Several, world: World) -> None:
    """A value of the key decides, whoever calls; it goes on elsewhere when its instance is gone."""
    several.say(balance=Balance(By.HASH, "x-customer"))
    second: Any = several.channel_of(world.member("caller")).unary_unary(path("Unary"))
    listed = world.directory.listed[CALLEE]
    for number in range(12):
        entries = (("x-customer", f"c{number}"),)
        at = listed.index(heaviest(listed, f"c{number}"))
        before = several.counts()[at]
        await several.call(entries)
        await second(b"m", metadata=entries)
        assert several.counts()[at] == before + 2
    gone = listed.index(heaviest(listed, "c0"))
    seen = several.counts()
    world.directory.listed[CALLEE] = [one for one in listed if one is not listed[gone]]
    assert await several.call((("x-customer", "c0"),)) == b"m"
    assert (several.counts()[gone], sum(several.counts())) == (seen[gone], sum(seen) + 1)


async def test_policy_changes_what_comes_next(several: Several) -> None:
    """From one call to the next, and back."""
    several.say(balance=Balance(By.HASH, "x-customer"))
    for _ in range(6):
        await several.call((("x-customer", "c"),))
    assert sorted(several.counts()) == [0, 0, 6]
    several.say(balance=Balance(By.ROUND_ROBIN))
    for _ in range(6):
        await several.call((("x-customer", "c"),))
    assert sorted(several.counts()) == [2, 2, 8]


async def test_places_queue_and_too_many(several: Several, caplog: pytest.LogCaptureFixture) -> None:
    """One call has the place, one waits, the next is refused by name; who waits comes in when one ends."""
    several.say(breaker=Breaker(1, 1))
    wait: Any = several.channel.unary_unary(path("Wait"))
    stream: Any = several.channel.stream_stream(path("Both"))
    first = wait(b"m")
    await eventually(lambda: any(app.waiting.is_set() for app in several.apps))
    second = asyncio.ensure_future(several.call())
    await eventually(lambda: several.flow.gate.waiting == 1)
    for refused in (several.call(), stream(iter([b"a"])).read()):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused
        assert (caught.value.code(), reason_of(caught.value)) == (C.RESOURCE_EXHAUSTED, "mesh/OVERLOADED")
    assert not second.done()
    first.cancel()
    assert await second == b"m"
    await eventually(lambda: several.flow.gate.open == 0)
    assert [one.levelno for one in caplog.records if "no place" in one.message] == [logging.WARNING]
    assert several.telemetry.counts.overloads == {"callee": 2}


async def test_who_waits_is_bound_by_its_deadline_and_may_give_up(several: Several) -> None:
    """A late one ends as late, a cancelled one leaves the queue, and the place is there for the next."""
    several.say(breaker=Breaker(1, 5))
    wait: Any = several.channel.unary_unary(path("Wait"))
    first = wait(b"m")
    await eventually(lambda: any(app.waiting.is_set() for app in several.apps))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await several.call(timeout=0.05)
    assert caught.value.code() is C.DEADLINE_EXCEEDED
    waiting = [asyncio.ensure_future(several.call()) for _ in range(3)]
    await eventually(lambda: several.flow.gate.waiting == 3)
    waiting[0].cancel()
    first.cancel()
    waiting[1].cancel()  # in the very moment in which it may have been its turn
    assert await waiting[2] == b"m"
    await eventually(lambda: (several.flow.gate.open, several.flow.gate.waiting) == (0, 0))


async def test_lifted_limits_let_in_who_waits(several: Several) -> None:
    """As soon as the next call looks at what holds."""
    several.say(breaker=Breaker(1, 5))
    wait: Any = several.channel.unary_unary(path("Wait"))
    first = wait(b"m")
    await eventually(lambda: any(app.waiting.is_set() for app in several.apps))
    waiting = asyncio.ensure_future(several.call())
    await eventually(lambda: several.flow.gate.waiting == 1)
    several.world.directory.told[CALLEE] = NONE
    assert await several.call() == b"m"
    assert await waiting == b"m"
    first.cancel()
    await eventually(lambda: several.flow.gate.open == 0)


async def test_no_place_is_lost(several: Several) -> None:
    """However calls end, their places come back: cancelled, late, failed, refused, without an instance."""
    several.say(breaker=Breaker(3, 3))
    wait: Any = several.channel.unary_unary(path("Wait"))
    hold: Any = several.channel.stream_stream(path("Hold"))
    for _ in range(5):
        calls = [wait(b"m", timeout=0.03), wait(b"m"), hold(iter([b"a"]), timeout=0.03), hold(), wait(b"m")]
        await asyncio.sleep(0)
        for call in calls[1::2]:
            call.cancel()
        calls[4].cancel()
        await asyncio.gather(*(call.code() for call in calls))
    await eventually(lambda: (several.flow.gate.open, several.flow.gate.waiting) == (0, 0))
    listed = several.world.directory.listed.pop(CALLEE)
    with pytest.raises(grpc.aio.AioRpcError):
        await several.call()
    several.world.directory.listed[CALLEE] = listed
    assert await several.call() == b"m"
    assert several.flow.gate.open == 0


async def test_who_fails_is_left_out_and_comes_back(
    several: Several, caplog: pytest.LogCaptureFixture
) -> None:
    """After failures in a row it has no calls, then one on trial, and all of its share when that is well."""
    caplog.set_level(logging.INFO, "mesh")
    several.caller.now = Time()
    several.say(balance=Balance(By.ROUND_ROBIN), eject=Eject(2, 10_000))
    several.apps[1].ill = True
    codes = Counter[C]()
    for _ in range(30):
        codes[await _code(several)] += 1
    assert codes == {C.OK: 28, C.UNAVAILABLE: 2}
    assert len(several.apps[1].calls) == 2
    assert "left out: instance" in caplog.text
    assert several.telemetry.counts.ejections == {names.FAILING: 1}
    several.caller.now.at += 10
    for _ in range(6):
        codes[await _code(several)] += 1
    assert codes[C.UNAVAILABLE] == 3  # on trial, once
    several.apps[1].ill = False
    several.caller.now.at += 20
    for _ in range(6):
        assert await _code(several) is C.OK
    assert len(several.apps[1].calls) == 5
    assert "not left out any more" in caplog.text


async def test_who_does_not_answer_is_left_out(several: Several) -> None:
    """Calls that end at their deadline without a word count; denials and the application's errors do not."""
    several.caller.now = Time()
    several.say(eject=Eject(1, 10_000))
    wait: Any = several.channel.unary_unary(path("Wait"))
    assert await wait(b"m", timeout=0.2).code() is C.DEADLINE_EXCEEDED
    silent = next(app for app in several.apps if app.calls)
    for _ in range(20):
        assert await several.call() == b"m"
    assert silent.calls == ["Wait"]
    abort: Any = several.channel.unary_unary(path("Abort"))
    for _ in range(20):
        await abort(b"m").code()
    assert sum(bool(app.calls.count("Abort")) for app in several.apps) == 2


async def test_where_nobody_can_be_reached_calls_end(several: Several, world: World) -> None:
    """Also those that policy has tried again: each instance is looked at, and then that is that."""
    members, route = [world.member("callee") for _ in range(3)], Route(("*",), retry=Retry(3, backoff_ms=1))
    listed = [Endpoint(m.instance, f"127.0.0.1:{n + 1}") for n, m in enumerate(members)]
    world.directory.listed[CALLEE] = listed
    several.say(routes=(route,), eject=Eject(1, 10_000))
    for _ in range(3):
        assert await _code(several) is C.UNAVAILABLE
    assert several.flow.gate.open == 0


async def test_a_split_changes_whom_a_call_is_for(several: Several) -> None:
    """By header or weight; never to a service that the slice does not list, or that has no instance."""
    canary = Share("other", headers=(HeaderRule("x-canary", ("*",)),))
    several.say(split=(canary,))
    await several.call((("x-canary", "1"),))
    assert several.other.calls == []  # not listed
    several.list_other(at_all=False)
    await several.call((("x-canary", "1"),))
    assert several.other.calls == []  # no instance
    several.list_other()
    await several.call((("x-canary", "1"),))
    await several.call()
    assert (several.other.calls, sum(several.counts())) == (["Unary"], 3)
    stream: Any = several.channel.stream_stream(path("Both"))
    assert [m async for m in stream(iter([b"a"]), metadata=(("x-canary", "1"),))] == [b"a"]
    several.say(split=(Share("other", weight=1),))
    await several.call()
    assert several.other.calls == ["Unary", "Both", "Unary"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await several.call((("mesh-peer", "me"),))
    assert reason_of(caught.value) == "mesh/BAD_REQUEST"


async def test_each_caller_has_its_rate(
    several: Several, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond it calls end before the application sees them, under seal, with the time to wait."""
    world.directory.listed[CALLEE] = world.directory.listed[CALLEE][:1]
    callee, app = several.members[0], several.apps[0]
    telemetry = callee.observer = NodeTelemetry(callee.identity)
    callee.now = Time()
    rates = [Rate(1, 2)]
    callee.limited = Limits(callee, lambda: rates[0] if rates else None)
    for _ in range(2):
        await several.call()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await several.call()
    assert (caught.value.code(), reason_of(caught.value)) == (C.RESOURCE_EXHAUSTED, "mesh/RATE_LIMITED")
    assert 0.9 < _retry(caught.value) <= 1.0
    stream: Any = several.channel.stream_stream(path("Both"))
    assert await stream(iter([b"a"])).code() is C.RESOURCE_EXHAUSTED
    assert len(app.calls) == 2
    assert telemetry.counts.limits == {"caller": 2}
    assert caplog.text.count("beyond the rate") == 1
    elsewhere: Any = several.channel_of(world.member("other")).unary_unary(path("Unary"))
    assert await elsewhere(b"m") == b"m"
    callee.now.at += 1
    assert await several.call() == b"m"
    rates.clear()
    for _ in range(5):
        await several.call()


def _retry(error: grpc.aio.AioRpcError) -> float:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS:
            assert isinstance(value, bytes)
            info = error_details_pb2.RetryInfo()
            assert any(one.Unpack(info) for one in status_pb2.Status.FromString(value).details)
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    raise AssertionError("no details")


async def _code(several: Several) -> grpc.StatusCode:
    call: Any = several.channel.unary_unary(path("Unary"))
    code: grpc.StatusCode = await call(b"m").code()
    return code


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        """Start somewhere."""
        self.at = 1000.0

    def __call__(self) -> float:
        """Give the seconds."""
        return self.at
