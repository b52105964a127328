"""Calls as their routes say, between two nodes: timeouts, retries, hedging and faults, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from mesh.core.names import ServiceName
from mesh.core.traffic import Fault, Hedge, Retry, Route, Traffic
from mesh.core.wire import CallHeader
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Endpoint
from mesh.rpc.held import MAX_HELD
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.v1 import signer_pb2
from tests.rpc.attack import eventually, reason_of
from tests.rpc.flaky import PATH, Flaky
from tests.rpc.pair import World

C = grpc.StatusCode
CALLEE = ServiceName("callee")


@pytest.fixture
async def flaky() -> Flaky:
    """Make an application that fails as it is told."""
    return Flaky()


@pytest.fixture
async def served(world: World, flaky: Flaky) -> AsyncIterator[list[MeshServer]]:
    """Serve it by two instances of ``callee``."""
    servers, listed = [], []
    for _ in range(2):
        member = world.member("callee")
        server = world.serve(member)
        server.add_generic_rpc_handlers((flaky,))
        await server.start()
        servers.append(server)
        listed += world.directory.listed[CALLEE]
    world.directory.listed[CALLEE] = listed
    yield servers
    for server in servers:
        await server.stop(None)


Road = Callable[..., MeshChannel]


@pytest.fixture
def road(world: World, served: list[MeshServer], caller: Membership) -> Road:  # noqa: ARG001
    """Give a channel under one route for every method."""

    def make(**said: Any) -> MeshChannel:
        world.directory.told[CALLEE] = Traffic(routes=(Route(("*",), **said),))
        return world.channel(caller, "callee")

    return make


async def made(channel: MeshChannel, kind: str, seconds: float | None = 10) -> list[bytes]:
    """Make a call of a kind with what it takes, and give its messages."""
    if kind == "Unary":
        return [await channel.unary_unary(PATH + kind)(b"a", timeout=seconds)]
    if kind == "Down":
        return [message async for message in channel.unary_stream(PATH + kind)(b"a", timeout=seconds)]
    if kind == "Up":
        return [await channel.stream_unary(PATH + kind)(iter([b"a", b"b"]), timeout=seconds)]
    call = channel.stream_stream(PATH + kind)(iter([b"a", b"b"]), timeout=seconds)
    return [message async for message in call]


async def failed(channel: MeshChannel, kind: str, seconds: float | None = 10) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await made(channel, kind, seconds)
    return caught.value


ECHOED = {"Unary": [b"a"], "Down": [b"a", b"a"], "Up": [b"a,b"], "Both": [b"a", b"b"]}
FAST = Retry(3, backoff_ms=1, longest_ms=1)


@pytest.mark.parametrize("kind", ECHOED)
async def test_what_is_declared_safe_is_repeated(road: Road, flaky: Flaky, kind: str) -> None:
    """A call that fails with one of the codes is made again, with all its requests, and nobody notices."""
    flaky.script = [C.UNAVAILABLE, C.UNAVAILABLE]
    assert await made(road(retry=FAST), kind) == ECHOED[kind]
    assert len(flaky.calls) == 3
    assert len(set(flaky.calls)) == 1


@pytest.mark.parametrize("kind", ECHOED)
async def test_attempts_have_an_end(road: Road, flaky: Flaky, kind: str) -> None:
    """After the last attempt its own end is what the application is told."""
    flaky.script = [C.UNAVAILABLE] * 5
    error = await failed(road(retry=FAST), kind)
    assert (error.code(), error.details()) == (C.UNAVAILABLE, "scripted")
    assert len(flaky.calls) == 3


@pytest.mark.parametrize("kind", ECHOED)
@pytest.mark.parametrize("route", [{}, {"retry": FAST}])
async def test_what_is_not_declared_is_not(
    road: Road, flaky: Flaky, kind: str, route: dict[str, Any]
) -> None:
    """Another code, or no retry, and the call ends as it ended."""
    flaky.script = [C.ABORTED if route else C.UNAVAILABLE]
    await failed(road(**route), kind)
    assert len(flaky.calls) == 1


async def test_nothing_is_repeated_once_a_reply_has_begun(road: Road, flaky: Flaky) -> None:
    """What the application has seen of a reply is followed by its end and by nothing else."""
    flaky.script = ["late"]
    call = road(retry=FAST).unary_stream(PATH + "Down")(b"a", timeout=10)
    assert await call.read() == b"a"
    with pytest.raises(grpc.aio.AioRpcError, match="after a message"):
        await call.read()
    assert len(flaky.calls) == 1


async def test_another_attempt_goes_elsewhere(world: World, road: Road, flaky: Flaky) -> None:
    """To an instance that the call was not at, under a new sequence number."""
    came: list[CallHeader] = []
    channel = road(retry=FAST)
    for member in world.members:
        member.decided = lambda admitted, _: came.append(admitted.header)
    for _ in range(10):
        flaky.script = [C.UNAVAILABLE]
        await made(channel, "Unary")
        assert len({header.destination_instance for header in came[-2:]}) == 2
    numbers = {(header.destination_instance, header.sequence) for header in came}
    assert len(numbers) == len(came) == 20


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_requests_that_auth_does_not_seal_again(
    world: World, road: Road, flaky: Flaky, served: list[MeshServer], kind: str
) -> None:
    """An attempt whose requests auth does not seal is cancelled, and the next is made."""
    calls: list[str] = []

    def refuses(request: signer_pb2.SignRequest) -> bool:
        if request.HasField("new_call"):
            calls.append("new")
        refused = calls == ["new", "new"] and request.parts.HasField("frame") and not request.parts.reply
        if refused:
            calls.append("refused")
        return refused

    assert world.keeper
    world.keeper.refuses = refuses
    flaky.script = [C.UNAVAILABLE]
    assert await made(road(retry=FAST), kind, None) == ECHOED[kind]
    assert calls == ["new", "new", "refused", "new"]
    await eventually(lambda: not any(server.open_calls for server in served))


@pytest.mark.parametrize("kind", ECHOED)
async def test_a_call_that_auth_does_not_seal(world: World, road: Road, flaky: Flaky, kind: str) -> None:
    """Is repeated if its route lets it, and reaches nobody before."""
    refused: list[bool] = []

    def refuses(request: signer_pb2.SignRequest) -> bool:
        if request.HasField("new_call") and not refused:
            refused.append(True)
            return True
        return False

    assert world.keeper
    world.keeper.refuses = refuses
    channel = road(retry=FAST)
    assert await made(channel, kind) == ECHOED[kind]
    assert (refused, len(flaky.calls)) == ([True], 1)


@pytest.mark.parametrize("kind", ["Unary", "Down", "Up"])
@pytest.mark.parametrize(("pushback", "calls"), [("0", 2), ("-1", 1)])
async def test_a_server_says_when(road: Road, flaky: Flaky, kind: str, pushback: str, calls: int) -> None:
    """What it says of the next attempt goes before the route's pauses: here one of an hour."""
    flaky.script = [(C.UNAVAILABLE, pushback)]
    channel = road(retry=Retry(2, backoff_ms=3_600_000, longest_ms=3_600_000))
    if calls == 1:
        error = await failed(channel, kind, None)
        assert tuple(error.trailing_metadata() or ()) == (("x-t", "t"),)
    else:
        assert await made(channel, kind, None) == ECHOED[kind]
    assert len(flaky.calls) == calls


