"""Watchers: who is owed what, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.core.receiver import Peer
from mesh.core.revoked import Revoked
from mesh.v1 import gatekeeper_pb2
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.signed import VersionedPolicy
from services.gatekeeper.watchers import Watcher, Watchers

LEASE, STALE = 15_000, 600_000
FRONTEND, ORDERS, INVENTORY = map(ServiceName, ("frontend", "orders", "inventory"))
ALLOW = {
    "services": {
        "frontend": {},
        "orders": {"allow": [{"principals": ["frontend"], "paths": ["*"]}]},
        "inventory": {"allow": [{"principals": ["orders"], "paths": ["*"]}]},
    }
}
NOTHING: dict[str, object] = {"services": {"frontend": {}, "orders": {}, "inventory": {}}}


class _Clock:
    """A clock that goes forward when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def policy(version: int, document: object = None) -> VersionedPolicy:
    text = json.dumps(document or ALLOW)
    return VersionedPolicy(version, Policy.parse(text), text.encode())


def watchers(clock: _Clock | None = None, lease: int = LEASE) -> Watchers:
    clock = clock or _Clock()
    return Watchers(lease, STALE, clock, Confirmed(clock))


def peer(service: ServiceName, number: int) -> Peer:
    return Peer(service, InstanceId(bytes([number]) * 16))


def hear(all_of: Watchers, watcher: Watcher, port: int = 0, *, first: bool = False) -> None:
    beat = gatekeeper_pb2.WatchRequest(port=port, policy_version=1)
    all_of.heard(watcher, "10.0.0.1", beat, first=first)


def enter(all_of: Watchers, service: ServiceName, number: int, port: int = 0) -> Watcher:
    watcher = all_of.open(peer(service, number))
    hear(all_of, watcher, port, first=True)
    return watcher


async def owed(watcher: Watcher) -> gatekeeper_pb2.WatchResponse | None:
    """Give what a watcher sends now; ``None`` if it waits."""
    waiting = asyncio.ensure_future(watcher.next())
    for _ in range(3):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
        return None
    return waiting.result()


async def slice_of(watcher: Watcher) -> gatekeeper_pb2.Slice:
    response = await owed(watcher)
    assert response is not None
    assert response.HasField("slice")
    return response.slice


async def change_of(watcher: Watcher) -> gatekeeper_pb2.Change:
    response = await owed(watcher)
    assert response is not None
    assert response.HasField("change")
    return response.change


def addresses(cut: gatekeeper_pb2.Slice | gatekeeper_pb2.Change) -> dict[str, list[str]]:
    return {d.service: [e.address for e in d.endpoints] for d in cut.destinations}


async def test_before_the_first_policy_there_are_signs_of_life_only() -> None:
    """A node is registered and answered, but gets no slice until there is a policy."""
    all_of = watchers()
    watcher = enter(all_of, FRONTEND, 1)
    assert await owed(watcher) == gatekeeper_pb2.WatchResponse()
    assert len(all_of.directory.nodes()) == 1
    all_of.take(policy(1))
    assert (await slice_of(watcher)).policy_version == 1


async def test_every_heartbeat_is_answered() -> None:
    """With the slice at first, then with bare signs of life, and with nothing between heartbeats."""
    all_of = watchers()
    all_of.take(policy(1))
    watcher = enter(all_of, FRONTEND, 1)
    assert (await slice_of(watcher)).policy_version == 1
    assert await owed(watcher) is None
    for _ in range(2):
        hear(all_of, watcher)
        assert await owed(watcher) == gatekeeper_pb2.WatchResponse()
        assert await owed(watcher) is None


