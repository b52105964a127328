"""Asking gatekeeper: a permit, or a denial, whatever goes wrong and however late the answer is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.core.errors import Denied
from mesh.rpc import authorize as asking
from mesh.rpc.authorize import authorize
from mesh.rpc.channel import MeshChannel
from mesh.v1 import gatekeeper_pb2
from services.gatekeeper import service
from tests.gatekeeper.house import House, policy, serving

METHOD = "/shop.v1.Orders/Get"


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Serve a gatekeeper with a policy."""
    async with serving() as made:
        made.watchers.take(policy(1))
        yield made


def channel(house: House, name: str) -> grpc.aio.Channel:
    """Give a node's channel to gatekeeper."""
    node = house.node(name)
    return MeshChannel(node.membership, node.target)


async def test_what_gatekeeper_permits_is_permitted(house: House) -> None:
    """With the rule that gives it, and by the metadata, text or bytes."""
    assert (await authorize(channel(house, "orders"), "frontend", METHOD)).rule == "orders/allow/0"
    inventory = channel(house, "inventory")
    for tenant in ("acme", b"acme"):
        permit = await authorize(inventory, "orders", "/a.B/C", (("x-tenant", tenant),))
        assert (permit.source, permit.method, permit.rule) == ("orders", "/a.B/C", "inventory/allow/0")


async def test_what_it_denies_is_denied(house: House) -> None:
    """With the rule, if there is one."""
    orders = channel(house, "orders")
    with pytest.raises(Denied) as denied:
        await authorize(orders, "frontend", "/shop.v1.Orders/Purge")
    assert denied.value.rule == "no-purge"
    with pytest.raises(Denied) as denied:
        await authorize(orders, "inventory", METHOD)
    assert denied.value.rule is None


async def test_no_answer_is_a_denial(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gatekeeper that has no policy, is late or is gone, permits nothing."""
    orders = channel(house, "orders")
    await authorize(orders, "frontend", METHOD)
    house.confirmed.at_ms = 0  # auth has said nothing for longer than gatekeeper goes by
    with pytest.raises(Denied):
        await authorize(orders, "frontend", METHOD)
    house.confirmed.asked()
    house.confirmed.heard(house.world.clock.now_ms())
    await authorize(orders, "frontend", METHOD)
    monkeypatch.setattr(service.Gatekeeper, "_authorize", _never)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Denied):
        await authorize(orders, "frontend", METHOD)
    assert asyncio.get_running_loop().time() - began >= asking.DEADLINE / 2
    await house.server.stop(None)
    with pytest.raises(Denied):
        await authorize(orders, "frontend", METHOD)


async def _never(*_arguments: Any) -> gatekeeper_pb2.AuthorizeResponse:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def test_gatekeeper_bounds_its_own_work(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits longer than it should is told that there is no answer, which is no permit."""
    node = house.node("orders")
    monkeypatch.setattr(service.Gatekeeper, "_authorize", _never)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await node.stub.Authorize(
            gatekeeper_pb2.AuthorizeRequest(source="frontend", method=METHOD), timeout=30
        )
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "took too long" in (failed.value.details() or "")


async def test_a_denial_does_not_wait_for_the_log_to_the_last(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is answered in time though the audit log does not take it: the reporter keeps it."""
    node = house.node("orders")

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(house.reporter, "written", never)
    request = gatekeeper_pb2.AuthorizeRequest(source="inventory", method=METHOD)
    assert not (await node.stub.Authorize(request, timeout=30)).permitted