@pytest.mark.parametrize("kind", ECHOED)
async def test_an_attempt_that_takes_too_long(road: Road, flaky: Flaky, kind: str) -> None:
    """It is given up, and the next one made, whatever the codes are."""
    flaky.script = ["wait"]
    retry = Retry(2, ("ABORTED",), per_try_ms=300, backoff_ms=1, longest_ms=1)
    assert await made(road(retry=retry), kind) == ECHOED[kind]
    await eventually(lambda: flaky.cancelled == 1)
    flaky.script = ["wait", "wait"]
    error = await failed(road(retry=retry), kind)
    assert error.code() is C.DEADLINE_EXCEEDED
    assert "the time that policy gives each" in (error.details() or "")
    await eventually(lambda: flaky.cancelled == 3)


async def test_who_waits_for_the_reply_to_begin(road: Road, flaky: Flaky) -> None:
    """Initial metadata is that of the last attempt."""
    flaky.script = [C.UNAVAILABLE, "wait"]
    retry = Retry(3, per_try_ms=300, backoff_ms=1, longest_ms=1)
    call = road(retry=retry).unary_stream(PATH + "Down")(b"a", timeout=10)
    assert tuple(await call.initial_metadata()) == ()
    assert [message async for message in call] == [b"a", b"a"]
    assert len(flaky.calls) == 3


