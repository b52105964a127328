"""``mesh policy replay``: what another policy would have made of recorded calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import grpc

from mesh.cli.completion import files
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.errors import told as why
from mesh.cli.kinds import moment
from mesh.cli.output import output_option, show_json
from mesh.cli.policy_observed import counted, shown_metadata, when
from mesh.cli.policy_record import named
from mesh.cli.recorded import Wanted, choosing, fetched, recorded, told
from mesh.core.errors import MeshError
from mesh.core.observed import Observation
from mesh.core.policy import Policy
from mesh.core.replayed import Change, Replayed, Row

#: How many lines are shown.
LINES: Final = 200
#: Seconds that a forecast waits for gatekeeper.
PATIENCE: Final = 5.0

_SIGNS: Final = {
    Change.DENIED: "-",
    Change.UNKNOWN: "?",
    Change.ALLOWED: "+",
    Change.AUDIT: "~",
    Change.JUDGED: "*",
    Change.UNCHANGED: "=",
}
_FAILING: Final = (Change.DENIED, Change.UNKNOWN)


@click.command()
@click.argument("observed", metavar="RECORDED", shell_complete=files)
@click.argument("policy", shell_complete=files)
@choosing
@click.option("--all", "everything", is_flag=True, help="Calls of which nothing changes, too.")
@output_option
@data_option
def replay(
    observed: str,
    policy: str,
    wanted: Wanted,
    everything: bool,
    output: str,
    data: Path,
) -> None:
    """Judge recorded calls again under POLICY, and say what changes.

    RECORDED is a file of lines, - for standard input, or live for what the running mesh recorded. POLICY is
    a file, or the number of a version that auth keeps. Status 1 if a call would be newly denied, if that
    cannot be told of one, or if there are no calls.
    """
    directory = DataDirectory(data)
    replayed = Replayed(named(policy, directory))
    for seen in recorded(observed, wanted, directory):
        replayed.take(seen)
    rows = [row for row in replayed.rows() if everything or row.change is not Change.UNCHANGED]
    if output == "json":
        show_json({"totals": _totals(replayed), "rows": [_data(row) for row in rows]})
    else:
        for line in _lines(replayed, rows):
            click.echo(line)
    if not replayed.calls:
        raise CliError(f"{observed}: no calls to judge: see --since, --until, --service", Exit.FAILED)
    failing = [f"{replayed.calls[one]} {_said(one)}" for one in _FAILING if replayed.calls[one]]
    if failing:
        raise CliError(
            f"{policy}: of {counted(replayed.calls.total())}, {' and '.join(failing)}", Exit.FAILED
        )


def forecast(policy: Policy, data: DataDirectory) -> str:
    """Say what becomes of the calls of the last day under a policy, or why that cannot be said."""
    replayed = Replayed(policy)
    try:
        for seen in fetched(Wanted(moment("24h"), None, ()), data, PATIENCE):
            replayed.take(seen)
    except (CliError, MeshError, grpc.aio.AioRpcError) as error:
        return f"replay of the last 24 h: not possible: {why(error).message}"
    return f"replay of the last 24 h: {_summary(replayed)}"


def _summary(replayed: Replayed) -> str:
    found = [f"{one}: {replayed.calls[one]}" for one in Change if replayed.calls[one]]
    return counted(replayed.calls.total()) + "".join(f", {one}" for one in found)


def _said(change: Change) -> str:
    return "would be newly denied" if change is Change.DENIED else str(change)


def _lines(replayed: Replayed, rows: list[Row]) -> Iterator[str]:
    yield from map(_line, rows[:LINES])
    if len(rows) > LINES:
        yield f"  and {len(rows) - LINES} more: see -o json"
    yield _summary(replayed)


def _line(row: Row) -> str:
    seen, outcome = row.seen, row.outcome
    if not isinstance(seen, Observation):
        return f"{_SIGNS[row.change]} calls to {seen.destination}: {when(seen)}: {outcome.why}"
    metadata = f" ({shown_metadata(seen.metadata)})" if seen.metadata else ""
    call = f"{seen.source} -> {seen.destination} {seen.method}{metadata}"
    verdict = f"{_before(seen)} => {outcome.word}" if seen.verdict else outcome.word
    return f"{_SIGNS[row.change]} {call}: {verdict}: {outcome.why}: {when(seen)}"


def _before(seen: Observation) -> str:
    by = seen.by or seen.rule
    return f"{seen.verdict} ({by})" if by else seen.verdict


def _totals(replayed: Replayed) -> dict[str, object]:
    changes = {
        one.name.lower(): {"calls": replayed.calls[one], "distinct": replayed.distinct(one)} for one in Change
    }
    return {"calls": replayed.calls.total(), **changes}


def _data(row: Row) -> dict[str, object]:
    verdicts = row.outcome.verdicts
    one = verdicts[0] if len(verdicts) == 1 else None
    return {
        "change": row.change.name.lower(),
        "seen": told(row.seen),
        "verdict": row.outcome.word,
        "rule": one.rule if one else None,
        "by": one.audited.rule if one and one.audited else None,
        "why": row.outcome.why,
    }