async def test_callers_learn_of_endpoints_at_once_and_others_nothing() -> None:
    """A new endpoint goes to those that may call it; its own kind and strangers are left alone."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend, inventory = enter(all_of, FRONTEND, 1), enter(all_of, INVENTORY, 2)
    assert addresses(await slice_of(frontend)) == {"orders": []}
    await slice_of(inventory)
    orders = enter(all_of, ORDERS, 3, port=5000)
    assert addresses(await change_of(frontend)) == {"orders": ["10.0.0.1:5000"]}
    assert await owed(inventory) is None
    assert addresses(await slice_of(orders)) == {"inventory": []}
    all_of.close(orders, clean=True)
    assert addresses(await change_of(frontend)) == {"orders": []}


async def test_a_broken_stream_is_told_when_the_lease_runs_out() -> None:
    """Until then nobody hears of it."""
    clock = _Clock()
    all_of = watchers(clock)
    all_of.take(policy(1))
    frontend, orders = enter(all_of, FRONTEND, 1), enter(all_of, ORDERS, 2, port=5000)
    await slice_of(frontend)
    all_of.close(orders, clean=False)
    for clock.now in range(3_000, LEASE, 3_000):
        hear(all_of, frontend)
        all_of.look()
        assert await owed(frontend) == gatekeeper_pb2.WatchResponse()
    clock.now = LEASE
    all_of.look()
    assert addresses(await change_of(frontend)) == {"orders": []}


async def test_everyone_learns_of_a_new_policy() -> None:
    """Even a node whose slice says the same learns the version it now stands under."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend, inventory = enter(all_of, FRONTEND, 1), enter(all_of, INVENTORY, 2)
    await slice_of(frontend)
    await slice_of(inventory)
    all_of.take(policy(2))
    news = gatekeeper_pb2.Change(policy_version=2, settling=True)
    assert (await change_of(frontend), await change_of(inventory)) == (news, news)
    all_of.take(policy(3, NOTHING))
    assert list((await change_of(frontend)).removed) == ["orders"]
    withdrawn = await change_of(inventory)
    assert (withdrawn.rules, list(withdrawn.removed)) == (b"{}", [])


async def test_a_slow_reader_gets_one_message_for_a_storm() -> None:
    """Changes that were not taken in time are one change in the end, or one slice if it had none yet."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend, late = enter(all_of, FRONTEND, 1), enter(all_of, FRONTEND, 20)
    await slice_of(frontend)
    for number in range(2, 10):
        all_of.take(policy(number))
        enter(all_of, ORDERS, number, port=5000 + number)
    for cut in (await change_of(frontend), await slice_of(late)):
        assert cut.policy_version == 9
        assert len(cut.destinations[0].endpoints) == 8
    assert [await owed(frontend), await owed(late)] == [None, None]


async def test_a_change_that_was_undone_is_not_told() -> None:
    """What a node knows already is not sent again."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend = enter(all_of, FRONTEND, 1)
    await slice_of(frontend)
    all_of.close(enter(all_of, ORDERS, 2, port=5000), clean=True)
    assert await owed(frontend) is None


async def test_a_slice_cut_before_is_not_served_after_a_change() -> None:
    """A slice that nobody watched while things changed is cut anew for the next one."""
    all_of = watchers()
    all_of.take(policy(1))
    first = enter(all_of, FRONTEND, 1)
    assert addresses(await slice_of(first)) == {"orders": []}
    all_of.close(first, clean=True)
    enter(all_of, ORDERS, 2, port=5000)
    assert addresses(await slice_of(enter(all_of, FRONTEND, 3))) == {"orders": ["10.0.0.1:5000"]}


async def test_settling_ends_with_a_slice_for_everyone() -> None:
    """After the first lease, nodes are told that what is missing is gone."""
    clock = _Clock()
    all_of = watchers(clock)
    all_of.take(policy(1))
    frontend = enter(all_of, FRONTEND, 1)
    assert (await slice_of(frontend)).settling
    clock.now = LEASE
    all_of.look()
    assert await change_of(frontend) == gatekeeper_pb2.Change(policy_version=1)


async def test_the_newest_stream_of_an_instance_is_the_one() -> None:
    """An older stream ends, and its end does not touch what the newer one registered."""
    all_of = watchers()
    all_of.take(policy(1))
    older = enter(all_of, ORDERS, 1, port=5000)
    newer = enter(all_of, ORDERS, 1, port=5000)
    assert older.ended
    assert await asyncio.wait_for(older.next(), 1) is None
    all_of.close(older, clean=True)
    assert all_of.directory.endpoints(ORDERS)
    assert (await slice_of(newer)).policy_version == 1
    all_of.take(policy(2))
    assert (await change_of(newer)).policy_version == 2


async def test_draining_ends_every_stream() -> None:
    """A gatekeeper that goes sends its nodes away at once."""
    all_of = watchers()
    both = enter(all_of, ORDERS, 1), enter(all_of, FRONTEND, 2)
    all_of.drain()
    assert [await asyncio.wait_for(watcher.next(), 1) for watcher in both] == [None, None]


async def test_a_port_that_is_none_registers_nothing() -> None:
    """A bad heartbeat leaves the directory as it was."""
    all_of = watchers()
    watcher = all_of.open(peer(ORDERS, 1))
    with pytest.raises(ValueError, match="bad port 70000"):
        hear(all_of, watcher, 70_000, first=True)
    assert all_of.directory.nodes() == []


