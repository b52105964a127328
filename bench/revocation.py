"""``python -m bench.revocation``: how soon every node deals with a revoked instance no more.

The trust domain and the nodes of ``push``: from the moment at which the operator's command is sent until each
node judges by it. Each round revokes one instance of a service that none of the nodes is of, then changes a
rule of one service, as the yardstick: both take the same way through auth and gatekeeper.
Last, as many embedded nodes hold a stream each to one instance, which is revoked (``held``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.figures import percentile
from bench.held import LEAKED, revoke, streams
from bench.meshed import Domain, trust_domain
from bench.process import NotMeasuredError, Process
from bench.push import ROUND_SECONDS, Extent, apply, let_in, policy, watching
from mesh.core.join import JoinToken
from mesh.enrol import join


async def measure(extent: Extent) -> dict[str, Any]:
    """Start it all, revoke and change by turns, and give the figures."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        domain = await stack.enter_async_context(trust_domain(scratch))
        await apply(domain, policy(extent.services, {}))
        processes = [
            await stack.enter_async_context(watching(domain, scratch, number))
            for number in range(extent.processes)
        ]
        await let_in(domain, processes, extent)
        revoked, changed = list[float](), list[float]()
        for turn in range(1, extent.rounds + 1):
            revoked += await _revoke(domain, processes)
            turns = {turn % extent.services: turn}
            changed += await _change(domain, processes, policy(extent.services, turns))
        ended = await streams(domain, extent.nodes)
    told, change = _summary(revoked), _summary(changed)
    return {
        "nodes": extent.nodes,
        "revocation": told,
        "policy": change,
        "streams": _summary(ended),
        "ratio_p99": told["p99_ms"] / change["p99_ms"],
    }


async def _revoke(domain: Domain, processes: Sequence[Process]) -> list[float]:
    enrolment = await join(JoinToken.parse(await domain.token(LEAKED)), domain.addresses.join)
    instance = enrolment.membership.instance
    await enrolment.close()
    begun = await revoke(domain, instance)
    return await _moments(processes, {"revoked": str(instance)}, begun)


async def _change(domain: Domain, processes: Sequence[Process], document: bytes) -> list[float]:
    begun = time.monotonic()
    return await _moments(processes, {"version": await apply(domain, document)}, begun)


async def _moments(processes: Sequence[Process], question: dict[str, Any], begun: float) -> list[float]:
    for process in processes:
        await process.ask(question)
    answers = [await process.answer(ROUND_SECONDS) for process in processes]
    return [moment - begun for answer in answers for moment in answer["moments"]]


def _summary(latencies: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "p50_ms": 1000 * percentile(ordered, 50),
        "p99_ms": 1000 * percentile(ordered, 99),
        "max_ms": 1000 * ordered[-1],
    }


def _text(found: dict[str, Any]) -> str:
    lines = [f"From the operator's command, {found['nodes']} nodes:{'p50':>12}{'p99':>9}{'max':>9}"]
    titles = {
        "revocation": "an instance is revoked",
        "policy": "a rule is changed",
        "streams": "streams to it have ended",
    }
    for kind, title in titles.items():
        times = "".join(f"{found[kind][key]:>7.0f}ms" for key in ("p50_ms", "p99_ms", "max_ms"))
        lines.append(f"{title:36}{times}")
    lines.append(f"revocation to change of policy, p99: {found['ratio_p99']:.2f}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.revocation", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200, metavar="N", help="how many watch (default 200)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="in how many, 2 or more (2)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="revocations (20)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    try:
        document = asyncio.run(
            measure(Extent(options.nodes, options.nodes, options.processes, options.rounds))
        )
    except NotMeasuredError as error:
        sys.exit(f"bench: {error}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(_text(document))
