"""GatekeeperService over real TLS, seals and sockets: who is registered, told, permitted and refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from mesh.rpc.channel import MeshChannel
from mesh.v1 import gatekeeper_pb2, revocation_pb2
from services.gatekeeper.judging import MAX_HEADERS
from services.gatekeeper.revocations import Revocations
from services.gatekeeper.service import MAX_REQUEST, seen_host
from services.gatekeeper.slices import NOBODY
from tests.gatekeeper.house import (
    House,
    Node,
    Reader,
    addresses,
    beat,
    end_of,
    next_slice,
    policy,
    serving,
    sign_of_life,
    until,
)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Serve a gatekeeper without a policy."""
    async with serving() as made:
        yield made


async def test_a_node_registers_itself_and_nobody_else(house: House) -> None:
    """Name, instance and host are those of the sealed call; the port is what the node says."""
    node = house.node("orders")
    call = await node.watch(port=5000, version=3)
    await sign_of_life(call)
    (row,) = house.watchers.directory.nodes()
    assert (row.service, row.instance) == (node.membership.name, node.membership.instance)
    assert (row.address, row.policy_version) == ("127.0.0.1:5000", 3)


async def test_a_slice_comes_with_the_policy_and_signs_of_life_with_heartbeats(house: House) -> None:
    """Before the first policy there is no slice; after it every heartbeat is answered."""
    call = await house.node("frontend").watch()
    await sign_of_life(call)
    house.watchers.take(policy(1))
    cut = await next_slice(call)
    assert (cut.policy_version, addresses(cut), cut.settling) == (1, {"orders": []}, True)
    assert cut.max_stale_ms == 600_000
    await call.write(beat())
    await sign_of_life(call)


async def test_callers_are_told_of_endpoints_that_come_and_go(house: House) -> None:
    """An endpoint appears with its node's heartbeat and disappears with the clean end of its stream."""
    house.watchers.take(policy(1))
    frontend = Reader(await house.node("frontend").watch())
    assert addresses(await frontend.next()) == {"orders": []}
    orders = await house.node("orders").watch(port=5000)
    assert addresses(await frontend.next()) == {"orders": ["127.0.0.1:5000"]}
    await orders.write(beat(port=5001))
    assert addresses(await frontend.next()) == {"orders": ["127.0.0.1:5001"]}
    await orders.done_writing()
    assert addresses(await frontend.next()) == {"orders": []}
    assert await end_of(orders) is grpc.StatusCode.OK


async def test_a_broken_stream_leaves_the_endpoint(house: House) -> None:
    """A connection that is lost says nothing about the node."""
    node = house.node("orders")
    call = await node.watch(port=5000)
    await call.read()
    call.cancel()
    await until(lambda: not house.watchers.directory.nodes()[0].connected)
    assert house.watchers.directory.endpoints(node.membership.name)


async def test_a_policy_reaches_everyone_but_only_as_their_slice(house: House) -> None:
    """A node learns its own rules and destinations, and the new version even if those are as before."""
    house.watchers.take(policy(1))
    names = ("frontend", "orders", "inventory", "x")
    readers = {name: Reader(await house.node(name).watch()) for name in names}
    for reader in readers.values():
        assert (await reader.next()).policy_version == 1
    house.watchers.take(policy(2))
    for name, reader in readers.items():
        cut = await reader.next()
        assert reader.news.change == gatekeeper_pb2.Change(policy_version=2, settling=True)
        assert cut.policy_version == 2
        assert list(addresses(cut)) == {"frontend": ["orders"], "orders": ["inventory"]}.get(name, [])


