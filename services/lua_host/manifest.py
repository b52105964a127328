"""``service.toml``: what a Lua service is, what it may use and call, and its limits. Pure.

Strict: what is unknown, doubtful or out of bounds is an error, and all errors are told at once. What is not
seen from the text alone, such as whether a file exists, is for ``bundle``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from mesh.core.names import FullMethod, ServiceName
from services.lua_host.library import checked_entry
from services.lua_host.limits import LIMITS, MEMORY_FOR_MESSAGE, Limits
from services.lua_host.places import Path, Places
from services.lua_host.problems import Problem, ProblemsError
from services.lua_host.strict_toml import Key, Reading, a_list, a_text

_SERVICE: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
#: Names that mean the same on every system, in a message and on a command line, and never lead upwards.
_FILE: Final = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)


class ManifestError(ProblemsError):
    """A text that is no manifest, with everything that is wrong in it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Methods of another service that a script may call."""

    service: ServiceName
    methods: tuple[FullMethod, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A service, as its manifest says. File names are relative to its directory."""

    name: ServiceName
    script: str
    protos: tuple[str, ...]
    includes: tuple[str, ...]
    serves: tuple[str, ...]
    """gRPC services by their full names, such as ``shop.v1.Pricing``."""
    allow: tuple[str, ...]
    kept: bool
    """Whether globals live from call to call."""
    calls: tuple[Grant, ...]
    limits: Limits
    file: str = field(compare=False)
    places: Places = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: bytes, file: str = "service.toml") -> Manifest:
        """Read a manifest; raise ``ManifestError``."""
        try:
            reading = Reading(text, file)
        except ProblemsError as error:
            raise ManifestError(error.problems) from None
        found = reading.table((), reading.data, _KEYS)
        if not reading.problems:
            found["limits"] = _limits(reading, found["limits"], kept=found["state"])
        if reading.problems:
            raise ManifestError(sorted(reading.problems))
        kept = found.pop("state")
        return cls(**found, kept=kept, file=file, places=reading.places)

    def problem(self, text: str, *path: str, item: str = "") -> Problem:
        """Give a problem with the value of a key, or with a text in it."""
        return Problem(self.file, self.places.line(path, item), text)


def _limits(reading: Reading, found: Mapping[str, Any], *, kept: bool) -> Limits:
    """Judge what only two values together can be wrong in."""
    workers = found["workers"] or (1 if kept else LIMITS["workers"].default)
    limits = Limits(**{**found, "workers": workers})
    if kept and limits.workers > 1:
        what = 'workers has to be 1 with state = "kept": what is kept is in one worker'
        reading.wrong(("limits", "workers"), what)
    if limits.message * MEMORY_FOR_MESSAGE > limits.memory:
        what = "message has to be at most a quarter of memory: a message is held as bytes and as a table"
        reading.wrong(("limits", "message"), what)
    return limits


def _calls(reading: Reading, path: Path, value: object) -> tuple[Grant | None, ...]:
    return tuple(
        _grant(reading, (*path, name), methods) for name, methods in reading.members(path, value).items()
    )


def _grant(reading: Reading, path: Path, methods: object) -> Grant | None:
    name = path[-1]
    if isinstance(methods, dict):
        reading.wrong(
            path, f'{name} has to be a list of methods: a name with a dot stands in quotes, "{name}.x"'
        )
        return None
    service = reading.text(path, name, _other_name)
    granted = _METHODS.read(reading, path, methods)
    return None if service is None else Grant(service, granted)


def _own_name(text: str) -> ServiceName:
    name = ServiceName(text)
    if name.reserved:
        raise ValueError(f"{text!r:.80} belongs to the mesh: choose another name")
    return name


def _other_name(text: str) -> ServiceName:
    name = ServiceName(text)
    if name.reserved:
        raise ValueError(f"{text!r:.80} is a part of the mesh: a script calls services")
    return name


def _file(text: str) -> str:
    if not _FILE.fullmatch(text):
        raise ValueError(
            f"{text!r:.80} is no file in the directory: use names of a-z, 0-9 and _ . - joined by /"
        )
    return text


def _proto(text: str) -> str:
    if not text.endswith((".proto", ".binpb")):
        raise ValueError(f"{text!r:.80} is neither a .proto file nor a .binpb file")
    return _file(text)


def _include(text: str) -> str:
    return text if text == "." else _file(text)


def _service(text: str) -> str:
    if not _SERVICE.fullmatch(text):
        raise ValueError(f"{text!r:.80} is no gRPC service: use its full name, such as shop.v1.Pricing")
    return text


def _kept(text: str) -> bool:
    if text not in {"fresh", "kept"}:
        raise ValueError(f'{text!r:.80} is neither "fresh" nor "kept"')
    return text == "kept"


_METHODS: Final = a_list(FullMethod)
_LIMIT_KEYS: Final = {name: bound.key() for name, bound in LIMITS.items()} | {
    "workers": replace(LIMITS["workers"].key(), default=None)
}
_NO_LIMITS: Final = MappingProxyType({name: key.default for name, key in _LIMIT_KEYS.items()})
_KEYS: Final = {
    "name": a_text(_own_name),
    "script": a_text(_file),
    "protos": a_list(_proto),
    "includes": a_list(_include, default=(".",)),
    "serves": a_list(_service),
    "allow": a_list(checked_entry, default=()),
    "state": a_text(_kept, default=False),
    "calls": Key(_calls, default=()),
    "limits": Key(lambda reading, path, value: reading.table(path, value, _LIMIT_KEYS), default=_NO_LIMITS),
}
