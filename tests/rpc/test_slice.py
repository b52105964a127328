"""A node's slice, and what a channel makes of names: older, stale, malformed, unknown."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import pytest

from mesh.audits import QUIET, REMEMBERED
from mesh.core.errors import Denied
from mesh.core.matcher import Audited, Permit
from mesh.core.names import InstanceId, ServiceName
from mesh.core.revoked import MAX_REVOKED
from mesh.core.traffic import NONE, Breaker, Rate
from mesh.rpc import targets
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connections, Endpoint
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.status import CallFailedError
from mesh.rpc.targets import DirectoryTarget, FixedTarget
from mesh.slices import Slice
from mesh.v1 import gatekeeper_pb2
from mesh.watching import SliceKeeper
from tests.rpc.app import Echo, path
from tests.rpc.attack import eventually, reason_of
from tests.rpc.pair import World

C = grpc.StatusCode
A, B = b"a" * 16, b"b" * 16
ORDERS = ServiceName("orders")
METHOD = "/shop.v1.Orders/Get"
ALLOW = b'{"allow":[{"principals":["frontend"],"paths":["*"]}]}'


class Time:
    """A clock that tests move."""

    def __init__(self) -> None:
        """Start somewhere."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now


def made(
    version: int = 1,
    rules: bytes = ALLOW,
    endpoints: tuple[tuple[bytes, str], ...] = ((A, "h:1"),),
    *,
    settling: bool = False,
    service: str = "orders",
) -> gatekeeper_pb2.Slice:
    """Make a slice with one destination."""
    return gatekeeper_pb2.Slice(
        policy_version=version,
        rules=rules,
        settling=settling,
        max_stale_ms=60_000,
        destinations=[
            gatekeeper_pb2.Destination(
                service=service,
                endpoints=[gatekeeper_pb2.Endpoint(instance=i, address=a) for i, a in endpoints],
            )
        ],
    )


@pytest.fixture
def time() -> Time:
    """Make a clock."""
    return Time()


@pytest.fixture
async def held(time: Time) -> Slice:
    """Make a slice with nothing in force."""
    return Slice(time)


async def test_nothing_is_permitted_before_the_first_slice(held: Slice) -> None:
    """A node without a slice takes no call, makes none, and says that it is not ready."""
    assert not held.in_force
    with pytest.raises(Denied):
        held.authorize("frontend", METHOD, ())
    with pytest.raises(CallFailedError) as caught:
        held.endpoints(ORDERS)
    assert reason_of(caught.value.outcome.trailing)[0] == "NOT_READY"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(held.ready(), 0.01)


async def test_a_slice_in_force(held: Slice) -> None:
    """A slice judges calls and lists endpoints; a name that is not in it is no name."""
    assert held.apply(made())
    assert held.authorize("frontend", METHOD, ()).source == "frontend"
    with pytest.raises(Denied):
        held.authorize("evil", METHOD, ())
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1")]
    assert held.endpoints(ServiceName("nobody")) is None
    assert held.services() == [ORDERS]
    await asyncio.wait_for(held.ready(), 1)


async def test_traffic_of_a_slice(held: Slice) -> None:
    """It is read once, stays the same object while the same is said, and is gone with what said it."""
    said = made()
    said.destinations[0].traffic = b'{"breaker":{"calls":9}}'
    said.traffic = b'{"rate":{"calls":5}}'
    held.apply(said)
    first = held.traffic(ORDERS)
    assert (first.breaker, held.rate) == (Breaker(9), Rate(5, 5))
    held.amend(gatekeeper_pb2.Change(policy_version=2))
    assert held.traffic(ORDERS) is first
    changed = gatekeeper_pb2.Change(policy_version=3, destinations=said.destinations, traffic=b"")
    changed.destinations[0].traffic = b""
    held.amend(changed)
    assert (held.traffic(ORDERS), held.rate) == (NONE, None)


