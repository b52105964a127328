"""Which line of a TOML document a key stands in, for errors about what the parser took without complaint.

A scan of the text, not a parser: ``tomllib`` judges the syntax. Where it is fooled, by a key inside of a text
of several lines, the line is a wrong one and nothing worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str, ...]

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEYS: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_TABLE: Final = re.compile(rf"[ \t]*\[{{1,2}}[ \t]*({_KEYS})[ \t]*\]")
_KEY: Final = re.compile(rf"[ \t]*({_KEYS})[ \t]*=")


class Places:
    """The lines of a document, from 1, by the path of their keys."""

    def __init__(self, text: str) -> None:
        """Look through a document."""
        self._lines = text.splitlines()
        self._found: dict[Path, int] = {}
        table: Path = ()
        for number, line in enumerate(self._lines, 1):
            if header := _TABLE.match(line):
                table = _path(header[1])
                self._found.setdefault(table, number)
            elif key := _KEY.match(line):
                self._note(table, _path(key[1]), number)

    def _note(self, table: Path, key: Path, number: int) -> None:
        for length in range(1, len(key) + 1):
            self._found.setdefault((*table, *key[:length]), number)

    @property
    def last(self) -> int:
        """The last line."""
        return max(1, len(self._lines))

    def line(self, path: Iterable[str], item: str = "") -> int:
        """Give the line of a key, or of the closest table around it; of ``item``, if that is in its value."""
        path = tuple(path)
        while path and path not in self._found:
            path, item = path[:-1], item or path[-1]
        first = self._found.get(path, 1)
        return self._below(first, item) if item else first

    def _below(self, first: int, item: str) -> int:
        quoted = (f'"{item}"', f"'{item}'")
        for number in range(first, self.last + 1):
            line = self._lines[number - 1]
            if number > first and (_TABLE.match(line) or _KEY.match(line)):
                break
            if any(text in line for text in quoted):
                return number
        return first


def _path(keys: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, keys))