@pytest.mark.parametrize("kind", ECHOED)
async def test_a_timeout_of_the_route(road: Road, flaky: Flaky, kind: str) -> None:
    """It ends the call, its attempts together, also where the application gave no deadline."""
    flaky.script = ["wait"]
    error = await failed(road(timeout_ms=300), kind, None)
    assert error.code() is C.DEADLINE_EXCEEDED
    await made(road(timeout_ms=3_600_000), kind, 5)
    assert flaky.remaining[0] <= 0.3
    assert flaky.remaining[1] <= 5


async def test_a_deadline_ends_the_pauses(road: Road, flaky: Flaky) -> None:
    """No pause is begun that the call has no time for: its last end is told at once."""
    flaky.script = [C.UNAVAILABLE] * 3
    hour = Retry(3, backoff_ms=3_600_000, longest_ms=3_600_000)
    for kind in ("Unary", "Both"):
        error = await asyncio.wait_for(failed(road(retry=hour), kind, 0.5), 5)
        assert error.code() is C.UNAVAILABLE


async def test_the_budget_is_shared(road: Road, flaky: Flaky) -> None:
    """When a service fails altogether, a part of the calls is made again, of all channels together."""
    flaky.script = [C.UNAVAILABLE] * 1000
    channels = [road(retry=Retry(2, backoff_ms=1, longest_ms=1, budget=10)) for _ in range(2)]
    for number in range(60):
        await failed(channels[number % 2], "Unary")
    assert 60 + 6 <= len(flaky.calls) <= 60 + 6 + 10 + 10


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_requests_that_are_too_large_are_not_held(road: Road, flaky: Flaky, kind: str) -> None:
    """A call is repeated or hedged only with requests up to a bound."""
    for route in ({"retry": FAST}, {"hedge": Hedge(2, 1)}):
        flaky.script, flaky.calls = [C.UNAVAILABLE], []
        channel, large = road(**route), bytes(MAX_HELD + 1)
        stub: Any = channel.unary_unary if kind == "Unary" else channel.unary_stream
        call = stub(PATH + kind)(large, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError):
            await (call if kind == "Unary" else call.read())
        assert len(flaky.calls) == 1


async def test_cancelled_in_a_pause(road: Road, flaky: Flaky) -> None:
    """Whoever waits no longer is not waited for."""
    hour = Retry(3, backoff_ms=3_600_000, longest_ms=3_600_000)
    for kind in ("Unary", "Down", "Both"):
        flaky.script, flaky.calls = [C.UNAVAILABLE], []
        call = asyncio.ensure_future(made(road(retry=hour), kind, None))
        await eventually(lambda: bool(flaky.calls) and not flaky.script)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)


# Hedging


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_a_slow_attempt_is_overtaken(road: Road, flaky: Flaky, kind: str) -> None:
    """While the first does not answer a second is made elsewhere; it wins, and the first is cancelled."""
    flaky.script = ["wait"]
    assert await made(road(hedge=Hedge(2, 50)), kind) == ECHOED[kind]
    assert len(flaky.calls) == 2
    await eventually(lambda: flaky.cancelled == 1)


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_what_may_pass_is_no_answer(road: Road, flaky: Flaky, kind: str) -> None:
    """After one the next attempt is made at once; what would come again ends the call."""
    hour = Hedge(3, 3_600_000)
    flaky.script = [C.UNAVAILABLE, C.RESOURCE_EXHAUSTED]
    assert await made(road(hedge=hour), kind) == ECHOED[kind]
    assert len(flaky.calls) == 3
    flaky.script = [C.UNAVAILABLE] * 3
    assert (await failed(road(hedge=hour), kind)).details() == "scripted"
    flaky.calls.clear()
    flaky.script = [C.NOT_FOUND]
    assert (await failed(road(hedge=hour), kind)).code() is C.NOT_FOUND
    assert len(flaky.calls) == 1


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_a_server_wants_no_hedges(road: Road, flaky: Flaky, kind: str) -> None:
    """Nothing more is made beside what goes on; nothing goes on, so that is the end."""
    flaky.script = [(C.UNAVAILABLE, "-1")]
    assert (await failed(road(hedge=Hedge(3, 3_600_000)), kind)).code() is C.UNAVAILABLE
    flaky.script = [(C.UNAVAILABLE, "10")]
    assert await made(road(hedge=Hedge(2, 3_600_000)), kind) == ECHOED[kind]