@pytest.mark.parametrize("part", ["destination", "own"])
async def test_traffic_that_cannot_be_read_changes_nothing(held: Slice, part: str) -> None:
    """A slice with anything doubtful in it is refused whole, as for its rules."""
    held.apply(made())
    bad = made(2)
    holder = bad if part == "own" else bad.destinations[0]
    holder.traffic = b'{"breakers":{"calls":9}}'
    with pytest.raises(ValueError, match="unknown field"):
        held.apply(bad)
    assert (held.version, held.traffic(ORDERS)) == (1, NONE)


AUDIT = b'{"mode":"audit","allow":[{"principals":["frontend"],"paths":["*"]}]}'


async def test_audit_permits_and_is_told_once_in_a_while(
    held: Slice, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """Each caller, method and rule is told once in a minute, with how often it came meanwhile."""
    held.apply(made(7, AUDIT))
    for _ in range(3):
        held.authorize("frontend", METHOD, ())
        assert held.authorize("evil", METHOD, ()).audited == Audited(None)
    held.authorize("evil", "/shop.v1.Orders/Put", ())
    told = [record.getMessage() for record in caplog.records]
    assert [line.split("destination")[0] for line in told] == [
        f"audit: would be denied: source='evil' method='{method}' "
        for method in (METHOD, "/shop.v1.Orders/Put")
    ]
    assert told[0].endswith("destination=here rule=None by=None policy=7 untold=0")
    caplog.clear()
    time.now += QUIET - 0.1
    held.alive()
    held.authorize("evil", METHOD, ())
    assert not caplog.records
    time.now += 0.2
    held.authorize("evil", METHOD, ())
    assert caplog.records[0].getMessage().endswith("untold=3")


async def test_audit_does_not_fill_the_memory(held: Slice) -> None:
    """A caller that tries methods without end is told of, and not remembered past the bound."""
    held.apply(made(7, AUDIT))
    for number in range(REMEMBERED + 10):
        held.authorize("evil", f"/p.S/M{number}", ())
    assert len(held._audits._told) <= REMEMBERED


async def test_audit_is_no_slice_in_force(held: Slice, time: Time) -> None:
    """A stale slice denies in audit as well."""
    held.apply(made(7, AUDIT))
    time.now += 61
    with pytest.raises(Denied):
        held.authorize("evil", METHOD, ())


async def test_conditions_by_the_clock_of_the_mesh(time: Time) -> None:
    """A node judges time by auth's clock; without it, what hangs on time is denied."""
    rules = b'{"allow":[{"principals":["*"],"paths":["*"],"when":"time.getFullYear() == 2023"}]}'
    for clock, permitted in ((1_700_000_000_000, True), (1_800_000_000_000, False), (None, False)):
        held = Slice(time, clock_ms=lambda clock=clock: clock)  # type: ignore[misc]
        held.apply(made(7, rules), clock or 0)
        try:
            held.authorize("frontend", METHOD, ())
            assert permitted
        except Denied:
            assert not permitted


async def test_an_older_version_never_replaces_a_newer(held: Slice) -> None:
    """What was withdrawn does not come back with an old slice; the same version may bring endpoints."""
    assert held.apply(made(5, b"{}"))
    assert not held.apply(made(4))
    with pytest.raises(Denied):
        held.authorize("frontend", METHOD, ())
    assert held.version == 5
    assert held.apply(made(5, b"{}", ((B, "h:2"),)))
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(B), "h:2")]


async def test_a_stale_slice_denies(held: Slice, time: Time) -> None:
    """Past its time a slice is worth nothing, until gatekeeper is heard of again."""
    held.apply(made())
    time.now += 59.9
    assert held.in_force
    time.now += 0.1
    assert held.in_force is bool(time.now < 1060)
    with pytest.raises(Denied):
        held.authorize("frontend", METHOD, ())
    with pytest.raises(CallFailedError, match="gatekeeper has not been heard of"):
        held.endpoints(ORDERS)
    waiting = asyncio.ensure_future(held.ready())
    await asyncio.sleep(0)
    held.alive()
    await asyncio.wait_for(waiting, 1)
    assert held.authorize("frontend", METHOD, ()).source == "frontend"


