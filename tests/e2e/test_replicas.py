"""Two auths and two gatekeepers on one PostgreSQL: each is killed in turn, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack

import pytest

import mesh
from mesh import enrol
from mesh.cli.data import DataDirectory
from mesh.core.names import GATEKEEPER
from mesh.rpc.channel import MeshChannel
from mesh.rpc.targets import FixedTarget
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc
from tests.e2e.echo import Echo
from tests.e2e.halves import Half, joined, started
from tests.e2e.process import until
from tests.e2e.world import TIMEOUT, policy

PAIR = policy(("orders", "inventory"))


class Traffic:
    """Calls of an established pair, one after the other; none may fail."""

    def __init__(self, node: mesh.Node) -> None:
        """Take the caller."""
        self._call = node.channel("inventory").unary_unary("/test.v1.Echo/Unary")
        self.count = 0

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            assert await self._call(b"1", timeout=TIMEOUT) == b"1"
            self.count += 1
            await asyncio.sleep(0.02)

    async def goes_on(self, calls: int = 20) -> None:
        """Wait for more calls."""
        before = self.count
        await until(lambda: self.count >= before + calls, "more calls")


@pytest.mark.timeout(240)
async def test_each_dies_in_turn(halves: tuple[Half, Half]) -> None:
    """Calls go on without a failure, nodes join and renew, policies are applied: whichever is dead."""
    await started(halves)
    first, second = halves
    await first.apply(PAIR)
    async with AsyncExitStack() as stack:
        inventory = await stack.enter_async_context(joined(halves, "inventory"))
        inventory.server().add_generic_rpc_handlers((Echo(),))
        await inventory.server().start()
        orders = await stack.enter_async_context(joined(halves, "orders"))
        traffic = Traffic(orders)
        await until(lambda: orders.slice.endpoints(inventory.identity.service), "inventory to be known")
        await until(lambda: inventory.slice.version == 1, "the policy at inventory")
        calls = asyncio.create_task(traffic.run())
        await traffic.goes_on()
        for dead, alive in ((first, second), (second, first)):
            dead.auth.kill()
            before = orders.membership.svid.not_after_ms
            async with mesh.join(
                "orders", token=await alive.token("orders"), auth=alive.join_addresses
            ) as late:
                await traffic.goes_on()
                assert late.slice.in_force
            await until(lambda: orders.membership.svid.not_after_ms > before, "a renewal")  # noqa: B023
            version = await alive.apply(PAIR)
            await until(lambda: orders.slice.version == version, "the policy to arrive")  # noqa: B023
            await dead.start_auth()
            assert not calls.done(), calls
        for dead in halves:
            dead.gatekeeper.kill()
            async with joined(halves, "orders") as late:
                # Known at the one that is left, where it was registered beside the other.
                found_at = late.slice.endpoints(inventory.identity.service) or []
                assert [one.instance for one in found_at] == [inventory.instance]
                await traffic.goes_on()
            version = await first.apply(PAIR)
            await until(lambda: orders.slice.version == version, "the policy to arrive")  # noqa: B023
            await dead.start_gatekeeper()
            await traffic.goes_on()
            assert not calls.done(), calls
            await asyncio.wait_for(back(orders, inventory, dead), 20)
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)


async def back(orders: mesh.Node, inventory: mesh.Node, gatekeeper: Half) -> None:
    """Wait until both are registered with a gatekeeper that was started again: with that one, not any."""
    data = DataDirectory(gatekeeper.data)
    enrolment = await enrol.join(data.credential(), gatekeeper.join_addresses)
    target = FixedTarget(GATEKEEPER, gatekeeper.gatekeeper_address, enrolment.membership)
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(MeshChannel(enrolment.membership, target))
    try:
        while True:
            listed = await stub.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=TIMEOUT)
            if {orders.instance.raw, inventory.instance.raw} <= {node.instance for node in listed.nodes}:
                return
    finally:
        await target.close()
        await enrolment.close()


@pytest.mark.timeout(120)
async def test_what_one_is_told_the_other_knows(halves: tuple[Half, Half]) -> None:
    """A policy applied at one auth reaches gatekeepers and nodes of the other within a second."""
    await started(halves)
    first, second = halves
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(joined(halves, "orders")) for _ in range(4)]
        for half in (first, second, first):
            version = await half.apply(PAIR)
            await until(lambda: all(node.slice.version == version for node in nodes), "the policy")  # noqa: B023
    status = [await half.status() for half in halves]
    assert status[0].epoch == status[1].epoch
    assert status[0].policy_version == status[1].policy_version == 3


@pytest.mark.timeout(120)
async def test_a_check_looks_at_each_gatekeeper(halves: tuple[Half, Half]) -> None:
    """All are well, or the one that is gone is named, and it alone."""
    await started(halves)
    first, second = halves

    async def checked() -> list[str]:
        run = first.command("check", sys.executable, "-m", "mesh.cli", "check", "--data", str(first.data))
        await until(lambda: not run.running, "the command to end")
        lines = [line.partition(" ports ")[2].strip() for line in run.out.splitlines()]
        return [line for line in lines if line.startswith("gatekeeper")]

    well = [f"gatekeeper takes connections at {half.gatekeeper_address}" for half in halves]
    assert await checked() == well
    second.gatekeeper.kill()
    gone = f"gatekeeper takes no connection at {second.gatekeeper_address}"
    assert await checked() == [well[0], gone]


@pytest.mark.timeout(120)
async def test_each_log_is_verified_where_it_is(halves: tuple[Half, Half]) -> None:
    """Of each auth by its own data directory and key, and every command says which others there are."""
    await started(halves)
    for half in halves:
        await half.apply(PAIR)
    names = [json.loads((half.data / "database.json").read_text())["replica"] for half in halves]
    for half, (own, other) in zip(halves, (names, names[::-1]), strict=True):
        for command in ("verify", "query", "tail"):
            run = half.command(
                "audit", sys.executable, "-m", "mesh.cli", "audit", command, "--data", str(half.data)
            )
            await until(lambda: not run.running, "the command to end")  # noqa: B023
            assert run.process.returncode == 0, run.log
            assert f"logs of auth {own} alone: 1 more has logs of its own ({other})" in run.log
        half.auth.kill()
        offline = half.command(
            "audit",
            sys.executable,
            "-m",
            "mesh.cli",
            "audit",
            "verify",
            "--offline",
            "--data",
            str(half.data),
        )
        await until(lambda: not offline.running, "the command to end")  # noqa: B023
        assert offline.process.returncode == 0, offline.log
        assert f"logs of auth {own} alone" in offline.log
