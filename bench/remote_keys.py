"""What it costs a call that auth keeps the keys: embedded pairs side by side in one run.

``python -m bench.remote_keys`` (``--rounds N``, ``--json FILE``). ``local`` has its keys; of ``source``,
``both`` and ``destination`` auth keeps those of the named ends. What is reported is the median over the
rounds, and how many times that is what it is with keys. CPU is that of client, server and auth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.direct import CLIENT, SERVER, Variant, client, server
from bench.figures import Sample, cpu_per_call
from bench.meshed import Domain, told_pair, trust_domain
from bench.process import NotMeasuredError
from bench.rounds import Load, measure

ROUNDS: Final = 5
LOADS: Final = (Load("one", 100, 1, 1.0), Load("many", 100, 32, 1.0), Load("large", 1 << 20, 1, 1.0))
LOCAL: Final = "local"
#: Where the keys of source and destination are.
_KEYS: Final = {LOCAL: (LOCAL, LOCAL), "source": ("remote", LOCAL), "destination": (LOCAL, "remote")}
_VARIANTS: Final = {**_KEYS, "both": ("remote", "remote")}


async def run(rounds: int) -> dict[str, Any]:
    """Measure; give the document."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        domain = await stack.enter_async_context(trust_domain(scratch))
        variants: dict[str, Variant] = {}
        for number, (name, keys) in enumerate(_VARIANTS.items()):
            variants[name] = await stack.enter_async_context(_pair(scratch, domain, number, keys))
        taken = await measure(variants, LOADS, rounds, time.monotonic() + 600)
    if taken.failures:
        raise NotMeasuredError(str(taken.failures))
    return {
        load: {name: _against(samples[name], samples[LOCAL]) for name in variants}
        for load, samples in taken.samples.items()
    }


def _against(mine: list[Sample], base: list[Sample]) -> dict[str, float]:
    cpu, its_cpu = (median(map(cpu_per_call, samples)) for samples in (mine, base))
    p50, its_p50 = (median(one.latency.p50 for one in samples) for samples in (mine, base))
    return {"cpu_us": cpu * 1e6, "p50_us": p50 * 1e6, "cpu_times": cpu / its_cpu, "p50_times": p50 / its_p50}


@asynccontextmanager
async def _pair(scratch: Path, domain: Domain, number: int, keys: tuple[str, str]) -> AsyncIterator[Variant]:
    caller, callee = told_pair(number)
    at_source, at_destination = ({"MESH_KEYS": where} for where in keys)
    async with (
        server(scratch, callee, callee, {**await domain.environment(callee), **at_destination}) as (far, _),
        client(scratch, caller, callee, caller, {**await domain.environment(caller), **at_source}) as near,
    ):
        yield Variant({CLIENT: near, SERVER: far, "auth": domain.auth})


def text(document: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Give the document as a table."""
    lines = [f"{'':<8}{'':<14}{'CPU µs':>8}{'p50 µs':>8}{'CPU':>8}{'p50':>8}"]
    for load, variants in document.items():
        for name, row in variants.items():
            figures = f"{row['cpu_us']:>8.0f}{row['p50_us']:>8.0f}"
            lines.append(f"{load:<8}{name:<14}{figures}{row['cpu_times']:>7.1f}x{row['p50_times']:>7.1f}x")
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.remote_keys", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", metavar="FILE", type=Path)
    arguments = parser.parse_args()
    try:
        document = asyncio.run(run(arguments.rounds))
    except NotMeasuredError as error:
        sys.exit(f"error: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2))
    print(text(document))


if __name__ == "__main__":
    _main()
