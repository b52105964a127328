"""``mesh policy observed``: the recorded decisions of the running mesh."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import click

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.output import instant, show_json, show_table
from mesh.cli.recorded import Wanted, choosing, fetched, told
from mesh.core.observed import VERDICTS, Gap, Metadata, Seen, merged, timeless
from mesh.core.suggest import Use

COLUMNS: Final = (
    "source",
    "destination",
    "method",
    "metadata",
    "verdict",
    "rule",
    "by",
    "count",
    "first",
    "last",
)
HEADS: Final = tuple(column.upper() for column in COLUMNS)
#: What of it is shown whole, however narrow the terminal is.
WHOLE: Final = ("SOURCE", "DESTINATION", "METHOD", "VERDICT")


@click.command()
@choosing
@click.option("--verdict", type=click.Choice(VERDICTS), help="Calls with that verdict.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
    help="How to show it; jsonl is what replay and suggest read.",
)
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, as jsonl.")
@data_option
def observed(
    wanted: Wanted,
    verdict: str | None,
    output: str,
    file: Path | None,
    data: Path,
) -> None:
    """Show which calls the nodes were asked to judge, and what they said; alike ones are one."""
    found = fetched(wanted, DataDirectory(data))
    chosen = [seen for seen in found if verdict in (None, getattr(seen, "verdict", None))]
    if file or output == "jsonl":
        with _writing(file) as out:
            out.writelines(f"{seen.encode()}\n" for seen in chosen)
        return
    whole = together(chosen)
    if output == "json":
        show_json([told(seen) for seen in whole])
    else:
        show_table(HEADS, [_row(seen) for seen in whole], WHOLE)


def counted(calls: int) -> str:
    """Say how many calls."""
    return "1 call" if calls == 1 else f"{calls} calls"


def when(seen: Seen | Use) -> str:
    """Say how many calls there were, and when."""
    first, last = instant(seen.first_ms), instant(seen.last_ms)
    return f"{counted(seen.count)}, {first}" + (f" to {last}" if last != first else "")


def together(seen: Iterable[Seen]) -> list[Seen]:
    """Put together what was alike at several times and under several versions, in the order of names."""
    alike: dict[Seen, Seen] = {}
    for one in seen:
        key = timeless(one)
        alike[key] = merged(alike[key], one) if key in alike else one
    return [alike[key] for key in sorted(alike, key=_place)]


def _place(seen: Seen) -> tuple[str, str]:
    return seen.destination, seen.encode()


@contextmanager
def _writing(file: Path | None) -> Iterator[IO[str]]:
    if file is None:
        yield sys.stdout
        return
    # For the owner alone: it tells who calls whom, and what they send.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        yield out


def shown_metadata(metadata: Metadata) -> str:
    """Give recorded metadata as a person reads it."""
    return " ".join(f"{key}={','.join(values)}" if values else f"no {key}" for key, values in metadata)


def _row(seen: Seen) -> tuple[str, ...]:
    times = (str(seen.count), instant(seen.first_ms), instant(seen.last_ms))
    if isinstance(seen, Gap):
        return "?", seen.destination, "not recorded", "", "", "", "", *times
    said = (seen.verdict, seen.rule or "-", seen.by or "-")
    return seen.source, seen.destination, seen.method, shown_metadata(seen.metadata) or "-", *said, *times