async def test_a_slow_reader_costs_only_itself(house: House) -> None:
    """Others are told at once while one does not read; in the end that one gets the newest, not all."""
    house.watchers.take(policy(1))
    slow, quick = [Reader(await house.node("orders").watch()) for _ in range(2)]
    await quick.next()
    rules = [{"principals": [f"a{number}.*"], "paths": ["*"]} for number in range(3_000)]
    large = [policy(2, {"services": {"orders": {effect: rules}}}) for effect in ("allow", "deny")]
    last = 60
    for version in range(2, last + 1):
        house.watchers.take(replace(large[version % 2], version=version))
        assert (await quick.next()).policy_version == version
    seen = [(await slow.next()).policy_version]
    while seen[-1] != last:
        seen.append((await slow.next()).policy_version)
    assert seen == sorted(seen)
    assert len(seen) < last


async def test_a_newer_stream_of_an_instance_ends_the_older(house: House) -> None:
    """A node that came back is one node, and its older stream ends in good order."""
    node = house.node("orders")
    older = await node.watch(port=5000)
    await older.read()
    newer = await node.watch(port=5000)
    await newer.read()
    assert await end_of(older) is grpc.StatusCode.OK
    assert len(house.watchers.directory.endpoints(node.membership.name)) == 1
    await newer.write(beat(port=5000))
    await sign_of_life(newer)


async def test_a_bad_port_ends_the_stream_and_registers_nothing(house: House) -> None:
    """A port above 65535 is refused with its number."""
    call = await house.node("orders").watch(port=70_000)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "70000" in (refused.value.details() or "")
    assert house.watchers.directory.nodes() == []


async def test_a_stream_without_heartbeats_is_ended() -> None:
    """Who does not send heartbeats does not hold a stream either."""
    async with serving(lease_ms=50) as house:
        call = house.node("orders").stub.Watch()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call.read(), 10)
        assert ended.value.code() is grpc.StatusCode.ABORTED


async def test_draining_sends_nodes_away_in_good_order(house: House) -> None:
    """Streams end with OK, and the nodes stay listed until their leases run out."""
    call = await house.node("orders").watch(port=5000)
    await call.read()
    house.watchers.drain()
    assert await end_of(call) is grpc.StatusCode.OK
    assert len(house.watchers.directory.nodes()) == 1


async def authorize(
    node: Node, source: str, method: str, **headers: bytes
) -> gatekeeper_pb2.AuthorizeResponse:
    request = gatekeeper_pb2.AuthorizeRequest(
        source=source,
        method=method,
        headers=[
            gatekeeper_pb2.Header(key=key.replace("_", "-"), value=value) for key, value in headers.items()
        ],
    )
    return await node.stub.Authorize(request)


async def test_authorize_judges_calls_to_the_asker(house: House) -> None:
    """The answer names the rule and the version of the policy; who asks is the callee, always."""
    house.watchers.take(policy(4))
    orders, inventory = house.node("orders"), house.node("inventory")
    assert await authorize(orders, "frontend", "/shop.v1.Orders/Get") == gatekeeper_pb2.AuthorizeResponse(
        permitted=True, rule="orders/allow/0", policy_version=4
    )
    assert not (await authorize(inventory, "frontend", "/shop.v1.Orders/Get")).permitted
    assert (await authorize(inventory, "orders", "/a.B/C", x_tenant=b"acme")).permitted
    assert not (await authorize(inventory, "orders", "/a.B/C", x_tenant=b"\xff")).permitted
    assert not (await authorize(inventory, "orders", "/a.B/C")).permitted


@pytest.mark.parametrize(
    ("source", "method", "rule"),
    [
        ("frontend", "/shop.v1.Orders/Purge", "no-purge"),
        ("inventory", "/shop.v1.Orders/Get", ""),
        ("stranger", "/shop.v1.Orders/Get", ""),
        ("frontend", "shop.v1.Orders/Get", ""),
        ("frontend", "/shop.v1.Orders/../Get", ""),
        ("Frontend", "/shop.v1.Orders/Get", ""),
        ("", "", ""),
    ],
)
async def test_authorize_denies_and_logs(
    house: House, caplog: pytest.LogCaptureFixture, source: str, method: str, rule: str
) -> None:
    """A denial is logged with caller and rule, or the absence of one; what is no name is denied, too."""
    house.watchers.take(policy(4))
    with caplog.at_level(logging.WARNING, "mesh.gatekeeper"):
        answer = await authorize(house.node("orders"), source, method)
    assert answer == gatekeeper_pb2.AuthorizeResponse(permitted=False, rule=rule, policy_version=4)
    said = f"denied: source={source!r} method={method!r} destination=orders rule={rule or None!r}"
    assert [r.message for r in caplog.records if r.name == "mesh.gatekeeper"] == [said]


