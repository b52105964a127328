"""``python -m bench.replicas``: how soon a change at one auth is in force at the nodes of another.

Two auths on one PostgreSQL that this starts (which needs the packages of the tests), a gatekeeper that
follows each, and as many nodes (``watching``) at either gatekeeper. All changes are made at the first auth:
what its own nodes take is the yardstick, from the same changes of the same run. From the moment at which the
operator's command is sent until each node judges by it; half change a rule, the others revoke an instance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.figures import percentile
from bench.held import LEAKED, revoke
from bench.meshed import Domain, running
from bench.process import NotMeasuredError, Process
from bench.push import JOIN_SECONDS, QUIET_SECONDS, ROUND_SECONDS, apply, policy, watching
from mesh.core.join import JoinToken
from mesh.core.names import TrustDomain
from mesh.enrol import join
from services.auth.founding import found
from services.auth.replicating import replicate
from tests.postgres import server

SERVICES: Final = 100
#: Where a change is seen: at the nodes of the auth that it was made at, and at those of the other.
SIDES: Final = ("same", "other")


async def measure(nodes: int, rounds: int) -> dict[str, Any]:
    """Start it all, make the changes, and give the figures: ``nodes`` at each gatekeeper."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        postgres = stack.enter_context(server())
        url = postgres.url(postgres.database())
        domains = await stack.enter_async_context(_two(scratch, url))
        await apply(domains[0], policy(SERVICES, {}))
        processes = []
        for number, domain in enumerate(domains):
            process = await stack.enter_async_context(watching(domain, scratch, number))
            names = [f"team-{index % 20}.service-{index}" for index in range(nodes)]
            await process.ask({"tokens": [await domain.token(name) for name in names]})
            await process.answer(JOIN_SECONDS)
            processes.append(process)
        taken: dict[str, dict[str, list[float]]] = {
            kind: {side: [] for side in SIDES} for kind in ("policy", "revocation")
        }
        for turn in range(1, rounds + 1):
            for kind, change in (("policy", _change), ("revocation", _revoke)):
                await asyncio.sleep(QUIET_SECONDS)
                question, begun = await change(domains[0], turn)
                for side, moments in zip(SIDES, await _moments(processes, question), strict=True):
                    taken[kind][side] += [moment - begun for moment in moments]
    found = {kind: {side: _summary(each[side]) for side in SIDES} for kind, each in taken.items()}
    return {"nodes": nodes, "changes": found}


@asynccontextmanager
async def _two(scratch: Path, url: str) -> AsyncIterator[list[Domain]]:
    now_ms = time.time_ns() // 1_000_000
    first, second = scratch / "first", scratch / "second"
    for half in (first, second):
        half.mkdir()
    found(first / "data", TrustDomain("bench.example"), now_ms, database=url)
    replicate(second / "data", url, first / "data" / "kek", now_ms)
    shutil.copy(first / "data" / "operator.json", second / "data")
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(half, half / "data")) for half in (first, second)]


async def _change(domain: Domain, turn: int) -> tuple[dict[str, Any], float]:
    begun = time.monotonic()
    return {"version": await apply(domain, policy(SERVICES, {turn % SERVICES: turn}))}, begun


async def _revoke(domain: Domain, _turn: int) -> tuple[dict[str, Any], float]:
    enrolment = await join(JoinToken.parse(await domain.token(LEAKED)), domain.addresses.join)
    instance = enrolment.membership.instance
    await enrolment.close()
    return {"revoked": str(instance)}, await revoke(domain, instance)


async def _moments(processes: Sequence[Process], question: dict[str, Any]) -> list[list[float]]:
    for process in processes:
        await process.ask(question)
    return [(await process.answer(ROUND_SECONDS))["moments"] for process in processes]


def _summary(latencies: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {f"p{rank}_ms": 1000 * percentile(ordered, rank) for rank in (50, 99)}


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'From the command, ' + str(found['nodes']) + ' nodes each':36}{'p50':>9}{'p99':>9}"]
    titles = {"policy": "a rule is changed", "revocation": "an instance is revoked"}
    for kind, sides in found["changes"].items():
        for side, figures in sides.items():
            times = "".join(f"{figures[rank]:>7.0f}ms" for rank in ("p50_ms", "p99_ms"))
            lines.append(f"{titles[kind] + ', nodes of the ' + side:36}{times}")
        same, other = (sides[side] for side in SIDES)
        ratio = ", ".join(f"{rank} {other[f'{rank}_ms'] / same[f'{rank}_ms']:.2f}" for rank in ("p50", "p99"))
        lines.append(f"{'  the other to the same':36}{ratio}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.replicas", description=__doc__)
    parser.add_argument(
        "--nodes", type=int, default=100, metavar="N", help="at each gatekeeper (default 100)"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="changes of each kind (20)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    try:
        document = asyncio.run(measure(options.nodes, options.rounds))
    except NotMeasuredError as error:
        sys.exit(f"bench: {error}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(_text(document))
