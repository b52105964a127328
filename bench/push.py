"""``python -m bench.push``: how soon a change of policy is in force at a thousand nodes, and what it sends.

A trust domain as it is shipped, with a policy of a thousand services and ten thousand rules, and one node
of each service (or more, ``--services``), spread over a few processes on this machine. From the moment at
which the operator's command is sent until each node judges by the new version: auth's checking, signing and
storing is in it, gatekeeper's reading and cutting, and each node's reading. Two changes are made in turns:
one that concerns one service, so that the others learn but a version, and one that changes a rule of every
service. Before that all are at rest for ten seconds, to see what heartbeats cost, and what of them is
written to storage.

The nodes are ``watching``: identities, keys, seals and slices are real, and the stream is kept by the same
code; what a node has besides (servers, reports, renewal) is left out, so that a thousand fit. Nodes, auth and
gatekeeper share this machine's processors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc.aio

from bench.figures import percentile
from bench.meshed import Domain, trust_domain
from bench.process import NotMeasuredError, Process
from mesh.v1 import auth_pb2

RULES: Final = 10
JOIN_SECONDS: Final = 300.0
ROUND_SECONDS: Final = 30.0
#: After each change: until every node has told gatekeeper which policy it has in force.
QUIET_SECONDS: Final = 2.5
#: Two heartbeats of everyone.
REST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Extent:
    """How many nodes, of how many services, in how many processes, and how many changes of each kind."""

    nodes: int
    services: int
    processes: int
    rounds: int


def policy(count: int, turns: Mapping[int, int]) -> bytes:
    """Give a policy in which ten others may call each service; one rule of a service is by its turn."""
    services: dict[str, Any] = {}
    for index in range(count):
        paths = [f"/shop.v1.Shop/Method{rule}" for rule in range(RULES)]
        paths[0] = f"/shop.v1.Shop/Turn{turns.get(index, 0)}"
        principals = [_name((index + rule + 1) % count) for rule in range(RULES)]
        services[_name(index)] = {
            "allow": [
                {"principals": [principal], "paths": [path]}
                for principal, path in zip(principals, paths, strict=True)
            ]
        }
    return json.dumps({"services": services}).encode()


async def measure(extent: Extent) -> dict[str, Any]:
    """Start it all, make the changes, and give the figures."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        domain = await stack.enter_async_context(trust_domain(scratch))
        turns = dict[int, int]()
        await apply(domain, policy(extent.services, turns))
        processes = [
            await stack.enter_async_context(watching(domain, scratch, number))
            for number in range(extent.processes)
        ]
        held = await let_in(domain, processes, extent)
        rest, written = await _at_rest(domain, processes)
        taken: dict[str, list[Round]] = {"one": [], "all": []}
        for turn in range(1, extent.rounds + 1):
            for kind, changed in (("one", [turn % extent.services]), ("all", range(extent.services))):
                turns |= dict.fromkeys(changed, 2 * turn + (kind == "all"))
                taken[kind].append(await _round(domain, processes, policy(extent.services, turns)))
        return {
            "nodes": extent.nodes,
            "gatekeeper_kb_per_node": held / 1000,
            "services": extent.services,
            "rest_cpu_ms_per_second": rest,
            "rest_written_bytes_per_second": written,
            "changes": {kind: _summary(rounds) for kind, rounds in taken.items()},
        }


@dataclass(frozen=True, slots=True)
class Round:
    """One change: seconds until it was in force at each node, and until the operator was answered."""

    latencies: list[float]
    answered: float
    sent: float
    cpu: dict[str, float]


async def let_in(domain: Domain, processes: Sequence[Process], extent: Extent) -> float:
    """Have all join; give what gatekeeper holds for one more node, in bytes."""
    held = []
    for number, process in enumerate(processes):
        mine = range(number, extent.nodes, len(processes))
        names = [_name(index % extent.services) for index in mine]
        await process.ask({"tokens": [await domain.token(name) for name in names]})
        await process.answer(JOIN_SECONDS)
        held.append((domain.gatekeeper.resident_bytes(), len(mine)))
    (first, few), (last, _) = held[0], held[-1]
    return (last - first) / (extent.nodes - few)


async def _at_rest(domain: Domain, watching: Sequence[Process]) -> tuple[dict[str, float], dict[str, float]]:
    # CPU of each in milliseconds per second, and bytes written, while there is nothing but heartbeats.
    await asyncio.sleep(QUIET_SECONDS)
    cpu, written, begun = _cpu(domain, watching), _written(domain), time.monotonic()
    await asyncio.sleep(REST_SECONDS)
    seconds = time.monotonic() - begun
    spent = {name: 1000 * (now - cpu[name]) / seconds for name, now in _cpu(domain, watching).items()}
    return spent, {name: (now - written[name]) / seconds for name, now in _written(domain).items()}


