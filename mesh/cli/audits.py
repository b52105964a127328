"""``mesh audit``: is the log whole, and what is in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import grpc

from mesh.cli import audit_source
from mesh.cli.audit_filter import COLUMNS, WHOLE, Filter, as_data, as_rows, filters
from mesh.cli.audit_findings import accused, put_back, summary
from mesh.cli.audit_findings import as_data as as_told
from mesh.cli.audit_seen import Seen
from mesh.cli.audit_source import LOGS, Place, Read
from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import Operator, asked, operator
from mesh.cli.output import output_option, show_json, show_table
from mesh.core.examine import examine
from mesh.core.keys import KEY_BYTES, Key

AUDIT_KEY: Final = "audit.key"
#: Seconds between looks of ``tail --follow``.
LOOK: Final = 1.0

_offline_option = click.option("--offline", is_flag=True, help="Read the files of an auth that does not run.")


@click.group()
def audit() -> None:
    """Verify the audit log, and look into it."""


@audit.command()
@click.option("--key", type=click.Path(path_type=Path), help="The audit key. [default: audit.key in --data]")
@click.option(
    "--seen",
    type=click.Path(path_type=Path),
    help="What was seen before. [default: the key's name and .seen]",
)
@click.option(
    "--restored", is_flag=True, help="Take it that a log was put back from a backup, if it says so."
)
@click.option(
    "--accept", is_flag=True, help="Take what is lost unseen, and alarms about damage, as known from now on."
)
@_offline_option
@output_option
@data_option
def verify(
    key: Path | None,
    seen: Path | None,
    restored: bool,
    accept: bool,
    offline: bool,
    output: str,
    data: Path,
) -> None:
    """Check that nothing in the audit log was changed, removed, moved or put back.

    Status 6 if it was, with the first bad entry of each log.
    """
    path = key or data / AUDIT_KEY
    root, known = _read_key(path), Seen(seen or path.with_name(f"{path.name}.seen"), data)
    reads = _read_all(data, offline, whole=True)
    found = {log: examine(read.head, root, read.segments, known.marks(log)) for log, read in reads.items()}
    if restored:
        again = [log for log, one in found.items() if put_back(one)]
        found |= {log: examine(reads[log].head, root, reads[log].segments) for log in again}
    if output == "json":
        show_json({log: as_told(reads[log].head, one) for log, one in found.items()})
    else:
        for log in (log for log, one in found.items() if not one.bad):
            click.echo(f"{log}: {summary(reads[log].head, found[log])}")
    wrong = {log: one for log, one in found.items() if one.bad or not (one.sound or accept)}
    if wrong:
        raise CliError("; ".join(accused(log, one) for log, one in wrong.items()), Exit.TAMPERED)
    known.write({log: read.head for log, read in reads.items()})


@audit.command()
@filters
@click.option("--log", "logs", multiple=True, type=click.Choice(LOGS), help="One log alone.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N of those that match.")
@_offline_option
@output_option
@data_option
def query(
    chosen: Filter, logs: tuple[str, ...], limit: int | None, offline: bool, output: str, data: Path
) -> None:
    """Show the entries that match, oldest first. Whether they are genuine is what verify says."""
    reads = _read_all(data, offline, whole=True)
    _show([*_matching({log: reads[log] for log in logs or LOGS}, chosen)][-(limit or 0) :], output)


@audit.command()
@filters
@click.option("--log", "logs", multiple=True, type=click.Choice(LOGS), help="One log alone.")
@click.option("-n", "--number", type=click.IntRange(0), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@_offline_option
@output_option
@data_option
def tail(
    chosen: Filter,
    logs: tuple[str, ...],
    number: int,
    follow: bool,
    offline: bool,
    output: str,
    data: Path,
) -> None:
    """Show the newest entries that match, as JSON one a line with --follow."""
    if follow and offline:
        raise click.UsageError("--follow needs a running auth: leave --offline out")
    if follow:
        asyncio.run(_follow(DataDirectory(data), chosen, logs or LOGS, number, output))
        return
    reads = _read_all(data, offline, whole=False)
    newest = _matching({log: reads[log] for log in logs or LOGS}, chosen)
    _show(newest[max(0, len(newest) - number) :], output)
    if not (newest or offline):
        click.echo("only the newest part of the logs was read: mesh audit query reads all of it", err=True)


def _read_all(data: Path, offline: bool, *, whole: bool) -> dict[str, Read]:
    reads = _all(data, offline, whole=whole)
    _tell_whose(next(iter(reads.values())))
    return reads


def _tell_whose(read: Read) -> None:
    others = [name for name in read.replicas if name != read.replica]
    if others:
        more = "1 more has logs of its" if len(others) == 1 else f"{len(others)} more have logs of their"
        what = f"these are the logs of auth {read.replica} alone: {more} own"
        click.echo(f"{what} ({', '.join(others)}): look at each with its own --data and audit key", err=True)


def _all(data: Path, offline: bool, *, whole: bool) -> dict[str, Read]:
    if offline:
        return audit_source.offline(data)

    async def ask(connected: Operator) -> dict[str, Read]:
        starts = {log: Place() if whole else await audit_source.near_the_end(connected, log) for log in LOGS}
        return {log: await audit_source.ask(connected, log, start) for log, start in starts.items()}

    return asked(DataDirectory(data), ask)


def _matching(reads: dict[str, Read], chosen: Filter) -> list[dict[str, object]]:
    found = []
    for log, read in reads.items():
        entries, bad, _ = read.entries(Place())
        found += [as_data(log, sequence, entry) for sequence, entry in entries if chosen.takes(entry)]
        if bad:
            what = "1 line that is no entry" if bad == 1 else f"{bad} lines that are no entries"
            click.echo(f"{what} in {log}: run mesh audit verify", err=True)
    return sorted(found, key=lambda entry: (entry["at_ms"], entry["log"], entry["seq"]))


def _show(shown: Sequence[dict[str, object]], output: str) -> None:
    if output == "json":
        show_json(list(shown))
    elif not shown:
        click.echo("nothing matches", err=True)
    else:
        show_table(COLUMNS, as_rows(shown), WHOLE)


async def _follow(data: DataDirectory, chosen: Filter, logs: Sequence[str], number: int, output: str) -> None:
    places: dict[str, Place] = {}
    while True:
        try:
            async with operator(data) as connected:
                while True:
                    first = not places
                    places, found = await _since(connected, places, logs)
                    if first:
                        _tell_whose(next(iter(found.values())))
                    shown = _matching(found, chosen)
                    for entry in shown[max(0, len(shown) - number) :]:
                        click.echo(json.dumps(entry) if output == "json" else "  ".join(as_rows([entry])[0]))
                    number = 10**9
                    await asyncio.sleep(LOOK)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(LOOK)  # auth is away, or this operator's hour is over: join anew


async def _since(
    connected: Operator, places: dict[str, Place], logs: Sequence[str]
) -> tuple[dict[str, Place], dict[str, Read]]:
    reads, after = {}, {}
    for log in logs:
        start = places.get(log) or await audit_source.near_the_end(connected, log)
        reads[log] = await audit_source.ask(connected, log, start)
        after[log] = reads[log].entries(start)[2]
    return after, reads


def _read_key(path: Path) -> Key:
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(f"cannot read the audit key {path}: {reason}: name it with --key", Exit.DATA) from None
    if len(raw) != KEY_BYTES:
        raise CliError(f"{path} is no audit key: name the one that mesh init made, with --key", Exit.DATA)
    return Key(raw)