@pytest.mark.parametrize(
    "bad",
    [
        made(2, b""),
        made(2, b"{"),
        made(2, b"[]"),
        made(2, b'{"allow":[{"principals":["*"],"paths":["*"],"unknown":1}]}'),
        made(2, b'{"allow":[{"principals":["*"]}]}'),
        made(2, b"\xff"),
        made(2, endpoints=((b"short", "h:1"),)),
        made(2, service="Bad Name"),
    ],
)
async def test_a_malformed_slice_changes_nothing(held: Slice, bad: gatekeeper_pb2.Slice) -> None:
    """A slice that cannot be read is refused whole, and the one in force stays."""
    held.apply(made())
    with pytest.raises(ValueError):  # noqa: PT011  each says something else
        held.apply(bad)
    assert held.version == 1
    assert held.authorize("frontend", METHOD, ()).source == "frontend"
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1")]


async def test_settling(held: Slice) -> None:
    """While gatekeeper settles, who is missing may be on the way back; who was replaced is gone."""
    held.apply(made(endpoints=((A, "h:1"), (B, "h:2"))))
    held.apply(made(endpoints=(), settling=True))
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1"), Endpoint(InstanceId(B), "h:2")]
    fresh = Endpoint(InstanceId(b"c" * 16), "h:1")
    held.apply(made(endpoints=((fresh.instance.raw, "h:1"),), settling=True))
    assert held.endpoints(ORDERS) == [fresh, Endpoint(InstanceId(B), "h:2")]
    held.apply(made(endpoints=((fresh.instance.raw, "h:1"),)))
    assert held.endpoints(ORDERS) == [fresh]


async def test_settling_brings_back_no_name(held: Slice) -> None:
    """A name that policy has taken away is gone at once, settling or not."""
    held.apply(made())
    held.apply(gatekeeper_pb2.Slice(policy_version=2, rules=ALLOW, settling=True, max_stale_ms=60_000))
    assert held.endpoints(ORDERS) is None


async def test_no_change_is_missed(held: Slice) -> None:
    """Who asks to be told of a change is told of one that comes before they begin to wait."""
    waiting = held.changed()
    held.apply(made())
    await asyncio.wait_for(waiting, 1)


def channel_of(member: Membership, held: Slice, service: str) -> MeshChannel:
    """Give a channel by a slice."""
    name = ServiceName(service)
    connections = Connections(member, name)
    return MeshChannel(member, DirectoryTarget(name, held, lambda _: connections, _has_keys))


async def _has_keys(_service: ServiceName, _patience: float) -> None:
    pass


async def outcome(channel: MeshChannel, kind: str, **options: Any) -> tuple[Any, ...]:
    """Give all that an application sees of a failed call."""
    call = getattr(channel, kind)(path("Unary"))(
        b"x" if kind.startswith("unary") else iter([b"x"]), **options
    )
    if kind.endswith("_stream"):
        with contextlib.suppress(grpc.aio.AioRpcError):
            _ = [message async for message in call]  # no status while a message is unread
    code = await asyncio.wait_for(call.code(), 10)
    trailing = tuple(await call.trailing_metadata())
    return code, await call.details(), trailing, tuple(await call.initial_metadata())


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_unknown_and_forbidden_names(world: World, held: Slice, caller: Membership, kind: str) -> None:
    """Names that may not be called give one answer, to the byte, whether they exist or not."""
    assert world.members[0] is caller
    held.apply(made())
    answers = {
        await outcome(channel_of(caller, held, name), kind)
        for name in ("callee", "nobody", "a-very-long.name.that-does-not.exist", "mesh.nothing")
    }
    ((code, _, trailing, _),) = answers
    assert (code, reason_of(trailing)) == (C.NOT_FOUND, ("NAME_UNAVAILABLE", None))


