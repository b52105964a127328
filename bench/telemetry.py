"""What telemetry costs a call: the same embedded pair, told of more and more, side by side in one run.

``python -m bench.telemetry`` (``--json FILE``, ``--rounds N``). ``unwatched`` has no observer at all,
``off`` counts and is asked by nobody; the others send all they have to a receiver on this machine that
throws it away, and record 0, 1 and 100 % of their calls. What is reported is CPU of client and server per
call, against ``unwatched`` in the same round: the median over the rounds, and the quarter and
three-quarter marks.
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
from statistics import median, quantiles
from typing import Any, Final

from bench.direct import CLIENT, SERVER, Variant, client, server
from bench.figures import cpu_per_call
from bench.meshed import TOLD, Domain, told_pair, trust_domain
from bench.process import NotMeasuredError, Process
from bench.rounds import Load, measure

ROUNDS: Final = 12
LOADS: Final = (Load("one", 100, 1, 1.0), Load("many", 100, 32, 1.0))
UNWATCHED: Final = "unwatched"
_RATIOS: Final = {"0 %": "0", "1 %": "0.01", "100 %": "1"}
#: What the issue of telemetry allows, as shares of a call without any.
MOST: Final = {"off": 0.03, "0 %": 0.03, "1 %": 0.05}


async def run(rounds: int) -> dict[str, Any]:
    """Measure; give the document."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        domain = await stack.enter_async_context(trust_domain(scratch))
        sink = await stack.enter_async_context(_sink(scratch))
        variants: dict[str, Variant] = {}
        for name, environment in zip(
            (UNWATCHED, "off", *_RATIOS),
            ({"BENCH_UNWATCHED": "1"}, {}, *(_environment(sink, ratio) for ratio in _RATIOS.values())),
            strict=True,
        ):
            print(f"bench: starting {name}", file=sys.stderr, flush=True)
            pair = _pair(scratch, domain, len(variants), environment)
            variants[name] = await stack.enter_async_context(pair)
        taken = await measure(variants, LOADS, rounds, time.monotonic() + 600)
    if taken.failures:
        raise NotMeasuredError(str(taken.failures))
    return {
        load: {name: _against(samples[name], samples[UNWATCHED]) for name in variants}
        for load, samples in taken.samples.items()
    }


def _against(mine: Any, base: Any) -> dict[str, float]:
    ratios = [cpu_per_call(one) / cpu_per_call(its) - 1 for one, its in zip(mine, base, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {
        "cpu_us": median(map(cpu_per_call, mine)) * 1e6,
        "p50_us": median(one.latency.p50 for one in mine) * 1e6,
        "p99_us": median(one.latency.p99 for one in mine) * 1e6,
        "added": median(ratios),
        "low": low,
        "high": high,
    }


def _environment(sink: str, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
    }


@asynccontextmanager
async def _pair(
    scratch: Path, domain: Domain, number: int, environment: Mapping[str, str]
) -> AsyncIterator[Variant]:
    caller, callee = told_pair(number)
    async with (
        server(scratch, callee, callee, {**await domain.environment(callee), **environment}) as (far, _),
        client(scratch, caller, callee, caller, {**await domain.environment(caller), **environment}) as near,
    ):
        yield Variant({CLIENT: near, SERVER: far})


@asynccontextmanager
async def _sink(scratch: Path) -> AsyncIterator[str]:
    async with Process.started("sink", [sys.executable, "-m", "bench.sink"], scratch) as process:
        yield f"http://127.0.0.1:{(await process.answer())['port']}"


def text(document: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Give the document as a table."""
    lines = [f"{'':<8}{'':<12}{'CPU µs':>8}{'p50 µs':>8}{'p99 µs':>8}{'added':>9}{'quartiles':>18}{'may':>7}"]
    for load, variants in document.items():
        for name, row in variants.items():
            most = f"{MOST[name]:.0%}" if name in MOST else ""
            spread = f"{row['low']:+.1%} … {row['high']:+.1%}"
            lines.append(
                f"{load:<8}{name:<12}{row['cpu_us']:>8.0f}{row['p50_us']:>8.0f}{row['p99_us']:>8.0f}"
                f"{row['added']:>+9.1%}{spread:>18}{most:>7}"
            )
    return "\n".join(lines)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.telemetry", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}; at most {TOLD} variants"
    )
    arguments = parser.parse_args()
    document = asyncio.run(run(arguments.rounds))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(text(document))


if __name__ == "__main__":
    _main()
