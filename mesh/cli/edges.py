"""``mesh edges``: who calls whom, by what the nodes have decided; and which of it was last denied.

It sums up the recorded decisions (``recorded``). All that a node decides about came sealed, by a verified
caller; calls that were not believed are no edge, and in the audit log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.kinds import service
from mesh.cli.output import instant, show_json, show_table, wide_option
from mesh.cli.recorded import Wanted, choosing, fetched, involving
from mesh.core.names import ServiceName
from mesh.core.observed import DENY, Gap, Observation, Seen

COLUMNS = ("source", "destination", "permitted", "denied", "unknown", "last call", "last denied", "rule")
#: What ``-o wide`` shows beside that.
MORE = ("by policy", "last denied calls")
#: What of it is shown whole, however narrow the terminal is.
WHOLE = ("SOURCE", "DESTINATION", "PERMITTED", "DENIED")


@dataclass(slots=True)
class Edge:
    """All that one service asked of another. A source of ``?`` is calls too many to be told apart."""

    source: str
    destination: str
    permitted: int = 0
    denied: int = 0
    unknown: int = 0
    last_ms: int = 0
    last_denied: Observation | None = None

    def add(self, seen: Seen) -> None:
        """Count calls that were alike."""
        self.last_ms = max(self.last_ms, seen.last_ms)
        if isinstance(seen, Gap):
            self.unknown += seen.count
        elif seen.verdict != DENY:
            self.permitted += seen.count
        else:
            self.denied += seen.count
            if self.last_denied is None or self.last_denied.last_ms < seen.last_ms:
                self.last_denied = seen


@click.command()
@click.argument("name", type=service, metavar="[SERVICE]", required=False)
@choosing
@click.option("--denied", is_flag=True, help="Only where something was denied.")
@wide_option
@data_option
def edges(name: ServiceName | None, wanted: Wanted, output: str, data: Path, *, denied: bool) -> None:
    """Show who calls whom, how often it was permitted and denied, and what was denied last.

    With SERVICE, only its calls and those to it.
    """
    seen = fetched(wanted, DataDirectory(data))
    found = [edge for edge in edges_of(seen, name.text if name else "") if edge.denied or not denied]
    if output == "json":
        show_json([as_json(edge) for edge in found])
    else:
        wide = output == "wide"
        columns = [column.upper() for column in (*COLUMNS, *(MORE if wide else ()))]
        show_table(columns, [_row(edge)[: len(columns)] for edge in found], WHOLE)


def edges_of(seen: Iterable[Seen], name: str = "") -> list[Edge]:
    """Put together what is recorded of each pair of services, in order; of one, or of all."""
    found: dict[tuple[str, str], Edge] = {}
    for one in involving(seen, name):
        source = "?" if isinstance(one, Gap) else one.source
        found.setdefault((source, one.destination), Edge(source, one.destination)).add(one)
    return [found[pair] for pair in sorted(found)]


def show(found: Iterable[Edge]) -> None:
    """Show edges as a table."""
    show_table([column.upper() for column in COLUMNS], [_row(edge)[: len(COLUMNS)] for edge in found])


def as_json(edge: Edge) -> dict[str, object]:
    """Give an edge as it is shown in JSON."""
    last = edge.last_denied
    return {
        "source": edge.source,
        "destination": edge.destination,
        "permitted": edge.permitted,
        "denied": edge.denied,
        "unknown": edge.unknown,
        "last": instant(edge.last_ms),
        "last_denied": last and {"time": instant(last.last_ms), "method": last.method, "rule": last.rule},
    }


def _row(edge: Edge) -> tuple[str, ...]:
    last = edge.last_denied
    told = ("-",) * 4
    if last is not None:
        when = f"{instant(last.last_ms)} {last.method}"
        told = (when, last.rule or "no rule", str(last.policy), str(last.count))
    counts = (str(edge.permitted), str(edge.denied), str(edge.unknown), instant(edge.last_ms))
    return edge.source, edge.destination, *counts, *told
