"""An auth or a gatekeeper that hangs, beside another that does not: it takes longer, and nothing fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import mesh
from tests.e2e.echo import Dialogue, Echo, Traffic, ask, works
from tests.e2e.halves import Half, in_halves, joined, started
from tests.e2e.process import Process, until
from tests.e2e.world import Timers, policy
from tests.postgres import Server

#: Seconds that it may take while one of two hangs, as docs/postgresql.md says: until a node has joined and
#: called, until a policy has arrived, and until a certificate that was due is renewed.
JOINS, ARRIVES, RENEWS = 20.0, 20.0, 15.0
#: So many that some use the one that hangs, whichever that is.
NODES: Final = 6
TIMERS: Final = Timers(svid=30, epoch=30, grace=10)
ALLOWED: Final = policy(("orders", "inventory"))

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: two halves of a mesh, and nodes that call each other all the time."""

    halves: tuple[Half, Half]
    nodes: list[mesh.Node]
    traffic: Traffic

    async def joins(self, alive: Half) -> None:
        """See that another node joins, and that its call is answered."""
        # One that has just stopped to hang may have slept through the end of its own certificate.
        token, auths = await works(lambda: alive.token("orders")), alive.join_addresses
        async with asyncio.timeout(JOINS), mesh.join("orders", token=token, auth=auths) as late:
            await works(ask(late.channel("inventory")), JOINS)

    async def changes(self, alive: Half) -> None:
        """See that a policy arrives at all."""
        version = await alive.apply(ALLOWED)
        await until(lambda: all(node.slice.version == version for node in self.nodes), "the policy", ARRIVES)

    async def renew(self) -> None:
        """See that all renew."""
        before = [(node, node.membership.svid) for node in self.nodes]
        await until(
            lambda: all(node.membership.svid is not svid for node, svid in before),
            "renewals",
            TIMERS.svid / 2 + RENEWS,
        )


@asynccontextmanager
async def playing(where: Path, url: str) -> AsyncIterator[Cast]:
    """Run the cast, with traffic of which nothing may fail."""
    async with AsyncExitStack() as stack:
        halves = stack.enter_context(in_halves(where, url, TIMERS))
        await started(halves)
        await halves[0].apply(ALLOWED)
        inventory = await stack.enter_async_context(joined(halves, "inventory"))
        inventory.server().add_generic_rpc_handlers((Echo(),))
        await inventory.server().start()
        nodes = [await stack.enter_async_context(joined(halves, "orders")) for _ in range(NODES)]
        calls = [ask(node.channel("inventory")) for node in nodes]
        for call in calls:
            await works(call)
        dialogue = Dialogue(nodes[0].channel("inventory"))
        async with Traffic([*calls, dialogue.turn]) as traffic:
            yield Cast(halves, [inventory, *nodes], traffic)
        await dialogue.end()
        assert [failure.details() for failure in traffic.failures] == []
        assert traffic.slowest() > 50


@contextmanager
def hung(process: Process) -> Iterator[None]:
    """Stop a process for the length of the block: its sockets take what comes, and nothing answers."""
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


async def test_an_auth_hangs(tmp_path: Path, postgres: Server) -> None:
    """Nodes join and renew, policies arrive, calls and streams go on: whichever of the two hangs."""
    async with playing(tmp_path, postgres.url(postgres.database())) as cast:
        for hangs, alive in (cast.halves, cast.halves[::-1]):
            with hung(hangs.auth):
                await cast.joins(alive)
                await cast.changes(alive)
                await cast.renew()


async def test_a_gatekeeper_hangs(tmp_path: Path, postgres: Server) -> None:
    """The same, for as long as the other serves."""
    async with playing(tmp_path, postgres.url(postgres.database())) as cast:
        for hangs, alive in (cast.halves, cast.halves[::-1]):
            with hung(hangs.gatekeeper):
                await cast.joins(alive)
                await cast.changes(alive)
            # Whoever hangs no longer has everybody back before the other hangs.
            await cast.joins(hangs)
