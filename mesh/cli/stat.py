"""``mesh stat``: calls, calls per second and how many were permitted, of each edge and method.

It sums up the recorded decisions (``recorded``), which nodes tell and gatekeeper keeps by the minute. What
lies partly in the span is taken whole, so each rate is over the time from which its calls really are, never
over less. How long calls took is not recorded: telemetry has it.
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
from mesh.cli.output import instant, output_option, show_json, show_table
from mesh.cli.recorded import Wanted, fetched
from mesh.core.names import ServiceName
from mesh.core.observed import AUDIT, DENY, Gap, Seen

COLUMNS: Final = (
    "source",
    "destination",
    "method",
    "success",
    "per second",
    "permitted",
    "in audit",
    "denied",
    "last call",
)
#: What of it is shown whole, however narrow the terminal is.
WHOLE: Final = ("SOURCE", "DESTINATION", "METHOD", "SUCCESS")


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
        """The part of the calls that was permitted, from 0 to 1; ``None`` where no verdict is known."""
        judged = self.permitted + self.denied
        return self.permitted / judged if judged else None

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
@output_option
@data_option
def stat(name: ServiceName | None, since: int, until: int | None, output: str, data: Path) -> None:
    """Show how many calls there are by edge and method, and how many of them were permitted.

    With SERVICE, only its calls and those to it.
    """
    end_ms = int(time.time() * 1000) if until is None else until
    if end_ms <= since:
        raise click.UsageError("--until is not later than --since: there is no time between them")
    seen = fetched(Wanted(since, until, ()), DataDirectory(data))
    found = stats_of(seen, since, end_ms, name.text if name else "")
    if output == "json":
        show_json([as_json(one) for one in found])
    else:
        show_table([column.upper() for column in COLUMNS], [_row(one) for one in found], WHOLE)


def stats_of(seen: Iterable[Seen], since_ms: int, until_ms: int, name: str = "") -> list[Stat]:
    """Put together what is recorded of each edge and method, in their order; of one service, or of all."""
    found: dict[tuple[str, str, str], Stat] = {}
    for one in seen:
        source, method = ("?", "") if isinstance(one, Gap) else (one.source, one.method)
        if name in ("", source, one.destination):
            key = (source, one.destination, method)
            found.setdefault(key, Stat(*key, since_ms, until_ms)).add(one)
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


def _row(one: Stat) -> Sequence[str]:
    if one.unknown:
        return (
            *(one.source, one.destination, f"not recorded: {one.unknown}", "-", per_second(one.rate)),
            *("-", "-", "-", instant(one.last_ms)),
        )
    counts = (str(one.permitted), str(one.audited), str(one.denied))
    success = percent(one.permitted, one.denied)
    edge = (one.source, one.destination, one.method)
    return *edge, success, per_second(one.rate), *counts, instant(one.last_ms)