@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
async def test_no_instance(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    held: Slice,
    server: MeshServer,
    caller: Membership,
    app: Echo,
    kind: str,
) -> None:
    """A service without an instance is NOT_READY at once, or as soon as there is one if the call waits."""
    monkeypatch.setattr(targets, "PATIENCE", 0.05)
    callee = world.members[0]
    channel = channel_of(caller, held, "callee")
    code, _, trailing, _ = await outcome(channel, kind)  # no slice in force yet
    assert (code, reason_of(trailing)[0]) == (C.UNAVAILABLE, "NOT_READY")
    held.apply(made(service="callee", endpoints=()))
    code, text, trailing, _ = await outcome(channel, kind)
    assert (code, reason_of(trailing)[0]) == (C.UNAVAILABLE, "NOT_READY")
    assert "no instance of callee is running" in text
    waiting = asyncio.ensure_future(outcome(channel, kind, wait_for_ready=True, timeout=10))
    await asyncio.sleep(0)
    held.apply(made(service="callee", endpoints=((callee.instance.raw, f"127.0.0.1:{server.port}"),)))
    code, *_ = await waiting
    assert code is C.OK
    assert app.calls == ["Unary"]


async def test_a_fixed_target_that_is_not_there(caller: Membership) -> None:
    """auth and gatekeeper, when they do not answer, are NOT_READY, by name and address."""
    target = FixedTarget(ServiceName("mesh.auth"), "127.0.0.1:9", caller)
    code, text, trailing, _ = await outcome(MeshChannel(caller, target), "unary_unary", timeout=2)
    assert (code, reason_of(trailing)[0]) == (C.UNAVAILABLE, "NOT_READY")
    assert "mesh.auth does not answer at 127.0.0.1:9" in text
    await target.close()


async def test_a_fixed_target_with_several_addresses(
    world: World, server: MeshServer, caller: Membership, app: Echo
) -> None:
    """The call after one that was not answered goes to the next address, wherever it began."""
    beside = MeshServer(world.member("callee"), "127.0.0.1:0")
    beside.add_generic_rpc_handlers((app,))
    await beside.start()
    ports = (server.port, beside.port, 9)
    target = FixedTarget(ServiceName("callee"), ",".join(f"127.0.0.1:{port}" for port in ports), caller)
    unary = MeshChannel(caller, target).unary_unary(path("Unary"))
    assert await unary(b"first", timeout=10) == b"first"
    used = target.address
    left = beside if used.endswith(str(server.port)) else server
    await (server if left is beside else beside).stop(None)
    with pytest.raises(grpc.aio.AioRpcError):
        await unary(b"lost", timeout=10)
    assert await unary(b"next", timeout=10) == b"next"
    assert target.address == f"127.0.0.1:{left.port}"
    await target.close()
    await left.stop(None)


async def test_a_fixed_target_that_restarts(
    world: World, server: MeshServer, caller: Membership, app: Echo
) -> None:
    """A fixed target that has another instance id now is asked again, and the call is not lost."""
    target = FixedTarget(ServiceName("callee"), f"127.0.0.1:{server.port}", caller)
    unary = MeshChannel(caller, target).unary_unary(path("Unary"))
    assert await unary(b"before") == b"before"
    await server.stop(None)
    again = MeshServer(world.member("callee"), f"127.0.0.1:{server.port}")
    again.add_generic_rpc_handlers((app,))
    await again.start()
    assert await unary(b"after", wait_for_ready=True, timeout=10) == b"after"
    assert app.seen == [b"before", b"after"]
    await target.close()
    await again.stop(None)


