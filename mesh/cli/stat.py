"""``mesh stat``: calls per second, how many succeeded and how long they took, of each edge and method.

It sums up the recorded decisions and latencies (``recorded``), which nodes tell and gatekeeper keeps by the
minute. What lies partly in the span is taken whole, so each rate is over the time from which its calls really
are, never over less. The node that is called measures, from admitting a call to its end: no network is in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import moment, service
from mesh.cli.operator import Operator, asked
from mesh.cli.output import instant, show_json, show_table, wide_option
from mesh.cli.recorded import Wanted, involving, listed, timed
from mesh.core.latency import Latency, added, quantile
from mesh.core.names import ServiceName
from mesh.core.observed import AUDIT, DENY, Gap, Seen

_EDGE: Final = ("source", "destination", "method", "success", "per second", "p50", "p95", "p99")
#: What ``-o wide`` shows beside that.
_MORE: Final = ("permitted", "in audit", "denied", "failed", "last call")
#: What of it is shown whole, however narrow the terminal is.
WHOLE: Final = ("SOURCE", "DESTINATION", "METHOD", "SUCCESS")
#: Parts of the calls, and within how many seconds they ended: by name.
PARTS: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(slots=True)
class Stat:
    """All calls of one service to a method of another, within a span that holds them all.

    A source of ``?`` without a method is calls of which only the number is known.
    """

    source: str
    destination: str
    method: str
    from_ms: int
    to_ms: int
    permitted: int = 0
    #: Those of the permitted that were so only because of the mode audit.
    audited: int = 0
    denied: int = 0
    unknown: int = 0
    last_ms: int = 0
    #: Of the permitted that have ended, how many failed by the callee's fault, and how long they took.
    failed: int = 0
    took: tuple[tuple[int, int], ...] = ()

    def add_ended(self, latency: Latency) -> None:
        """Count how long calls took."""
        self.last_ms = max(self.last_ms, latency.last_ms)
        self.failed += latency.failed
        self.took = added(self.took, latency.buckets)

    def add(self, seen: Seen) -> None:
        """Count calls that were alike."""
        self.from_ms, self.to_ms = min(self.from_ms, seen.first_ms), max(self.to_ms, seen.last_ms)
        self.last_ms = max(self.last_ms, seen.last_ms)
        if isinstance(seen, Gap):
            self.unknown += seen.count
        elif seen.verdict == DENY:
            self.denied += seen.count
        else:
            self.permitted += seen.count
            self.audited += seen.count if seen.verdict == AUDIT else 0

    @property
    def success(self) -> float | None:
        """The part that was permitted and did not fail, from 0 to 1; ``None`` if nothing is known."""
        judged = self.permitted + self.denied
        return self.succeeded / judged if judged else None

    @property
    def succeeded(self) -> int:
        """How many were permitted and have not failed, so far."""
        return max(0, self.permitted - self.failed)

    @property
    def rate(self) -> float:
        """Calls per second, permitted or not."""
        # No span is so short that one call makes more of it than one a second.
        seconds = max(1.0, (self.to_ms - self.from_ms) / 1000)
        return (self.permitted + self.denied + self.unknown) / seconds


@click.command()
@click.argument("name", type=service, metavar="[SERVICE]", required=False)
@click.option(
    "--since",
    type=moment,
    default="10m",
    show_default=True,
    metavar="TIME",
    help="From then on: 30m, 7d, or RFC 3339.",
)
@click.option("--until", type=moment, metavar="TIME", help="Calls before then.")
@wide_option
@data_option
def stat(name: ServiceName | None, since: int, until: int | None, output: str, data: Path) -> None:
    """Show calls by edge and method: how many, how many of them succeeded, and how long they took.

    With SERVICE, only its calls and those to it.
    """
    end_ms = int(time.time() * 1000) if until is None else until
    if end_ms <= since:
        raise click.UsageError("--until is not later than --since: there is no time between them")
    wanted = Wanted(since, until, ())

    async def ask(operator: Operator) -> tuple[list[Seen], list[Latency]]:
        return await listed(operator, wanted), await timed(operator, wanted)

    seen, latencies = asked(DataDirectory(data), ask)
    found = stats_of(seen, since, end_ms, name.text if name else "", latencies)
    if output == "json":
        show_json([as_json(one) for one in found])
    else:
        columns = (*_EDGE, *(_MORE if output == "wide" else ()))
        rows = [_row(one)[: len(columns)] for one in found]
        show_table([column.upper() for column in columns], rows, WHOLE)


def stats_of(
    seen: Iterable[Seen], since_ms: int, until_ms: int, name: str = "", latencies: Iterable[Latency] = ()
) -> list[Stat]:
    """Put together what is recorded of each edge and method, in their order; of one service, or of all."""
    found: dict[tuple[str, str, str], Stat] = {}

    def of(source: str, destination: str, method: str) -> Stat:
        key = (source, destination, method)
        return found.setdefault(key, Stat(*key, since_ms, until_ms))

    for one in involving(seen, name):
        source, method = ("?", "") if isinstance(one, Gap) else (one.source, one.method)
        of(source, one.destination, method).add(one)
    for latency in involving(latencies, name):
        of(latency.source, latency.destination, latency.method).add_ended(latency)
    return [found[key] for key in sorted(found)]


def as_json(one: Stat) -> dict[str, Any]:
    """Give it as it is shown in JSON."""
    return {
        "source": one.source,
        "destination": one.destination,
        "method": one.method or None,
        "from": instant(one.from_ms),
        "to": instant(one.to_ms),
        "permitted": one.permitted,
        "in_audit": one.audited,
        "denied": one.denied,
        "unknown": one.unknown,
        "ended": sum(count for _, count in one.took),
        "failed": one.failed,
        **{f"{name}_seconds": within(one, part) for name, part in PARTS.items()},
        "success": one.success,
        "per_second": one.rate,
        "last": instant(one.last_ms),
    }


def percent(permitted: int, denied: int) -> str:
    """Say which part was permitted, cut and not rounded: 100 % only where nothing was denied."""
    judged = permitted + denied
    if not judged:
        return "-"
    hundredths = permitted * 10_000 // judged
    return f"{hundredths // 100}.{hundredths % 100:02} %"


def per_second(rate: float) -> str:
    """Say a rate in three digits; what is less than one in a hundred seconds is not nothing."""
    if rate < 0.01:  # noqa: PLR2004  the last place that is shown
        return "< 0.01"
    return f"{rate:.2f}" if rate < 10 else f"{rate:.1f}"  # noqa: PLR2004


def within(one: Stat, part: float) -> float | None:
    """Give within how many seconds that part of the calls ended; ``None`` if none has been timed."""
    return quantile(one.took, part) if one.took else None


def seconds(value: float | None) -> str:
    """Say how long in two digits, for no more are known: 640 us, 1.2 ms, 35 s."""
    if value is None:
        return "-"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if value >= size:
            return f"{value / size:.1f} {unit}" if value < 10 * size else f"{value / size:.0f} {unit}"
    return f"{value * 1e6:.0f} us"


def _row(one: Stat) -> Sequence[str]:
    took = [seconds(within(one, part)) for part in PARTS.values()]
    if one.unknown:
        what = f"not recorded: {one.unknown}"
        counts = (*"--", "-", str(one.failed) if one.took else "-")
        return (
            *(one.source, one.destination, what, "-", per_second(one.rate)),
            *took,
            *counts,
            instant(one.last_ms),
        )
    judged = one.permitted + one.denied
    counts = (str(one.permitted), str(one.audited), str(one.denied), str(one.failed))
    success = percent(one.succeeded, judged - one.succeeded)
    edge = (one.source, one.destination, one.method or "other methods")
    rate = per_second(one.rate) if judged else "-"
    return *edge, success, rate, *took, *counts, instant(one.last_ms)