async def test_authorize_permits_in_audit_and_logs(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """What is permitted only in audit is told where it was judged; time is the mesh's."""
    rule = {"principals": ["frontend"], "paths": ["*"], "when": "time.getFullYear() >= 2020"}
    house.watchers.take(
        policy(4, {"services": {"frontend": {}, "orders": {"mode": "audit", "allow": [rule]}}})
    )
    with caplog.at_level(logging.WARNING, "mesh"):
        assert (await authorize(house.node("orders"), "frontend", "/a.B/C")).rule == "orders/allow/0"
        answer = await authorize(house.node("orders"), "evil", "/a.B/C")
    assert answer == gatekeeper_pb2.AuthorizeResponse(permitted=True, policy_version=4)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "mesh"]
    assert "would be denied: source='evil' method='/a.B/C' destination=orders rule=None by=None" in said


async def test_authorize_takes_no_more_headers_than_a_call_can_have(house: House) -> None:
    """Another one is refused before it is judged."""
    house.watchers.take(policy(4))
    node = house.node("orders")
    headers = [gatekeeper_pb2.Header(key="x", value=b"y")] * MAX_HEADERS
    request = gatekeeper_pb2.AuthorizeRequest(
        source="frontend", method="/shop.v1.Orders/Get", headers=headers
    )
    assert (await node.stub.Authorize(request)).permitted
    request.headers.add()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.stub.Authorize(request)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"up to {MAX_HEADERS}" in (refused.value.details() or "")


@pytest.mark.parametrize("size", [MAX_REQUEST + 1, 4 * 1024 * 1024])
async def test_large_requests_are_not_parsed(house: House, size: int) -> None:
    """What no honest node sends is refused by its size alone, on every method that a node may use."""
    house.watchers.take(policy(4))
    node = house.node("orders")
    channel = MeshChannel(node.membership, node.target)
    for method in ("Authorize", "Resolve", "Watch"):
        call = channel.stream_stream(f"/mesh.v1.GatekeeperService/{method}")(iter([b"\0" * size]))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than" in await call.details()


async def test_resolve_gives_what_may_be_called(house: House) -> None:
    """With its endpoints, and without any if it does not run."""
    house.watchers.take(policy(1))
    frontend, orders = house.node("frontend"), house.node("orders")
    request = gatekeeper_pb2.ResolveRequest(service="orders")
    assert (await frontend.stub.Resolve(request)).destination == gatekeeper_pb2.Destination(service="orders")
    call = await orders.watch(port=5000)
    await call.read()
    found = (await frontend.stub.Resolve(request)).destination
    endpoint = gatekeeper_pb2.Endpoint(instance=orders.membership.instance.raw, address="127.0.0.1:5000")
    assert list(found.endpoints) == [endpoint]


#: What a person would take for orders: Cyrillic, full width, with a space of no width, and composed.
LOOK_ALIKES = ("\u043erders", "\uff4frders", "orders\u200b", "o\u0308rders", "Orders", "orders ", "orders.")


async def test_forbidden_and_nonexistent_names_are_one_answer(house: House) -> None:
    """Code, text and details do not differ by a byte, whether the name runs, is known, or cannot be."""
    house.watchers.take(policy(1))
    running = await house.node("inventory").watch(port=5000)
    await running.read()
    frontend = house.node("frontend")
    answers = set()
    for name in ("inventory", "frontend", "nobody", "mesh.auth", "NO NAME", "", "x" * 5000, *LOOK_ALIKES):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await frontend.stub.Resolve(gatekeeper_pb2.ResolveRequest(service=name))
        trailing = [(k, v) for k, v in refused.value.trailing_metadata() or () if k != "mesh-end-bin"]
        answers.add((refused.value.code(), refused.value.details(), tuple(trailing)))
    ((code, details, told),) = answers
    assert code is grpc.StatusCode.NOT_FOUND
    assert details
    assert told