@pytest.mark.parametrize("kind", ["Unary", "Down"])
async def test_a_hedged_call_that_is_cancelled(road: Road, flaky: Flaky, kind: str) -> None:
    """All its attempts are."""
    flaky.script = ["wait", "wait"]
    call = asyncio.ensure_future(made(road(hedge=Hedge(2, 10)), kind, None))
    await eventually(lambda: len(flaky.calls) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 5)
    await eventually(lambda: flaky.cancelled == 2)


async def test_a_hedged_stream_as_a_sidecar_reads_it(road: Road, flaky: Flaky) -> None:
    """The exchange of a hedged call gives what one of a call gives."""
    flaky.script = ["wait"]
    exchange = road(hedge=Hedge(2, 20)).exchanges(PATH + "Down", (), 10)(b"a")
    assert exchange.closed
    await exchange.start()
    assert await exchange.initial_sealed()
    assert await exchange.initial_metadata() == ()
    assert not await exchange.send(b"more")
    await exchange.close()
    assert [await exchange.receive() for _ in range(3)] == [b"a", b"a", None]
    assert (await exchange.settled()).ok
    assert not exchange.cancel()


# Faults


@pytest.mark.parametrize("kind", ECHOED)
async def test_an_abort_on_purpose(road: Road, flaky: Flaky, kind: str) -> None:
    """The call ends with the status, is never made, and says what it is."""
    error = await failed(road(fault=Fault(100, abort="ABORTED"), retry=Retry(3, ("ABORTED",))), kind)
    assert error.code() is C.ABORTED
    assert reason_of(error.trailing_metadata())[0] == "FAULT"
    assert "on purpose" in (error.details() or "")
    assert not flaky.calls


@pytest.mark.parametrize("kind", ECHOED)
async def test_a_delay_on_purpose(road: Road, flaky: Flaky, kind: str) -> None:
    """The call waits before it is made, and no longer than it has time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await made(road(fault=Fault(100, 100)), kind) == ECHOED[kind]
    assert loop.time() - began >= 0.1
    error = await failed(road(fault=Fault(100, 3_600_000), hedge=Hedge(2, 1)), kind, 0.2)
    assert error.code() is C.DEADLINE_EXCEEDED
    assert len(flaky.calls) == 1


async def test_so_many_of_a_hundred(road: Road) -> None:
    """Some calls are disturbed and the others are not."""
    channel, ends = road(fault=Fault(50, abort="INTERNAL")), []
    for _ in range(60):
        try:
            await made(channel, "Unary")
            ends.append(True)
        except grpc.aio.AioRpcError:
            ends.append(False)
    assert 5 < sum(ends) < 55


# In force from the next call on


async def test_routes_change_while_calls_go_on(road: Road, flaky: Flaky) -> None:
    """A channel follows what is told; a call goes on by what was said when it began."""
    channel = road()
    flaky.script = [C.UNAVAILABLE]
    await failed(channel, "Unary")
    road(retry=FAST)
    flaky.script = [C.UNAVAILABLE]
    assert await made(channel, "Unary") == [b"a"]
    flaky.script = ["wait"]
    begun = asyncio.ensure_future(made(road(retry=Retry(2, per_try_ms=300)), "Unary"))
    await eventually(lambda: not flaky.script)
    road()
    assert await begun == [b"a"]


@pytest.mark.parametrize("kind", ECHOED)
async def test_what_was_never_sent_goes_elsewhere(
    world: World, served: list[MeshServer], caller: Membership, flaky: Flaky, kind: str
) -> None:
    """Without any route: an instance that is not there costs no call while there is another one."""
    await served[0].stop(None)
    for number in range(1, 11):
        # Each with connections of its own, none of which is known to fail.
        assert await made(world.channel(caller, "callee"), kind) == ECHOED[kind]
        assert len(flaky.calls) == number


async def test_a_call_without_instances_is_repeated(world: World, road: Road) -> None:
    """That nobody is there is UNAVAILABLE like any other: the route says how long to go on."""
    channel = road(retry=Retry(10, backoff_ms=50, longest_ms=50, budget=100))
    listed: list[Endpoint] = world.directory.listed[CALLEE]
    for kind in ("Unary", "Both"):
        world.directory.listed[CALLEE] = []
        call = asyncio.ensure_future(made(channel, kind))
        await asyncio.sleep(0)
        world.directory.listed[CALLEE] = listed
        assert await call == ECHOED[kind]
