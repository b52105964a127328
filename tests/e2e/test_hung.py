"""An auth or a gatekeeper that hangs, beside another that does not: it takes longer, and nothing fails."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.echo import Dialogue, Echo, Traffic, ask, works
from tests.e2e.halves import Half, in_halves, joined, started
from tests.e2e.process import Process, until
from tests.e2e.world import Timers, policy
from tests.postgres import Server

#: Seconds that anything may take at most while one of two hangs, as docs/outages.md says.
JOINS, CHANGES, RENEWS = 20.0, 20.0, 20.0
NODES: Final = 6


@pytest.fixture
def both(tmp_path: Path, postgres: Server) -> Iterator[tuple[Half, Half]]:
    """Give two halves whose certificates last long enough for a renewal that is told nothing at first."""
    with in_halves(
        tmp_path, postgres.url(postgres.database()), Timers(svid=30, epoch=30, grace=10)
    ) as halves:
        yield halves


@contextmanager
def hung(process: Process) -> Iterator[None]:
    """Stop a process for the length of the block: its sockets take what comes, and nothing answers."""
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(400)
async def test_one_of_each_hangs_in_turn(both: tuple[Half, Half], capsys: pytest.CaptureFixture[str]) -> None:
    """Calls and streams go on, nodes join and renew, policies arrive: whichever hangs."""
    await started(both)
    await both[0].apply(policy(("orders", "inventory")))
    took: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        inventory = await stack.enter_async_context(joined(both, "inventory"))
        inventory.server().add_generic_rpc_handlers((Echo(),))
        await inventory.server().start()
        # Of several some use the one, some the other.
        nodes = [await stack.enter_async_context(joined(both, "orders")) for _ in range(NODES)]
        calls = [ask(node.channel("inventory")) for node in nodes]
        for call in calls:
            await works(call)
        dialogue = Dialogue(nodes[0].channel("inventory"))
        async with Traffic([*calls, dialogue.turn]) as traffic:
            for hangs, alive in (both, both[::-1]):
                with hung(hangs.auth):
                    certificates = {node: node.membership.svid for node in (inventory, *nodes)}
                    begun = time.monotonic()
                    async with asyncio.timeout(JOINS), joined((alive, hangs), "orders") as late:
                        await works(ask(late.channel("inventory")))
                    took["join"] = max(took.get("join", 0), time.monotonic() - begun)
                    version = await alive.apply(policy(("orders", "inventory")))
                    begun = time.monotonic()
                    await until(
                        lambda: all(node.slice.version == version for node in nodes),  # noqa: B023
                        "the policy",
                        CHANGES,
                    )
                    took["policy"] = max(took.get("policy", 0), time.monotonic() - begun)
                    await until(
                        lambda: all(node.membership.svid is not svid for node, svid in certificates.items()),  # noqa: B023
                        "renewals",
                        15 + RENEWS,
                    )
                assert traffic.failures == []
            for hangs, alive in (both, both[::-1]):
                with hung(hangs.gatekeeper):
                    begun = time.monotonic()
                    async with asyncio.timeout(JOINS), joined(both, "orders") as late:
                        await works(ask(late.channel("inventory")))
                    took["first call"] = max(took.get("first call", 0), time.monotonic() - begun)
                    version = await alive.apply(policy(("orders", "inventory")))
                    begun = time.monotonic()
                    await until(
                        lambda: all(node.slice.version == version for node in nodes),  # noqa: B023
                        "the policy",
                        CHANGES,
                    )
                    took["policy, gatekeeper"] = max(
                        took.get("policy, gatekeeper", 0), time.monotonic() - begun
                    )
                assert traffic.failures == []
        await dialogue.end()
    with capsys.disabled():
        print(took)
