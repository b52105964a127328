"""What ``mesh audit verify`` has seen of the logs before: the file beside the audit key.

Marks are kept for each place (the data directory that was named), so that verifying a copy says nothing of
the log that it was copied from. A log at a new place has to have passed through what was seen at all others,
or a verifier could be led there to have him forget. A file of an older version has marks of no place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import click

from mesh.cli.errors import CliError, Exit
from mesh.core.chain import Head
from mesh.core.examine import Mark, latest

Marks: TypeAlias = dict[str, Mark]
"""One place's, by log."""
_PLACES = "places"


class Seen:
    """The marks of every place."""

    def __init__(self, path: Path, place: Path) -> None:
        """Read them; raise ``CliError`` where that fails. ``place`` is the one that is looked at."""
        self._path, self._place = path, str(place.resolve())
        self._places = _read(path)

    def marks(self, log: str) -> list[Mark]:
        """Give what a log here must have passed through."""
        own = self._places.get(self._place)
        places = self._places.values() if own is None else [own]
        return [marks[log] for marks in places if log in marks]

    def write(self, heads: Mapping[str, Head]) -> None:
        """Remember these ends of the logs here; say so where that is not possible."""
        self._places[self._place] = {log: latest(head) for log, head in heads.items()}
        told = {place: _told(marks) for place, marks in self._places.items()}
        scratch = self._path.with_name(f".{self._path.name}")
        try:
            scratch.write_text(json.dumps({_PLACES: told}) + "\n")
            scratch.replace(self._path)
        except OSError as error:
            click.echo(
                f"cannot note what was seen in {self._path}: {(error.strerror or '').lower()}", err=True
            )


def _told(marks: Marks) -> dict[str, dict[str, int | str]]:
    return {log: {"sequence": mark.sequence, "mac": mark.mac.hex()} for log, mark in marks.items()}


def _read(path: Path) -> dict[str, Marks]:
    try:
        found = json.loads(path.read_bytes())
        places = found.get(_PLACES, {"": found})
        return {
            place: {log: Mark(int(at["sequence"]), bytes.fromhex(at["mac"])) for log, at in marks.items()}
            for place, marks in places.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{path} is damaged: without it an older log cannot be told", Exit.DATA) from None