class Gatekeeper(grpc.GenericRpcHandler):
    """Sends what it is told to, whatever it is."""

    def __init__(self) -> None:
        """Record the heartbeats."""
        self.answers: asyncio.Queue[gatekeeper_pb2.WatchResponse | None] = asyncio.Queue()
        self.beats: list[gatekeeper_pb2.WatchRequest] = []
        self.streams = 0
        self.ends = 0

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Watch."""

        async def watch(requests: Any, context: Any) -> None:
            self.streams += 1

            async def listen() -> None:
                async for request in requests:
                    self.beats.append(gatekeeper_pb2.WatchRequest.FromString(request))
                self.ends += 1
                await self.answers.put(None)

            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(listen())
                while (answer := await self.answers.get()) is not None:
                    await context.write(answer.SerializeToString())
                listening.cancel()

        return grpc.stream_stream_rpc_method_handler(watch)


async def test_a_keeper_outlives_what_gatekeeper_sends(
    world: World, callee: Membership, caller: Membership, held: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malformed slices, ended streams and stale ones: the keeper comes back, and leaves when told."""
    monkeypatch.setattr("mesh.pauses.RETRY_FIRST", 0.01)
    gatekeeper = Gatekeeper()
    server = world.serve(callee)
    server.add_generic_rpc_handlers((gatekeeper,))
    await server.start()
    target = FixedTarget(ServiceName("callee"), f"127.0.0.1:{server.port}", caller)
    method = MeshChannel(caller, target).stream_stream(
        "/mesh.v1.GatekeeperService/Watch",
        gatekeeper_pb2.WatchRequest.SerializeToString,
        gatekeeper_pb2.WatchResponse.FromString,
    )
    stub: Any = type("Stub", (), {"Watch": lambda _: method()})()
    changes: list[int] = []
    keeper = SliceKeeper(held, stub, target, lambda: changes.append(held.version), caller)
    keeping = asyncio.ensure_future(keeper.keep())
    keeper.announce(4711)
    answer = gatekeeper_pb2.WatchResponse
    await gatekeeper.answers.put(answer(slice=made(3)))
    await eventually(lambda: changes == [3])
    await eventually(lambda: gatekeeper.beats[-1].policy_version == 3)
    assert gatekeeper.beats[0].port == 4711
    await gatekeeper.answers.put(answer())
    await gatekeeper.answers.put(answer(slice=made(2)))
    await gatekeeper.answers.put(answer(slice=made(4, b"nonsense")))
    await eventually(lambda: gatekeeper.streams == 2)
    assert (changes, held.version) == ([3], 3)
    await gatekeeper.answers.put(answer(slice=made(5)))
    await eventually(lambda: changes == [3, 5])
    await gatekeeper.answers.put(answer(change=gatekeeper_pb2.Change(policy_version=6, rules=b"{}")))
    await eventually(lambda: changes == [3, 5, 6])
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1")]
    await gatekeeper.answers.put(None)
    await eventually(lambda: gatekeeper.streams == 3)
    # A change to a slice that this stream has not sent: the stream is given up, and the next begins anew.
    await gatekeeper.answers.put(answer(change=gatekeeper_pb2.Change(policy_version=7, rules=ALLOW)))
    await eventually(lambda: gatekeeper.streams == 4)
    await gatekeeper.answers.put(answer(slice=made(8)))
    await gatekeeper.answers.put(answer(change=gatekeeper_pb2.Change(policy_version=7)))
    await eventually(lambda: gatekeeper.streams == 5)
    assert (changes, held.version) == ([3, 5, 6, 8], 8)
    keeper.announce(0)
    await eventually(lambda: gatekeeper.beats[-1].port == 0)
    keeper.leave()
    await asyncio.wait_for(keeping, 10)
    assert gatekeeper.ends == 1
    await target.close()
    await server.stop(None)


