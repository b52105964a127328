"""``python -m bench.renewals``: what one auth over SQLite takes: joins, renewals, a crowd back at once.

Joins are those of ``joins``. A renewal is what a node does every half hour: Renew, then the keys for auth and
gatekeeper. The crowd is 500 nodes that have lost auth in one moment: all connect anew and renew, each after
the pause that a node makes then (``Enrolment.pauses``). Timed is each from its first attempt to its last
answer, and the whole from that moment until the last node is back. All nodes are in this process and share
the machine with auth, so what auth itself spends on each, in CPU time, is what says how many a core of its
own would take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc.aio

from bench import joins
from bench.figures import percentile
from bench.meshed import JOINER, Domain, trust_domain
from bench.process import NotMeasuredError
from mesh.core.errors import MeshError
from mesh.core.join import JoinToken
from mesh.enrol import Enrolment, join

AT_ONCE: Final = 16


async def measure(count: int, crowd: int) -> dict[str, Any]:
    """Measure ``count`` joins and renewals, and a crowd of so many nodes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        async with trust_domain(Path(scratch)) as domain:
            joined = await joins.measure(domain, count)
            nodes = [await _node(domain) for _ in range(crowd)]
            try:
                renewed = await _renewals(domain, nodes, count)
                took = await _crowd(domain, nodes)
            finally:
                for node in nodes:
                    await node.close()
    return {"joins": joined, "renewals": renewed, "crowd": took}


async def _node(domain: Domain) -> Enrolment:
    return await join(JoinToken.parse(await domain.token(JOINER)), domain.addresses.join)


async def _renewals(domain: Domain, nodes: Sequence[Enrolment], count: int) -> dict[str, float]:
    turns = iter(range(count))

    async def one(node: Enrolment) -> None:
        for _ in turns:
            await node._renew_at_last()  # noqa: SLF001  at a pace that no node has

    cpu, begun = domain.auth.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(one(node) for node in nodes[:AT_ONCE]))
    seconds, cpu = time.perf_counter() - begun, domain.auth.cpu_seconds() - cpu
    return {"count": count, "per_second": count / seconds, "auth_cpu_ms": 1000 * cpu / count}


async def _crowd(domain: Domain, nodes: Sequence[Enrolment]) -> dict[str, float]:
    for node in nodes:
        await node.auth.close()

    async def one(node: Enrolment) -> float:
        await asyncio.sleep(next(node.pauses()))
        begun = time.perf_counter()
        await node._renew_at_last()  # noqa: SLF001  now, not when it is due
        return time.perf_counter() - begun

    cpu, lost = domain.auth.cpu_seconds(), time.perf_counter()
    took = sorted(await asyncio.gather(*map(one, nodes)))
    seconds, cpu = time.perf_counter() - lost, domain.auth.cpu_seconds() - cpu
    return {
        "nodes": len(nodes),
        "all_back_seconds": seconds,
        "p50_ms": 1000 * percentile(took, 50),
        "p99_ms": 1000 * percentile(took, 99),
        "most_ms": 1000 * took[-1],
        "auth_cpu_ms": 1000 * cpu / len(nodes),
    }


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'one auth over SQLite':24}{'a second':>10}{'CPU of auth':>13}{'so on a core of its own':>25}"]
    for kind in ("joins", "renewals"):
        row = found[kind]
        alone = 1000 / row["auth_cpu_ms"]
        lines.append(f"{kind:24}{row['per_second']:>10.0f}{row['auth_cpu_ms']:>10.2f} ms{alone:>23.0f}/s")
    row = found["crowd"]
    lines.append(
        f"{row['nodes']} nodes back at once: p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms, "
        f"most {row['most_ms']:.0f} ms, the last after {row['all_back_seconds']:.1f} s, "
        f"{row['auth_cpu_ms']:.2f} ms of auth's CPU each"
    )
    ratio = found["renewals"]["auth_cpu_ms"] / found["joins"]["auth_cpu_ms"]
    lines.append(f"a renewal to a join, in auth's CPU: {ratio:.2f}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.renewals", description=__doc__)
    parser.add_argument("--count", type=int, default=400, metavar="N", help="joins and renewals (400)")
    parser.add_argument("--crowd", type=int, default=500, metavar="N", help="nodes back at once (500)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    logging.getLogger("mesh").setLevel(logging.ERROR)  # the crowd tries on, as it should
    try:
        document = asyncio.run(measure(options.count, options.crowd))
    except (NotMeasuredError, MeshError, grpc.aio.AioRpcError) as error:
        sys.exit(f"bench: {error}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(_text(document))