async def test_leases_are_looked_after() -> None:
    """``keep_time`` looks by itself, several times per lease."""
    clock = _Clock()
    all_of = watchers(clock, 50)
    all_of.take(policy(1))
    frontend = enter(all_of, FRONTEND, 1)
    assert (await slice_of(frontend)).settling
    clock.now = 50
    keeping = asyncio.create_task(all_of.keep_time())
    response = await asyncio.wait_for(frontend.next(), 5)
    keeping.cancel()
    assert response is not None
    assert response.HasField("change")
    assert not response.change.settling


async def test_every_message_says_when_auth_confirmed_the_policy() -> None:
    """Slices, changes and signs of life alike; a sign says it as it is when it is sent."""
    clock = _Clock()
    confirmed = Confirmed(clock)
    all_of = Watchers(LEASE, STALE, clock, confirmed)
    all_of.take(policy(1))
    frontend = enter(all_of, FRONTEND, 1)
    said = []
    events: tuple[Callable[[], None], ...] = (
        lambda: None,
        lambda: all_of.take(policy(2)),
        lambda: hear(all_of, frontend),
    )
    for happens in events:
        clock.now += 100
        happens()
        confirmed.heard(clock.now)
        response = await owed(frontend)
        assert response is not None
        said.append((response.WhichOneof("news"), response.confirmed_ms))
    assert said == [("slice", 100), ("change", 200), (None, 300)]


async def test_instances_of_a_service_share_what_they_are_sent() -> None:
    """The difference is worked out once for all that were told the same before."""
    all_of = watchers()
    all_of.take(policy(1))
    both = enter(all_of, FRONTEND, 1), enter(all_of, FRONTEND, 2)
    for watcher in both:
        await slice_of(watcher)
    before = both[0]._sent
    assert before is not None
    assert before is both[1]._sent
    all_of.take(policy(2, NOTHING))
    for watcher in both:
        await change_of(watcher)
    after = both[0]._sent
    assert after is not None
    assert after is both[1]._sent
    assert after.change(before) is after.change(before)


async def test_a_revoked_instance_is_gone_from_the_directory_and_everyone_is_told_once() -> None:
    """Callers lose the endpoint in the same message that names the instance; others are told the id alone."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend, inventory = enter(all_of, FRONTEND, 1), enter(all_of, INVENTORY, 2)
    enter(all_of, ORDERS, 3, port=7)
    await owed(frontend)
    await owed(inventory)
    bad = peer(ORDERS, 3).instance
    all_of.revoke(Revoked({bad: 5000}), frozenset())
    told = await owed(frontend)
    assert told is not None
    assert [one.instance for one in told.change.revoked] == [bad.raw]
    assert [list(one.endpoints) for one in told.change.destinations] == [[]]
    other = await owed(inventory)
    assert other is not None
    assert [one.until_ms for one in other.change.revoked] == [5000]
    assert not other.change.destinations
    all_of.revoke(Revoked({bad: 5000}), frozenset({"orders"}))
    assert (await owed(frontend), await owed(inventory)) == (None, None)
    assert all_of.banned == {"orders"}
    late = await owed(enter(all_of, FRONTEND, 4))
    assert late is not None
    assert [one.instance for one in late.slice.revoked] == [bad.raw]


async def test_a_banned_service_is_in_no_directory_and_comes_in_no_more() -> None:
    """Those that nodes are not told of as well: callers lose them, and streams end until it is unbanned."""
    all_of = watchers()
    all_of.take(policy(1))
    frontend, orders = enter(all_of, FRONTEND, 1), enter(all_of, ORDERS, 3, port=7)
    await owed(frontend)
    all_of.revoke(Revoked({}), frozenset({"orders"}))
    told = await owed(frontend)
    assert told is not None
    assert [list(one.endpoints) for one in told.change.destinations] == [[]]
    hear(all_of, orders, 7)
    assert await orders.next() is None
    again = enter(all_of, ORDERS, 3, port=7)
    assert await again.next() is None
    assert [node.service for node in all_of.directory.nodes()] == [FRONTEND]
    all_of.revoke(Revoked({}), frozenset())
    enter(all_of, ORDERS, 3, port=7)
    assert [node.service for node in all_of.directory.nodes()] == [FRONTEND, ORDERS]
