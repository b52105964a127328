"""Conditions: the CEL expression after ``when``, read strictly and judged within bounds.

    source, destination   service names            method   /package.Service/Method
    metadata              text by key              time     of the mesh's clock, a timestamp

CEL (github.com/google/cel-spec) does the typing and the judging. Taken are literals, lists, operators, the
standard functions and ``has``. Not taken is what could cost more than reading the expression once (loops,
maps, messages, regular expressions), what CEL would open as a file (time zones that are not written out), and
what could not mean what it seems to: names that are none, stars, metadata whose key is not written out. So
the costliest condition takes about a millisecond, whatever is sent, and an ordinary one some microseconds.

A condition that cannot be judged (a key that is not there, comes twice or is too long, a division by zero, no
time) is neither true nor false. ``matcher`` makes of it what denies.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.core.expression import METADATA, METHOD, TIME, Reading
from mesh.core.metadata import Entries
from mesh.core.misread import misread
from mesh.v1.condition_pb2 import CheckedCondition, PackedCondition

MAX_CONDITION: Final = 1024
#: A longer value of metadata cannot be judged.
MAX_VALUE: Final = 4096

_ANYTHING: Final[frozenset[bool | None]] = frozenset({True, False, None})
_TEXT: Final = re.compile(r"[\n\t -~]+")


class Call(NamedTuple):
    """What a condition may look at; ``now_ms`` is Unix time, ``None`` where nobody knows it."""

    source: str
    destination: str
    method: str
    entries: Entries
    now_ms: int | None


class _Value(Protocol):
    def value(self) -> object: ...


class _Type(Protocol):
    def name(self) -> str: ...


class _Program(Protocol):
    """What is used of ``cel_expr_python``, which comes without types."""

    def eval(self, *, data: Mapping[str, object]) -> _Value: ...
    def return_type(self) -> _Type: ...
    def serialize(self) -> bytes: ...


class _Env(Protocol):
    def compile(self, expression: str) -> _Program: ...


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression that was understood. Two are equal if their texts are."""

    text: str
    #: Metadata keys that it looks at.
    keys: tuple[str, ...] = field(compare=False)
    #: Service names that it compares the source or the destination with.
    services: tuple[str, ...] = field(compare=False)
    #: Time zones that it names.
    zones: tuple[str, ...] = field(compare=False)
    #: Which of source, destination and method it looks at.
    names: tuple[str, ...] = field(compare=False)
    #: Whether it looks at the time.
    timed: bool = field(compare=False)
    #: Unix milliseconds at which time may change what it says, besides each full minute; ``None``: at any.
    turns: tuple[int, ...] | None = field(compare=False)
    _program: _Program = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read an expression; raise ``ValueError`` with what is wrong, ``TextError`` if CEL knows where."""
        return _parse(text)

    @property
    def lasting(self) -> bool:
        """Whether it says the same of every call of a source to a method."""
        return not self.keys and not self.timed

    @property
    def between(self) -> bool:
        """Whether who calls whom may decide it, whatever else it looks at."""
        return "source" in self.names or "destination" in self.names or (self.lasting and not self.names)

    def holds(self, call: Call) -> bool | None:
        """Judge a call; ``None`` if that cannot be done."""
        data = _names(call)
        if self.keys:
            values = _single_values(self.keys, call.entries)
            if values is None:
                return None
            data[METADATA] = values
        if self.timed:
            if call.now_ms is None:
                return None
            data[TIME] = _timestamp(call.now_ms)
        return self._eval(data)

    def possible(self, call: Call, unknown: Collection[str], *, timeless: bool) -> frozenset[bool | None]:
        """Give what ``holds`` may say, whatever came under the unknown keys, and at any time if ``timeless``.

        It may give too many answers, and never too few.
        """
        doubtful = not set(self.keys).isdisjoint(unknown)
        if not doubtful and not (timeless and self.timed):
            return frozenset({self.holds(call)})
        values = _single_values(self.keys, call.entries)
        if values is None or (self.timed and call.now_ms is None):
            return frozenset({None})
        data = _names(call)
        if not doubtful:
            data[METADATA] = values
        if not timeless and call.now_ms is not None:
            data[TIME] = _timestamp(call.now_ms)
        # CEL finds no variable for what is unknown: an error, unless the rest decides by itself.
        found = self._eval(data)
        if found is None:
            return _ANYTHING
        # A key that came twice makes it nothing that can be judged, whatever the rest says.
        return frozenset({found, None}) if doubtful else frozenset({found})

    def ever(self, source: str, destination: str) -> frozenset[bool | None]:
        """Give what ``holds`` may say of calls from one service to another, or more, but never less."""
        if not self.between:
            return _ANYTHING
        found = self._eval({"source": source, "destination": destination})
        if self.lasting and METHOD not in self.names:
            return frozenset({found})
        return _ANYTHING if found is None else frozenset({found, None})

    def _eval(self, data: Mapping[str, object]) -> bool | None:
        try:
            value = self._program.eval(data=data).value()
        except RuntimeError:
            return None  # a text that is none, which the transport should not have passed
        # What went wrong within CEL is a value as well, and no truth value.
        return value if isinstance(value, bool) else None


def _names(call: Call) -> dict[str, object]:
    return {"source": call.source, "destination": call.destination, METHOD: call.method}


def _timestamp(unix_ms: int) -> Timestamp:
    return Timestamp(seconds=unix_ms // 1000, nanos=unix_ms % 1000 * 1_000_000)


def _single_values(keys: tuple[str, ...], entries: Entries) -> dict[str, str] | None:
    # A key that comes twice has no value that both the policy and the application are sure to mean; one of
    # great length would let the caller choose what a condition costs.
    values: dict[str, str] = {}
    for key, value in entries:
        if key in keys:
            if key in values or len(value) > MAX_VALUE:
                return None
            values[key] = value if isinstance(value, str) else value.decode("latin-1")
    return values


@lru_cache(4096)
def _parse(text: str) -> Condition:
    if len(text) > MAX_CONDITION:
        msg = f"{len(text)} characters are too many for a condition: use at most {MAX_CONDITION}"
        raise ValueError(msg)
    if not _TEXT.fullmatch(text):
        msg = f"{text!a:.80} is not printable ascii: look-alikes of other alphabets match no name"
        raise ValueError(msg)
    try:
        program = _env().compile(text)
    except RuntimeError as error:
        raise misread(text, str(error)) from None
    kind = program.return_type().name()
    if kind != "BOOL":
        msg = f"gives {kind.lower()}: a condition has to be true or false"
        raise ValueError(msg)
    packed = PackedCondition.FromString(program.serialize())
    read = Reading()
    read.expression(CheckedCondition.FromString(packed.value).expr)
    turns = None if read.unsteady else tuple(sorted(read.turns))
    seen = (read.keys, read.services, read.zones, read.names)
    keys, services, zones, names = (tuple(sorted(found)) for found in seen)
    return Condition(text, keys, services, zones, names, read.timed, turns, program)


@cache
def _env() -> _Env:
    # Not at the head: it takes 70 ms and 20 MB, and few processes ever judge a condition.
    from cel_expr_python import cel  # noqa: PLC0415

    text = cel.Type.STRING
    kinds = dict.fromkeys(("source", "destination", METHOD), text)
    kinds |= {METADATA: cel.Type.Map(text, text), TIME: cel.Type.TIMESTAMP}
    env: _Env = cel.NewEnv(variables=kinds)
    return env