async def test_without_a_policy_questions_wait(house: House) -> None:
    """Before the first policy the answer is UNAVAILABLE, not a denial that might be believed."""
    node = house.node("frontend")
    for ask in (
        node.stub.Resolve(gatekeeper_pb2.ResolveRequest(service="orders")),
        node.stub.Authorize(gatekeeper_pb2.AuthorizeRequest(source="frontend", method="/a.B/C")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no policy" in (refused.value.details() or "")


async def test_the_operator_lists_nodes_and_nobody_else_does(house: House) -> None:
    """Sorted by service, then instance; before the first policy, too."""
    operator, frontend = house.node("mesh.operator"), house.node("frontend")
    assert (
        await operator.stub.ListNodes(gatekeeper_pb2.ListNodesRequest()) == gatekeeper_pb2.ListNodesResponse()
    )
    house.watchers.take(policy(9))
    orders = house.node("orders")
    for call in (await frontend.watch(), await orders.watch(port=5000, version=8)):
        await call.read()
    found = await operator.stub.ListNodes(gatekeeper_pb2.ListNodesRequest())
    assert found.policy_version == 9
    assert [(n.service, n.address, n.policy_version) for n in found.nodes] == [
        ("frontend", "", 0),
        ("orders", "127.0.0.1:5000", 8),
    ]
    assert all(n.last_seen_ms < 60_000 for n in found.nodes)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await frontend.stub.ListNodes(gatekeeper_pb2.ListNodesRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::7]:4711", "2001:db8::7"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:4711", "10.0.0.7"),
    ],
)
def test_the_host_is_read_from_grpcs_name_for_the_peer(peer: str, host: str) -> None:
    """With brackets encoded or not, and IPv4 in IPv6 clothes as what it is."""
    assert seen_host(peer) == host


@pytest.mark.parametrize("peer", ["unix:/tmp/socket", "", "ipv4:", "ipv4:somewhere:1"])
def test_a_peer_without_an_address_is_nowhere(peer: str) -> None:
    """An endpoint is an IP address or it is not registered."""
    with pytest.raises(ValueError, match="does not appear to be"):
        seen_host(peer)


async def test_calls_of_a_banned_service_are_denied_whatever_policy_says(house: House) -> None:
    """Whoever asks gatekeeper cannot tell instances apart: there a ban counts, until it is lifted."""
    house.watchers.take(policy(4))
    orders = house.node("orders")
    house.watchers.revoke(NOBODY, frozenset({"frontend"}))
    answer = await authorize(orders, "frontend", "/shop.v1.Orders/Get")
    assert (answer.permitted, answer.rule) == (False, "mesh/revoked")
    house.watchers.revoke(NOBODY, frozenset())
    assert (await authorize(orders, "frontend", "/shop.v1.Orders/Get")).permitted


async def test_a_revoked_node_is_ended_and_let_in_no_more(house: House) -> None:
    """Its stream ends with the reason, it leaves the directory, and others learn of it."""
    house.watchers.take(policy(4))
    bad, other = house.node("orders"), house.node("frontend")
    stream, reader = await bad.watch(port=7), Reader(await other.watch())
    await next_slice(stream)
    await reader.next()
    instance = bad.membership.instance
    told = revocation_pb2.Revocations(
        instances=[revocation_pb2.RevokedInstance(instance=instance.raw, until_ms=2**50)]
    )
    Revocations(house.member, house.watchers, house.server).take(told)
    for call in (stream, await bad.watch()):
        with pytest.raises(grpc.aio.AioRpcError, match="revoked") as ended:
            await end_of(call)
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    while not (await reader.next()).revoked:
        pass
    assert instance not in [node.instance for node in house.watchers.directory.nodes()]