async def test_a_silent_gatekeeper_is_named_as_silent(
    world: World,
    callee: Membership,
    caller: Membership,
    held: Slice,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who waits for it says why, also where nothing was said."""
    monkeypatch.setattr("mesh.watching.SILENCE", 0.05)
    gatekeeper = Gatekeeper()
    server = world.serve(callee)
    server.add_generic_rpc_handlers((gatekeeper,))
    await server.start()
    target = FixedTarget(ServiceName("callee"), f"127.0.0.1:{server.port}", caller)
    method = MeshChannel(caller, target).stream_stream(
        "/mesh.v1.GatekeeperService/Watch",
        gatekeeper_pb2.WatchRequest.SerializeToString,
        gatekeeper_pb2.WatchResponse.FromString,
    )
    stub: Any = type("Stub", (), {"Watch": lambda _: method()})()
    keeper = SliceKeeper(held, stub, target, lambda: None, caller)
    keeping = asyncio.ensure_future(keeper.keep())
    await eventually(lambda: "waiting for gatekeeper: it went silent" in caplog.text)
    keeper.leave()
    await asyncio.wait_for(keeping, 10)
    await target.close()
    await server.stop(None)


async def test_an_older_gatekeeper_does_not_keep_a_newer_slice_alive(
    world: World, callee: Membership, caller: Membership, held: Slice
) -> None:
    """What a lying gatekeeper left behind goes stale under an honest one, whose signs are not for it."""
    gatekeeper = Gatekeeper()
    server = world.serve(callee)
    server.add_generic_rpc_handlers((gatekeeper,))
    await server.start()
    target = FixedTarget(ServiceName("callee"), f"127.0.0.1:{server.port}", caller)
    method = MeshChannel(caller, target).stream_stream(
        "/mesh.v1.GatekeeperService/Watch",
        gatekeeper_pb2.WatchRequest.SerializeToString,
        gatekeeper_pb2.WatchResponse.FromString,
    )
    stub: Any = type("Stub", (), {"Watch": lambda _: method()})()
    held.apply(made(2**63 - 1))
    lives: list[int] = []
    alive, held.alive = held.alive, lambda _: lives.append(1)  # type: ignore[assignment, misc, method-assign]
    keeper = SliceKeeper(held, stub, target, lambda: None, caller)
    keeping = asyncio.ensure_future(keeper.keep())
    await eventually(lambda: len(gatekeeper.beats) > 0)
    for version in (7, 8):
        await gatekeeper.answers.put(gatekeeper_pb2.WatchResponse(slice=made(version)))
        await gatekeeper.answers.put(gatekeeper_pb2.WatchResponse())
    await gatekeeper.answers.put(None)
    await eventually(lambda: gatekeeper.streams == 2)
    assert lives == []
    held.alive = alive  # type: ignore[method-assign]
    keeper.leave()
    await asyncio.wait_for(keeping, 10)
    await target.close()
    await server.stop(None)


async def test_a_change_keeps_what_it_does_not_speak_of(held: Slice) -> None:
    """Rules that stay are not read again; the rest is as if the whole slice had come."""
    with pytest.raises(ValueError, match="before the slice"):
        held.amend(gatekeeper_pb2.Change(policy_version=1))
    held.apply(made(1))
    matcher, generation = held._matcher, held.generation
    moved = made(1, endpoints=((B, "h:2"),)).destinations
    held.amend(gatekeeper_pb2.Change(policy_version=2, destinations=moved))
    assert (held.version, held.generation, held._matcher) == (2, generation, matcher)
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(B), "h:2")]
    held.amend(gatekeeper_pb2.Change(policy_version=3, removed=["orders"], rules=b"{}"))
    assert (held.version, held.generation, held.services()) == (3, generation + 1, [])
    with pytest.raises(Denied):
        held.authorize("frontend", METHOD, ())
    for wrong in (
        gatekeeper_pb2.Change(policy_version=2),
        gatekeeper_pb2.Change(policy_version=4, removed=["orders"]),
        gatekeeper_pb2.Change(policy_version=4, rules=b"nonsense"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  each says something else
            held.amend(wrong)
    assert held.version == 3


async def test_a_change_ends_the_settling(held: Slice) -> None:
    """Who was missing while gatekeeper settled is gone when it says that it has settled."""
    held.apply(made(endpoints=((A, "h:1"), (B, "h:2"))))
    held.apply(made(endpoints=((A, "h:1"),), settling=True))
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1"), Endpoint(InstanceId(B), "h:2")]
    held.amend(gatekeeper_pb2.Change(policy_version=1))
    assert held.endpoints(ORDERS) == [Endpoint(InstanceId(A), "h:1")]


async def test_a_slice_holds_from_when_auth_confirmed_it(time: Time) -> None:
    """However late word of it comes, and whatever brings it: nothing old is made young."""
    clock = 1_700_000_000_000
    held = Slice(time, clock_ms=lambda: clock)
    held.apply(made(), clock - 59_000)
    in_force = [held.in_force]
    assert held.standing(Permit("frontend", METHOD, "rule")) == time.now + 1
    time.now += 1
    in_force.append(held.in_force)
    assert in_force == [True, False]
    for late in (0, clock - 60_000):
        held.alive(late)
        held.apply(made(2), late)
        held.amend(gatekeeper_pb2.Change(policy_version=2), late)
        assert not held.in_force
    held.alive(clock + 5_000)  # clocks that differ a little do not make it last longer
    time.now += 60
    assert not held.in_force
    held.alive(clock)
    assert held.in_force


async def test_no_word_takes_nothing_away(time: Time) -> None:
    """A gatekeeper in doubt passes no word on: what holds goes on to hold, newer policies included."""
    clock = 1_700_000_000_000
    held = Slice(time, clock_ms=lambda: clock)
    held.apply(made(1), clock - 20_000)
    until = time.now + 40
    held.alive(0)
    held.amend(gatekeeper_pb2.Change(policy_version=2), 0)
    assert held.standing(Permit("frontend", METHOD, "rule")) == until
    shorter = made(3)
    shorter.max_stale_ms = 10_000
    held.apply(shorter, 0)
    assert held.standing(Permit("frontend", METHOD, "rule")) == time.now + 10


def test_a_version_that_no_policy_has(held: Slice) -> None:
    """A slice of a version beyond all policies is refused, for nothing could ever follow it."""
    with pytest.raises(ValueError, match="no policy has the version"):
        held.apply(made(2**63))


def revoked_in(news: gatekeeper_pb2.Slice, *instances: bytes) -> gatekeeper_pb2.Slice:
    for instance in instances:
        news.revoked.add(instance=instance, until_ms=5000)
    return news


def test_a_revoked_instance_stays_so_whatever_comes_later() -> None:
    """Neither a later slice without it, nor one that lists it, nor one of a gatekeeper that settles."""
    held = Slice(Time(), clock_ms=lambda: 1000)
    held.apply(made(endpoints=((A, "h:1"), (B, "h:2"))))
    before = held.generation
    held.apply(revoked_in(made(endpoints=((B, "h:2"),)), A))
    assert held.generation == before + 1
    for news in (made(2, endpoints=((A, "h:1"),)), made(3, settling=True)):
        held.apply(news)
        assert held.endpoints(ORDERS) == []
        assert set(held.revoked) == {InstanceId(A)}
    held.amend(gatekeeper_pb2.Change(policy_version=4, revoked=revoked_in(made(), B).revoked))
    assert set(held.revoked) == {InstanceId(A), InstanceId(B)}


def test_more_than_can_be_revoked_is_no_slice() -> None:
    """A gatekeeper that tells of more gets no memory for it."""
    held = Slice(Time())
    many = revoked_in(made(), *(number.to_bytes(16, "big") for number in range(MAX_REVOKED + 1)))
    with pytest.raises(ValueError, match="more than"):
        held.apply(many)
    assert not held.revoked


async def test_a_node_that_was_revoked_has_nothing_in_force_ever_again() -> None:
    """Who waits for it to be ready is told, and no sign of life brings anything back."""
    held = Slice(Time())
    held.apply(made())
    held.withdraw()
    held.alive()
    assert not held.in_force
    with pytest.raises(CallFailedError, match="revoked"):
        await held.ready()
    with pytest.raises(Denied):
        held.authorize("frontend", METHOD, ())
