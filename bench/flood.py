"""``python -m bench.flood``: what other callers of a listener notice while it is attacked.

Each listener of a mesh that runs as it is shipped (``flooded``), under each attack (``attacks``): the p99 of
a good caller during the attack beside its p99 just before, and the memory of the attacked process before, at
its highest during the attack, and a moment after. The attackers are members of the mesh where that needs a
certificate, and at an address of their own, another for each attack, unless ``--source`` names one (127.0.0.1
is the callers' own). They are one process at the lowest priority, so that what is measured is what the
listener does with what comes, not who gets the processor. They are bounded in number and time, and attack
loopback only.

They share the callers' processors all the same. So each attack has a yardstick: the p99 while the attackers,
at the same priority, take as much of a processor and do nothing with it. What is above that is the listener's
doing. How much processor the attacked process used, beyond what it uses at rest, says so in seconds, whatever
else runs on the machine.

Callers make one call after the other, four of them, with a pause between, so that the base is a listener at
rest. A call that fails is counted apart: its time is not a latency, but it is no success either.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio

from bench.attacks import ATTACKS
from bench.figures import percentile
from bench.flooded import Listener, attackers, listeners
from bench.meshed import trust_domain
from bench.process import NotMeasuredError, Process

CALLERS: Final = 4
PAUSE: Final = 0.01
#: Of an attack's connections, until they are made.
RAMP_SECONDS: Final = 70.0
REST_SECONDS: Final = 1.0
#: What the issue of the data plane allows other callers' p99 to become.
MOST: Final = 5.0


@dataclass(slots=True)
class Calls:
    """What good callers have seen."""

    latencies: list[float] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def p99(self) -> float:
        """Give the 99th percentile of what was answered, in milliseconds; infinity if nothing was."""
        return percentile(sorted(self.latencies), 99) * 1000 if self.latencies else float("inf")

    def longest(self) -> float:
        """Give the longest of what was answered, in milliseconds."""
        return max(self.latencies, default=float("inf")) * 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One attack on one listener. Times in milliseconds, memory in MB."""

    listener: str
    attack: str
    base_p99: float
    p99: float
    yardstick_p99: float
    longest: float
    used_s: float
    calls: int
    failed: dict[str, int]
    before_mb: float
    highest_mb: float
    after_mb: float
    score: dict[str, float]

    @property
    def ratio(self) -> float:
        """Give the p99 of other callers, of what it was before."""
        return self.p99 / self.base_p99

    @property
    def of_yardstick(self) -> float:
        """Give the p99 of other callers, of what it is when the processor is merely taken."""
        return self.p99 / self.yardstick_p99


async def good_calls(listener: Listener, seconds: float) -> Calls:
    """Call for so long."""
    calls, end = Calls(), time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            try:
                await listener.call()
            except grpc.aio.AioRpcError as error:
                calls.failed[error.code().name] = calls.failed.get(error.code().name, 0) + 1
            else:
                calls.latencies.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return calls


async def highest(process: Process) -> float:
    """Watch a process's memory until cancelled; give its highest."""
    most = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            most = max(most, process.resident_bytes() / 1e6)
            await asyncio.sleep(0.05)
    return most


async def attacked(
    listener: Listener, name: str, attacker: Process, tls: dict[str, str], seconds: float, source: str
) -> Row:
    """Attack a listener, and give what came of it."""
    await good_calls(listener, REST_SECONDS)
    before = listener.process.resident_bytes() / 1e6
    rested = listener.process.cpu_seconds()
    base = await good_calls(listener, seconds)
    began = listener.process.cpu_seconds()
    watching = asyncio.create_task(highest(listener.process))
    watching.add_done_callback(lambda done: done.cancelled() or done.exception())
    told = {
        "name": name,
        "address": listener.address,
        "path": listener.path,
        "seconds": seconds,
        "source": source,
    }
    await attacker.ask({**told, "tls": tls if listener.tls else None})
    await attacker.answer(RAMP_SECONDS)
    calls = await good_calls(listener, seconds)
    ended = listener.process.cpu_seconds()
    score = await attacker.answer()
    if not score["connected"]:
        raise NotMeasuredError(f"no attacker came through to {listener.name}: {score}")
    await asyncio.sleep(REST_SECONDS)
    watching.cancel()
    most, after = await watching, listener.process.resident_bytes() / 1e6
    await attacker.ask({"share": score["share"], "seconds": seconds})
    yardstick = await good_calls(listener, seconds)
    await attacker.answer()
    return Row(
        listener.name,
        name,
        base.p99(),
        calls.p99(),
        yardstick.p99(),
        calls.longest(),
        max(0.0, (ended - began) - (began - rested)),
        len(calls.latencies),
        calls.failed,
        before,
        most,
        after,
        score,
    )


async def run(names: Sequence[str], wanted: Sequence[str], seconds: float, source: str | None) -> list[Row]:
    """Attack everything in turn."""
    rows = []
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        domain = await stack.enter_async_context(trust_domain(scratch))
        found = await stack.enter_async_context(listeners(scratch, domain))
        attacker, tls = await stack.enter_async_context(attackers(scratch, domain))
        sources = itertools.count(1)  # another for each attack: it may be shut out afterwards
        for listener in found:
            if not any(listener.name.startswith(name) for name in wanted):
                continue
            for name in names:
                try:
                    row = await attacked(
                        listener, name, attacker, tls, seconds, source or f"127.0.1.{next(sources)}"
                    )
                except OSError:
                    raise listener.process.failure(f"ended under {name}") from None
                print(line(row), file=sys.stderr, flush=True)
                rows.append(row)
    return rows


def line(row: Row) -> str:
    """Give a row as text."""
    failed = ", ".join(f"{count} {code}" for code, count in row.failed.items())
    sent = f"{row.score['connected']:,} made, {row.score['sent'] / 1e6:,.0f} MB"
    mark = " " if row.ratio <= MOST else "!"
    return (
        f"{row.listener:<16}{row.attack:<20}{row.base_p99:>8.1f}{row.p99:>9.1f}{row.ratio:>7.1f}{mark}"
        f"{row.yardstick_p99:>9.1f}{row.of_yardstick:>7.1f}{row.longest:>8.0f}{row.used_s:>7.2f}{row.calls:>7}"
        f"  {row.before_mb:>5.0f}{row.highest_mb:>6.0f}{row.after_mb:>6.0f}   {sent}  {failed}"
    )


HEADING: Final = (
    f"{'listener':<16}{'attack':<20}{'p99, ms':>8}{'attacked':>9}{'ratio':>7} "
    f"{'yardst.':>9}{'ratio':>7}{'longest':>8}{'CPU, s':>7}{'calls':>7}"
    f"  {'MB':>5}{'most':>6}{'after':>6}   connections, sent; calls that failed"
)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each base and each attack (default 4)")
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only this one; repeatable")
    parser.add_argument("--listener", action="append", metavar="NAME", help="only those that begin so")
    parser.add_argument("--source", help="address of the attackers (default: 127.0.1.1 and up)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there too")
    arguments = parser.parse_args()
    try:
        rows = asyncio.run(
            run(
                arguments.attack or list(ATTACKS),
                arguments.listener or [""],
                arguments.seconds,
                arguments.source,
            )
        )
    except NotMeasuredError as error:
        sys.exit(f"bench: {error}")
    if arguments.json:
        document: Any = [{**asdict(row), "ratio": row.ratio, "fair": row.of_yardstick} for row in rows]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join((HEADING, *map(line, rows))))


if __name__ == "__main__":
    _main()
