"""Revoked and banned members, among real processes: what ends, where, and who is let in again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

import mesh as library
from mesh.enrol import JoinError
from tests.e2e.echo import Dialogue, Echo, ask, fails, reason, served, works
from tests.e2e.process import until
from tests.e2e.world import Mesh, Timers, appears, policy

#: Whether the caller drops the revoked callee first, or that one sees first that it may answer no more.
ENDED = ("PEER_REVOKED", "POLICY_DENIED")
Start = Callable[..., Awaitable[Mesh]]


async def test_an_embedded_instance_is_dropped_on_both_ends(start_mesh: Start) -> None:
    """Streams that it has open with another end at both ends, in both directions, and say why.

    It cannot call, is not called, and another instance of its service takes its place.
    """
    mesh = await start_mesh(Timers())
    await mesh.apply(policy(("orders", "stock"), ("stock", "orders")))
    async with AsyncExitStack() as stack:
        orders = await stack.enter_async_context(mesh.node("orders"))
        bad = await stack.enter_async_context(mesh.node("stock"))
        at_orders, at_bad = Echo("orders"), Echo("bad")
        for node, echo in ((orders, at_orders), (bad, at_bad)):
            node.server().add_generic_rpc_handlers((echo,))
            await node.server().start()
        to_bad, to_orders = orders.channel("stock"), bad.channel("orders")
        await works(ask(to_bad))
        await works(ask(to_orders))
        there, back = Dialogue(to_bad), Dialogue(to_orders)
        await there.turn()
        await back.turn()

        done = await mesh.revoke("stock", bad.instance.raw)

        assert list(done.instances) == [bad.instance.raw]
        assert reason(await fails(there.turn)) in ENDED
        await fails(back.turn, why="REVOKED")
        assert await at_orders.ended.get() == "cancelled"
        assert await at_bad.ended.get() == "cancelled"
        await fails(ask(to_bad), why="NOT_READY")
        await fails(ask(to_orders), why="REVOKED")
        await until(lambda: bad.slice.withdrawn, "the revoked node to know")
        assert bad.instance.raw not in [node.instance for node in (await mesh.nodes()).nodes]

        good = await stack.enter_async_context(mesh.node("stock"))
        good.server().add_generic_rpc_handlers((Echo("good"),))
        await good.server().start()
        assert await works(ask(to_bad, "Name")) == b"good"
        assert await works(ask(good.channel("orders"), "Name")) == b"orders"


async def test_a_sidecar_is_dropped_and_says_why(start_mesh: Start) -> None:
    """Streams through a revoked sidecar end at both applications; the reason is in its log."""
    mesh = await start_mesh(Timers())
    await mesh.apply(policy(("front", "back"), ("back", "front")))
    async with AsyncExitStack() as stack:
        at_back, at_front = Echo("back"), Echo("front")
        back_app = await stack.enter_async_context(served(at_back))
        front_app = await stack.enter_async_context(served(at_front))
        back = await mesh.sidecar("back", "--app-port", str(back_app))
        front = await mesh.sidecar("front", "--app-port", str(front_app))
        await appears(front.socket("back"))
        await appears(back.socket("front"))
        to_back = await stack.enter_async_context(front.channel("back"))
        to_front = await stack.enter_async_context(back.channel("front"))
        await works(ask(to_back))
        await works(ask(to_front))
        there, there_again = Dialogue(to_back), Dialogue(to_front)
        await there.turn()
        await there_again.turn()

        await mesh.revoke("back")

        assert reason(await fails(there.turn)) in ENDED
        await fails(there_again.turn)
        assert await at_back.ended.get() == "cancelled"
        assert await at_front.ended.get() == "cancelled"
        await back.process.says("this instance was revoked by an operator")


async def test_a_banned_service_stays_out_until_it_is_unbanned(start_mesh: Start) -> None:
    """Its instances are dropped, its tokens are refused, also after the ban; a new one is good again."""
    mesh = await start_mesh(Timers())
    await mesh.apply(policy(("orders", "stock")))
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(mesh.node("stock"))
        left = await mesh.token("stock")
        done = await mesh.ban("stock")
        assert (len(done.instances), done.tokens) == (1, 1)
        await until(lambda: node.slice.withdrawn, "the banned node to know")
        await fails(lambda: mesh.token("stock"))
        with pytest.raises(JoinError):
            await stack.enter_async_context(library.join("stock", token=left, auth=mesh.join_address))
        await mesh.unban("stock")
        with pytest.raises(JoinError):
            await stack.enter_async_context(library.join("stock", token=left, auth=mesh.join_address))
        again = await stack.enter_async_context(mesh.node("stock"))
        assert again.slice.in_force


async def test_what_is_revoked_stays_so_through_restarts(start_mesh: Start) -> None:
    """With gatekeeper away nothing reaches the others; it does when both have restarted."""
    mesh = await start_mesh(Timers())
    await mesh.apply(policy(("orders", "stock")))
    async with AsyncExitStack() as stack:
        orders = await stack.enter_async_context(mesh.node("orders"))
        stock = await stack.enter_async_context(mesh.node("stock"))
        stock.server().add_generic_rpc_handlers((Echo(),))
        await stock.server().start()
        await works(ask(orders.channel("stock")))
        dialogue = Dialogue(orders.channel("stock"))
        await dialogue.turn()
        mesh.gatekeeper.kill()
        await mesh.revoke("stock", stock.instance.raw)
        await dialogue.turn()
        mesh.auth.kill()
        await mesh.start_auth()
        await mesh.start_gatekeeper()
        assert reason(await fails(dialogue.turn, seconds=20)) in ENDED
        await until(lambda: stock.slice.withdrawn, "the revoked node to know", 20)