def _written(domain: Domain) -> dict[str, int]:
    return {"auth": domain.auth.written_bytes(), "gatekeeper": domain.gatekeeper.written_bytes()}


async def _round(domain: Domain, watching: Sequence[Process], document: bytes) -> Round:
    cpu = _cpu(domain, watching)
    begun = time.monotonic()
    version = await apply(domain, document)
    answered = time.monotonic() - begun
    for process in watching:
        await process.ask({"version": version})
    answers = [await process.answer(ROUND_SECONDS) for process in watching]
    latencies = [moment - begun for answer in answers for moment in answer["moments"]]
    sent = sum(answer["bytes"] for answer in answers) / len(latencies)
    spent = {name: now - cpu[name] for name, now in _cpu(domain, watching).items()}
    await asyncio.sleep(QUIET_SECONDS)
    return Round(latencies, answered, sent, spent)


def _cpu(domain: Domain, watching: Sequence[Process]) -> dict[str, float]:
    return {
        "auth": domain.auth.cpu_seconds(),
        "gatekeeper": domain.gatekeeper.cpu_seconds(),
        "nodes": sum(process.cpu_seconds() for process in watching),
    }


def _summary(rounds: Sequence[Round]) -> dict[str, Any]:
    ordered = sorted(latency for one in rounds for latency in one.latencies)
    recorded = sorted(latency - one.answered for one in rounds for latency in one.latencies)
    return {
        "recorded_p99_ms": 1000 * percentile(recorded, 99),
        "p50_ms": 1000 * percentile(ordered, 50),
        "p99_ms": 1000 * percentile(ordered, 99),
        "max_ms": 1000 * ordered[-1],
        "answered_ms": 1000 * median(one.answered for one in rounds),
        "bytes_per_node": median(one.sent for one in rounds),
        "cpu_ms": {name: 1000 * median(one.cpu[name] for one in rounds) for name in rounds[0].cpu},
    }


async def apply(domain: Domain, document: bytes) -> int:
    """Make a policy the one of record; give its version."""
    request = auth_pb2.ApplyPolicyRequest(document=document)
    try:
        return (await domain.operator.auth.ApplyPolicy(request)).version
    except grpc.aio.AioRpcError as error:
        raise NotMeasuredError(f"the policy was not taken: {error.details()}") from None


def watching(domain: Domain, scratch: Path, number: int) -> AbstractAsyncContextManager[Process]:
    """Start one of the processes of nodes."""
    command = [sys.executable, "-m", "bench.watching", domain.addresses.join]
    return Process.started(f"watching-{number}", command, scratch)


def _name(index: int) -> str:
    return f"team-{index % 20}.service-{index}"


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"A change of policy, {found['nodes']} nodes of {found['services']} services, from the command on:",
        f"{'':28}{'p50':>9}{'p99':>9}{'max':>9}{'answered':>10}{'p99 then':>11}{'bytes':>8}   CPU",
    ]
    for kind, title in (("one", "concerns one service"), ("all", "concerns every service")):
        row = found["changes"][kind]
        times = "".join(f"{row[key]:>7.0f}ms" for key in ("p50_ms", "p99_ms", "max_ms"))
        cpu = ", ".join(f"{value:.0f} ms" for value in row["cpu_ms"].values())
        times += f"{row['answered_ms']:>8.0f}ms{row['recorded_p99_ms']:>9.0f}ms"
        lines.append(f"{title:28}{times}{row['bytes_per_node']:>8.0f}   {cpu}")
    rest = ", ".join(f"{name} {value:.0f} ms" for name, value in found["rest_cpu_ms_per_second"].items())
    lines.append(f"CPU per second at rest, with nothing but heartbeats: {rest}")
    stored = found["rest_written_bytes_per_second"]
    stores = ", ".join(f"{name} {value:.0f} bytes" for name, value in stored.items())
    lines.append(f"Written to storage per second at rest: {stores}")
    lines.append(f"gatekeeper's memory for one more node: {found['gatekeeper_kb_per_node']:.0f} kB")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.push", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000, metavar="N", help="how many watch (default 1000)")
    parser.add_argument("--services", type=int, metavar="N", help="of how many services (one of each)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="in how many, 2 or more (2)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="changes of each kind (10)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    try:
        extent = Extent(options.nodes, options.services or options.nodes, options.processes, options.rounds)
        document = asyncio.run(measure(extent))
    except NotMeasuredError as error:
        sys.exit(f"bench: {error}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(_text(document))
