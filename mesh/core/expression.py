"""What an expression looks at, found by walking through it, and what is refused in one.

``condition`` says which language this is and judges calls; here nothing is judged. What a walk leaves behind
is what rules, nodes and tools have to know of a condition without judging it: the metadata keys and services
that it names, and when the time may change what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.core.names import FullMethod, ServiceName
from mesh.core.patterns import ANY, checked_key
from mesh.v1.condition_pb2 import ConditionExpr

METADATA, TIME, METHOD = "metadata", "time", "method"
_NAMES: Final = frozenset({"source", "destination", METHOD})
_INDEX, _IN = "_[_]", "@in"
_EQUALITY: Final = frozenset({"_==_", "_!=_", _IN})
_COMPARED: Final = _EQUALITY | {"startsWith", "endsWith", "contains"}
_ORDERED: Final = frozenset({"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"})
_BY_THE_MINUTE: Final = frozenset(
    f"get{part}"
    for part in ["FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes"]
)
#: What begins like this is a part of a time; its argument, if there is one, is a time zone.
_PART_OF_TIME: Final = "get"
#: A fixed offset, or a name of the tz database (https://www.iana.org/time-zones): area, and places in it.
_ZONE: Final = re.compile(
    r"[+-]?(?:0\d|1[0-4]):[0-5]\d|[A-Z][A-Za-z0-9_+-]{1,31}(?:/[A-Z][A-Za-z0-9_+-]{1,31}){0,2}"
)
_REFUSED_KINDS: Final = {
    "comprehension_expr": "loops (all, exists, map, filter) are not supported: write each case out",
    "struct_expr": "maps and messages are not supported: use lists and comparisons",
}


class Reading:
    """Walks through an expression, refuses what is not taken, and notes what it looks at.

    ``turns`` are the times that it compares with, in Unix milliseconds; ``unsteady`` counts the uses of the
    time that may change their value at others, but for full minutes.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.keys: set[str] = set()
        self.services: set[str] = set()
        self.zones: set[str] = set()
        self.names: set[str] = set()
        self.timed = False
        self.turns: set[int] = set()
        self.unsteady = 0

    def expression(self, root: ConditionExpr) -> None:
        """Walk through a typed expression; raise ``ValueError`` for what is refused."""
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
        if name == METADATA:
            msg = 'write out which key of the metadata: metadata["x-tenant"], "x-tenant" in metadata'
            raise ValueError(msg)
        self.names |= {name} & _NAMES
        self.timed |= name == TIME
        self.unsteady += name == TIME

    def _select(self, node: ConditionExpr) -> Sequence[ConditionExpr]:
        operand = node.select_expr.operand
        if not _is(operand, METADATA):
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
        if call.function.startswith(_PART_OF_TIME):
            self.zones.update(map(_zone, call.args))
        operands = [*([call.target] if call.HasField("target") else []), *call.args]
        if any(_is(operand, TIME) for operand in operands) and self._steady(call.function, operands):
            self.unsteady -= 1
        keyed = {_INDEX: operands, _IN: operands[::-1]}.get(call.function, [])
        if keyed and _is(keyed[0], METADATA) and keyed[1].const_expr.HasField("string_value"):
            self.keys.add(checked_key(keyed[1].const_expr.string_value))
            return []
        names = [operand.ident_expr.name for operand in operands if operand.ident_expr.name in _NAMES]
        for literal in _literals(operands):
            for name in names:
                self._compared(name, call.function, literal)
        return operands

    def _steady(self, function: str, operands: Sequence[ConditionExpr]) -> bool:
        # Offsets of time zones are whole minutes (and were from 1972 on), so these change with a minute.
        if function in _BY_THE_MINUTE:
            return True
        literals = [node.call_expr for node in operands if node.call_expr.function == "timestamp"]
        if function not in _ORDERED or len(literals) != 1:
            return False
        try:
            self.turns.add(instant_ms(literals[0].args[0].const_expr.string_value))
        except ValueError:
            return False
        return True

    def _compared(self, name: str, function: str, literal: str) -> None:
        if function in _COMPARED and ANY in literal:
            msg = (
                f"{literal!r:.80} has a star, which is no wildcard here: use startsWith, endsWith or contains"
            )
            raise ValueError(msg)
        if function not in _EQUALITY:
            return
        if name == METHOD:
            FullMethod(literal)
        else:
            self.services.add(ServiceName(literal).text)


def _zone(node: ConditionExpr) -> str:
    # CEL opens what it is given here as a file, and keeps it: so only what the policy says, and no path.
    zone = node.const_expr.string_value
    if not _ZONE.fullmatch(zone):
        said = f"{zone!a:.80} is none: " if zone else ""
        msg = f'{said}write the time zone out, as "Europe/Berlin", "UTC" or "+02:00"'
        raise ValueError(msg)
    return zone


def _is(node: ConditionExpr, name: str) -> bool:
    return node.ident_expr.name == name


def _literals(operands: Iterable[ConditionExpr]) -> Iterator[str]:
    for operand in operands:
        for node in (operand, *operand.list_expr.elements):
            if node.const_expr.HasField("string_value"):
                yield node.const_expr.string_value


def instant_ms(text: str) -> int:
    """Read a time of RFC 3339 with its zone, as Unix milliseconds; raise ``ValueError``."""
    read = Timestamp()
    try:
        read.FromJsonString(text)
    except (ValueError, OverflowError):
        msg = f"bad time {text!a:.80}: use one with its zone, such as 2027-01-04T12:00:00Z"
        raise ValueError(msg) from None
    return read.ToMilliseconds()
