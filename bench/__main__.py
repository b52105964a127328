"""``python -m bench``: run everything, print the tables, write the JSON. Takes less than five minutes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench import decision, joins
from bench.direct import Variant, direct
from bench.envoy import binary, envoy_pair
from bench.meshed import Domain, embedded, sidecar, trust_domain
from bench.process import NotMeasuredError
from bench.report import CROWD, DIRECT, EMBEDDED, ENVOY, SIDECAR, loads, moments, targets, text
from bench.rounds import Load, measure

ROUND_SECONDS: Final = 1.5
MEBIBYTE: Final = 1 << 20
#: What starting, joins and decisions may need after the rounds.
REST_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: seconds per variant under each small load, joins, and seconds for it all."""

    seconds: float
    joins: int
    limit: float

    def loads(self) -> tuple[int, list[Load]]:
        """Give the number of rounds, and the loads."""
        rounds = max(3, round(self.seconds / ROUND_SECONDS))
        each = self.seconds / rounds
        return rounds, [
            Load("one", 100, 1, each),
            Load("many", 100, 32, each),
            Load("crowd", 100, CROWD, each / 2),
            Load("large", MEBIBYTE, 4, each / 2),
            Load("stream", 100, 32, each / 2, stream=True),
            Load("large stream", MEBIBYTE, 4, each / 2, stream=True),
        ]


FULL: Final = Extent(seconds=12, joins=400, limit=290)
QUICK: Final = Extent(seconds=2.4, joins=100, limit=100)


async def run(extent: Extent) -> dict[str, Any]:
    """Measure everything; give the document."""
    begun, missing, machine = time.monotonic(), dict[str, str](), _machine()
    rounds, asked = extent.loads()
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        variants, domain = await _start(stack, scratch, missing)
        _say(f"{rounds} rounds of {len(asked)} loads: {', '.join(variants)}")
        idle = {name: _memory(variants[name]) for name in variants}
        taken = await measure(variants, asked, rounds, begun + extent.limit - REST_SECONDS)
        missing |= taken.failures
        after = {name: _memory(variants[name]) for name in variants if name not in missing}
        joined = await _joins(domain, extent.joins, missing)
    _say("decisions")
    decisions = decision.measure()
    measured = loads(taken, asked)
    memory = moments(idle, after, measured)
    return {
        "machine": machine,
        "loads": measured,
        "memory_mb": memory,
        "decision_us": {kind: seconds * 1e6 for kind, seconds in decisions.items()},
        "joins": joined,
        "targets": [asdict(row) for row in targets(measured, memory, decisions, joined)],
        "not_measured": missing,
    }


async def _start(
    stack: AsyncExitStack, scratch: Path, missing: dict[str, str]
) -> tuple[dict[str, Variant], Domain | None]:
    variants: dict[str, Variant] = {}
    domain: Domain | None = None

    async def start(name: str, make: Callable[[], AbstractAsyncContextManager[Variant]]) -> None:
        _say(f"starting {name}")
        try:
            variants[name] = await stack.enter_async_context(make())
        except NotMeasuredError as error:
            missing[name] = str(error)

    await start(DIRECT, lambda: direct(scratch))
    await start(ENVOY, lambda: envoy_pair(scratch))
    try:
        domain = found = await stack.enter_async_context(trust_domain(scratch))
    except NotMeasuredError as error:
        missing[EMBEDDED] = missing[SIDECAR] = str(error)
    else:
        await start(EMBEDDED, lambda: embedded(scratch, found))
        await start(SIDECAR, lambda: sidecar(scratch, found))
    return variants, domain


async def _joins(domain: Domain | None, count: int, missing: dict[str, str]) -> dict[str, float]:
    if domain is None:
        return {}
    _say(f"{count} joins")
    try:
        return await joins.measure(domain, count)
    except NotMeasuredError as error:
        missing["joins"] = str(error)
        return {}


def _memory(variant: Variant) -> dict[str, float]:
    return {place: held / 1e6 for place, held in variant.resident().items()}


def _machine() -> Mapping[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    found = {
        "CPUs": f"{os.cpu_count()} of {model or platform.machine()}",
        "Python": platform.python_version(),
        "grpcio": version("grpcio"),
        "cryptography": version("cryptography"),
        "load average before": f"{os.getloadavg()[0]:.1f}",  # anything near the number of CPUs blurs it all
    }
    with contextlib.suppress(NotMeasuredError):
        told = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
        found["Envoy"] = next((part for part in told.split("/") if part.count(".") == 2), "unknown")  # noqa: PLR2004
    return found


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=sys.modules["bench"].__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: under two minutes")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="seconds per variant and small load, 1 to 18 (default 12)"
    )
    arguments = parser.parse_args()
    if arguments.seconds is not None and not 1 <= arguments.seconds <= 18:  # noqa: PLR2004
        parser.error("--seconds takes 1 to 18: four variants and six loads have to fit in five minutes")
    return arguments


def _forget_surroundings() -> None:
    # A proxy is not for loopback, and a mesh that the user has is not the one that is measured.
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("MESH_")]:
        del os.environ[name]


async def _main(arguments: argparse.Namespace) -> None:
    extent = QUICK if arguments.quick else FULL
    if arguments.seconds is not None:
        extent = Extent(arguments.seconds, extent.joins, FULL.limit)
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with asyncio.timeout(extent.limit):
        document = await run(extent)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(text(document))


if __name__ == "__main__":
    try:
        _forget_surroundings()
        asyncio.run(_main(_arguments()))
    except TimeoutError:
        sys.exit("bench: not done in time, so there is nothing to report: is the machine busy?")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("bench: interrupted")
