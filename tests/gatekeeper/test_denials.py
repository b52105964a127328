"""Reports of nodes reach auth under the name that the node has proved, or the node is told to keep them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from mesh.core.names import GATEKEEPER
from mesh.rpc.channel import MeshChannel
from mesh.v1 import audit_pb2, audit_pb2_grpc, gatekeeper_pb2
from services.gatekeeper import denials
from tests.gatekeeper.house import House, Node, policy, serving

C = grpc.StatusCode
DENIAL = audit_pb2.Denial(source="evil", method="/a.B/C", cause="denied", count=1, call_id="0a")


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """Serve a gatekeeper."""
    async with serving() as house:
        house.watchers.take(policy(1))
        yield house


def stub(node: Node) -> audit_pb2_grpc.DenialServiceAsyncStub:
    return audit_pb2_grpc.DenialServiceStub(MeshChannel(node.membership, node.target))


def report(count: int = 1) -> audit_pb2.ReportRequest:
    return audit_pb2.ReportRequest(denials=[DENIAL] * count)


async def test_a_report_is_answered_when_auth_has_it(house: House) -> None:
    """What a node says goes on in the name of that node's own seal."""
    node = house.node("orders")
    await stub(node).Report(report(3))
    (request,) = house.auth.requests
    (told,) = request.reports
    assert (told.service, told.instance) == ("orders", node.membership.instance.raw)
    assert list(told.denials) == [DENIAL] * 3


async def test_auth_away(house: House) -> None:
    """A node is told that its report was not taken, and may send it again."""
    house.auth.away = True
    node = house.node("orders")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub(node).Report(report())
    assert refused.value.code() is C.UNAVAILABLE
    house.auth.away = False
    await stub(node).Report(report())
    assert len(house.auth.requests) == 1


async def test_too_much(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is bounded, and so is what waits."""
    node = house.node("orders")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub(node).Report(report(65))
    assert refused.value.code() is C.INVALID_ARGUMENT
    monkeypatch.setattr(denials, "MOST", 0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub(node).Report(report())
    assert refused.value.code() is C.UNAVAILABLE
    assert house.auth.requests == []


async def test_many_go_together(house: House) -> None:
    """While one call to auth is under way, what comes waits and goes in the next one."""
    reports = [
        audit_pb2.NodeDenials(service="orders", instance=bytes([number]) * 16, denials=[DENIAL])
        for number in range(200)
    ]
    await asyncio.gather(*(house.forwarder.forward(one) for one in reports))
    assert [len(request.reports) for request in house.auth.requests] == [64, 64, 64, 8]


async def test_one_cannot_take_all_the_room(house: House) -> None:
    """A node that reports many times at once is told to come again, and another's report is taken."""
    many = [audit_pb2.NodeDenials(service="evil", instance=bytes(16), denials=[DENIAL])] * 100
    other = audit_pb2.NodeDenials(service="orders", instance=bytes([1]) * 16, denials=[DENIAL])
    *told, taken = await asyncio.gather(
        *(house.forwarder.forward(one) for one in (*many, other)), return_exceptions=True
    )
    assert taken is None
    assert sum(isinstance(one, OSError) for one in told) == 100 - denials.MOST_OF_ONE


async def test_who_gives_up_waiting_stops_nobody(house: House) -> None:
    """A node that went away is not waited for."""
    gone = asyncio.create_task(house.forwarder.forward(audit_pb2.NodeDenials(service="gone")))
    stays = asyncio.create_task(house.forwarder.forward(audit_pb2.NodeDenials(service="stays")))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert house.auth.requests


async def test_what_gatekeeper_denies_itself(house: House) -> None:
    """Authorize's denials are the asker's, with the rule; a refused name is told without that name."""
    node = house.node("orders")
    request = gatekeeper_pb2.AuthorizeRequest(source="frontend", method="/shop.v1.Orders/Purge")
    assert not (await node.stub.Authorize(request)).permitted
    assert not (await node.stub.Authorize(gatekeeper_pb2.AuthorizeRequest(source="\n", method="x"))).permitted
    (purge, junk) = [one.what for one in house.told]
    assert purge
    assert junk
    assert purge.by.service == "orders"
    assert (purge.source, purge.method) == ("frontend", "/shop.v1.Orders/Purge")
    assert (purge.rule, purge.cause, purge.source_instance) == ("no-purge", "denied", "")
    assert (junk.source, junk.method, junk.rule) == ("", "", "")
    for name in ("frontend", "nowhere", "Not A Name"):
        with pytest.raises(grpc.aio.AioRpcError):
            await node.stub.Resolve(gatekeeper_pb2.ResolveRequest(service=name))
    await house.reporter.close()
    (refused,) = {one.what for one in house.told[2:]}
    assert refused
    assert (refused.source, refused.by.service) == ("orders", GATEKEEPER)
    assert refused.cause == "name unavailable"
    await house.forwarder.send(house.told)
    assert {told.service for request in house.auth.requests for told in request.reports} == {
        "orders",
        GATEKEEPER.text,
    }


async def test_what_audit_let_pass_is_told_for_whoever_asked(house: House) -> None:
    """A call that Authorize permits only in audit goes to auth as the asker's word, and is no denial."""
    document = {"services": {"frontend": {}, "orders": {"mode": "audit"}}}
    house.watchers.take(policy(2, document))
    node = house.node("orders")
    request = gatekeeper_pb2.AuthorizeRequest(source="frontend", method="/shop.v1.Orders/Purge")
    for _ in range(3):
        assert (await node.stub.Authorize(request)).permitted
    await house.reporter.close()
    assert sum(told.count for told in house.told) == 3
    await house.forwarder.send(house.told)
    sent = [told for request in house.auth.requests for told in request.reports]
    assert {(told.service, told.instance) for told in sent} == {("orders", node.membership.instance.raw)}
    denials_ = {(one.source, one.method, one.rule, one.cause) for told in sent for one in told.denials}
    assert denials_ == {("frontend", "/shop.v1.Orders/Purge", "", "audited")}


async def test_nobody_but_members(house: House) -> None:
    """A call of gatekeeper that it denies by its own rules is told of as well."""
    node = house.node("orders")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await node.stub.ListNodes(gatekeeper_pb2.ListNodesRequest())
    assert refused.value.code() is C.PERMISSION_DENIED
    (told,) = house.told
    assert told.what
    assert told.what.method == "/mesh.v1.GatekeeperService/ListNodes"
    assert told.what.source_instance == str(node.membership.instance)
