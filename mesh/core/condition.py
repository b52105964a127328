"""Conditions: the CEL expression after ``when``, read strictly and judged within bounds.

    source, destination   service names            method   /package.Service/Method
    metadata              text by key              time     of the mesh's clock, a timestamp

CEL (github.com/google/cel-spec) does the typing and the judging. Taken are literals, lists, operators, the
standard functions and ``has``. Not taken is what could cost more than reading the expression once (loops,
maps, messages, regular expressions) and what could not mean what it seems to: names that are none, stars,
metadata whose key is not written out. So the costliest condition takes half a millisecond, whatever is sent,
and an ordinary one some microseconds.

A condition that cannot be judged (a key that is not there, comes twice or is too long, a division by zero, no
time) is neither true nor false. ``matcher`` makes of it what denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, NamedTuple, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.core.metadata import Entries
from mesh.core.names import FullMethod, ServiceName
from mesh.core.patterns import ANY, checked_key
from mesh.v1.condition_pb2 import CheckedCondition, ConditionExpr, PackedCondition

MAX_CONDITION: Final = 1024
#: A longer value of metadata cannot be judged.
MAX_VALUE: Final = 4096

_METADATA, _TIME, _METHOD = "metadata", "time", "method"
_NAMES: Final = frozenset({"source", "destination", _METHOD})
_INDEX, _IN = "_[_]", "@in"
_EQUALITY: Final = frozenset({"_==_", "_!=_", _IN})
_COMPARED: Final = _EQUALITY | {"startsWith", "endsWith", "contains"}
_REFUSED_KINDS: Final = {
    "comprehension_expr": "loops (all, exists, map, filter) are not supported: write each case out",
    "struct_expr": "maps and messages are not supported: use lists and comparisons",
}
_TEXT: Final = re.compile(r"[\n\t -~]+")
_CEL_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")


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
    #: Whether it looks at the time.
    timed: bool = field(compare=False)
    _program: _Program = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read an expression; raise ``ValueError`` with what is wrong."""
        return _parse(text)

    @property
    def lasting(self) -> bool:
        """Whether it says the same of every call of a source to a method."""
        return not self.keys and not self.timed

    def holds(self, call: Call) -> bool | None:
        """Judge a call; ``None`` if that cannot be done."""
        data: dict[str, object] = {
            "source": call.source,
            "destination": call.destination,
            _METHOD: call.method,
        }
        if self.keys:
            values = _single_values(self.keys, call.entries)
            if values is None:
                return None
            data[_METADATA] = values
        if self.timed:
            if call.now_ms is None:
                return None
            data[_TIME] = Timestamp(seconds=call.now_ms // 1000, nanos=call.now_ms % 1000 * 1_000_000)
        try:
            value = self._program.eval(data=data).value()
        except RuntimeError:
            return None  # a text that is none, which the transport should not have passed
        # What went wrong within CEL is a value as well, and no truth value.
        return value if isinstance(value, bool) else None


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
        found = _CEL_ERROR.search(str(error))
        where = f"line {found[1]} column {found[2]}: {found[3]:.200}" if found else "nested too deeply"
        msg = f"not a condition of CEL: {where}"
        raise ValueError(msg) from None
    kind = program.return_type().name()
    if kind != "BOOL":
        msg = f"gives {kind.lower()}: a condition has to be true or false"
        raise ValueError(msg)
    packed = PackedCondition.FromString(program.serialize())
    read = _Reading()
    read.expression(CheckedCondition.FromString(packed.value).expr)
    return Condition(text, tuple(sorted(read.keys)), tuple(sorted(read.services)), read.timed, program)


class _Reading:
    """Walks through an expression, refuses what is not taken, and notes what it looks at."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.services: set[str] = set()
        self.timed = False

    def expression(self, root: ConditionExpr) -> None:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            kind = node.WhichOneof("kind")
            if kind in _REFUSED_KINDS:
                raise ValueError(_REFUSED_KINDS[kind])
            if kind == "call_expr":
                waiting.extend(self._call(node))
            elif kind == "select_expr":
                waiting.extend(self._select(node))
            elif kind == "list_expr":
                waiting.extend(node.list_expr.elements)
            elif kind == "ident_expr":
                self._ident(node.ident_expr.name)
            elif not node.const_expr.string_value.isascii():
                msg = f"{node.const_expr.string_value!a:.80} is not ascii, and no name is like it"
                raise ValueError(msg)

    def _ident(self, name: str) -> None:
        if name == _METADATA:
            msg = 'write out which key of the metadata: metadata["x-tenant"], "x-tenant" in metadata'
            raise ValueError(msg)
        self.timed |= name == _TIME

    def _select(self, node: ConditionExpr) -> Sequence[ConditionExpr]:
        operand = node.select_expr.operand
        if not _is(operand, _METADATA):
            return [operand]
        self.keys.add(checked_key(node.select_expr.field))
        return []

    def _call(self, node: ConditionExpr) -> Sequence[ConditionExpr]:
        call = node.call_expr
        if call.function == "matches":
            msg = "regular expressions are not supported: use ==, in, startsWith, endsWith or contains"
            raise ValueError(msg)
        if call.function == "contains" and not call.args[0].const_expr.HasField("string_value"):
            msg = "contains needs a text that is written out: its cost would be the caller's to choose"
            raise ValueError(msg)
        operands = [*([call.target] if call.HasField("target") else []), *call.args]
        keyed = {_INDEX: operands, _IN: operands[::-1]}.get(call.function, [])
        if keyed and _is(keyed[0], _METADATA) and keyed[1].const_expr.HasField("string_value"):
            self.keys.add(checked_key(keyed[1].const_expr.string_value))
            return []
        names = [operand.ident_expr.name for operand in operands if operand.ident_expr.name in _NAMES]
        for literal in _literals(operands):
            for name in names:
                self._compared(name, call.function, literal)
        return operands

    def _compared(self, name: str, function: str, literal: str) -> None:
        if function in _COMPARED and ANY in literal:
            msg = (
                f"{literal!r:.80} has a star, which is no wildcard here: use startsWith, endsWith or contains"
            )
            raise ValueError(msg)
        if function not in _EQUALITY:
            return
        if name == _METHOD:
            FullMethod(literal)
        else:
            self.services.add(ServiceName(literal).text)


def _is(node: ConditionExpr, name: str) -> bool:
    return node.ident_expr.name == name


def _literals(operands: Iterable[ConditionExpr]) -> Iterator[str]:
    for operand in operands:
        for node in (operand, *operand.list_expr.elements):
            if node.const_expr.HasField("string_value"):
                yield node.const_expr.string_value


@cache
def _env() -> _Env:
    # Not at the head: it takes 70 ms and 20 MB, and few processes ever judge a condition.
    from cel_expr_python import cel  # noqa: PLC0415

    text = cel.Type.STRING
    kinds = dict.fromkeys(("source", "destination", _METHOD), text)
    kinds |= {_METADATA: cel.Type.Map(text, text), _TIME: cel.Type.TIMESTAMP}
    env: _Env = cel.NewEnv(variables=kinds)
    return env
