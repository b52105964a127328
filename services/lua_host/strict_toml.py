"""Strict reading of TOML that people write: all that is wrong at once, each with its line.

What a key means is its reader's business: a table of keys is data, given to ``table``. What cannot be read is
noted and read as ``None``, so nothing that was read is of use while there are ``problems``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from services.lua_host.library import instead
from services.lua_host.places import Path, Places
from services.lua_host.problems import Problem, ProblemsError

MAX_DOCUMENT: Final = 256 * 1024

_WHERE: Final = re.compile(r" ?\(at (?:line ([0-9]+), column [0-9]+|end of document)\)")
_KINDS: Final = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a table",
}
_T = TypeVar("_T")

#: The default of a key that has none.
REQUIRED: Final = object()


class Reading:
    """A document while it is read."""

    def __init__(self, document: bytes, file: str) -> None:
        """Take a document, and its name for problems; raise ``ProblemsError`` if it is no TOML."""
        self.file = file
        self.problems: list[Problem] = []
        if len(document) > MAX_DOCUMENT:
            self._stop(0, f"{len(document)} bytes are too many: use at most {MAX_DOCUMENT}")
        try:
            text = document.decode()
        except UnicodeDecodeError as error:
            self._stop(document.count(b"\n", 0, error.start) + 1, "not UTF-8: save it as UTF-8")
        self.places = Places(text)
        self.data = self._parsed(text)

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            said = str(error)
            where = _WHERE.search(said)
            line = int(where[1] or self.places.last) if where else 0
            self._stop(line, f"not TOML: {_WHERE.sub('', said)}")
        except RecursionError:
            self._stop(0, "not TOML: nested too deeply")
        except ValueError as error:  # a number of too many digits
            self._stop(0, f"not TOML: {error}")

    def _stop(self, line: int, text: str) -> NoReturn:
        raise ProblemsError([Problem(self.file, line, text)])

    def wrong(self, path: Path, text: str, item: str = "") -> None:
        """Note that the value of a key is wrong, or a text in it."""
        self.problems.append(Problem(self.file, self.places.line(path, item), text))

    def table(self, path: Path, value: object, keys: Mapping[str, Key]) -> dict[str, Any]:
        """Read a table that has these keys and no other."""
        found = self.members(path, value)
        for name in found.keys() - keys.keys():
            self.wrong((*path, name), f"unknown key {name!r:.80}{instead(name, tuple(keys))}")
        return {name: self._member((*path, name), found, key) for name, key in keys.items()}

    def _member(self, path: Path, table: dict[str, object], key: Key) -> Any:
        if path[-1] in table:
            return key.read(self, path, table[path[-1]])
        if key.default is REQUIRED:
            self.wrong(path[:-1], f"{path[-1]} is missing: add it")
        return key.default

    def members(self, path: Path, value: object) -> dict[str, object]:
        """Read a table of any keys."""
        if isinstance(value, dict):
            return value
        self.wrong(path, f"{path[-1]} has to be a table, [{path[-1]}], not {kind(value)}")
        return {}

    def text(self, path: Path, value: object, check: Callable[[str], _T]) -> _T | None:
        """Read a text, as ``check`` gives it or refuses it with ``ValueError``."""
        if not isinstance(value, str):
            self.wrong(path, f"{path[-1]}: {value!r:.80} is no text: put it into quotes")
            return None
        try:
            return check(value)
        except ValueError as error:
            self.wrong(path, f"{path[-1]}: {error}", value)
        return None

    def texts(self, path: Path, value: object, check: Callable[[str], _T]) -> tuple[_T | None, ...]:
        """Read a list of texts, each there once."""
        if not isinstance(value, list):
            self.wrong(path, f"{path[-1]} has to be a list, [...], not {kind(value)}")
            return ()
        for index, item in enumerate(value):
            if item in value[:index]:
                self.wrong(path, f"{path[-1]}: {item!r:.80} is there twice: remove one", str(item))
        return tuple(self.text(path, item, check) for item in value)


@dataclass(frozen=True, slots=True)
class Key:
    """How a key's value is read, and what it is where the key is missing."""

    read: Callable[[Reading, Path, object], Any]
    default: Any = REQUIRED


def a_text(check: Callable[[str], object], default: object = REQUIRED) -> Key:
    """Give the key of a text."""
    return Key(lambda reading, path, value: reading.text(path, value, check), default)


def a_list(check: Callable[[str], object], default: object = REQUIRED) -> Key:
    """Give the key of a list of texts, of which there has to be one if the key has no default."""

    def read(reading: Reading, path: Path, value: object) -> Any:
        if value == [] and default is REQUIRED:
            reading.wrong(path, f"{path[-1]} is empty: name at least one")
        return reading.texts(path, value, check)

    return Key(read, default)


def kind(value: object) -> str:
    """Give what a value is, in words."""
    return _KINDS.get(type(value), "a date or a time")
