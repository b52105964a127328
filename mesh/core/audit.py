"""Entries of the audit log: what happened, to whom, by whose word. One line of JSON each.

An entry holds names, ids, times and counts; there is no field for a payload, for metadata or for a secret.
Texts are cut to ``LENGTHS`` when they are written, so no entry outgrows ``MAX_BODY``. How entries are chained
is in ``chain``, how a log is checked in ``examine``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Kind(StrEnum):
    """What an entry is about."""

    DENIAL = "denial"
    """Calls that a node did not let through."""
    AUDIT = "audit"
    """Calls that pass only because the policy is in audit."""
    JOIN = "join"
    """Becoming a member, or trying to."""
    SESSION = "session"
    """An operator's command that begins: it joined with the operator's credential."""
    TAP = "tap"
    """An operator who looks at single calls."""
    TOKEN = "token"  # noqa: S105  a word, not a secret
    """Join tokens."""
    POLICY = "policy"
    """The policy of record."""
    REVOCATION = "revocation"
    """Instances and services that are members no more."""
    KEY = "key"
    """Epochs, and the trust domain itself."""
    LOG = "log"
    """The log about itself: segments, recoveries, damage."""


class Verdict(StrEnum):
    """How it ended."""

    DONE = "done"
    DENIED = "denied"


#: The longest texts of each field, in characters. JSON makes at most twelve bytes of one.
LENGTHS: Final = MappingProxyType(
    {
        "event": 40,
        "service": 125,
        "instance": 32,
        "by": 160,
        "method": 512,
        "rule": 160,
        "call_id": 32,
        "token_id": 16,
        "detail": 200,
    }
)
MAX_BODY: Final = 16_384
_MOST: Final = 2**63 - 1
_SEQUENCE: Final = "seq"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened. Empty fields do not apply."""

    at_ms: int
    kind: Kind
    event: str
    verdict: Verdict = Verdict.DONE
    alarm: bool = False
    #: Whom it is about: the caller, the joiner, whose token it is; its identity was verified if it has an
    #: instance.
    service: str = ""
    instance: str = ""
    #: By whose word or hand: ``service/instance`` of the operator, or of the node that denied.
    by: str = ""
    method: str = ""
    rule: str = ""
    call_id: str = ""
    token_id: str = ""
    detail: str = ""
    #: How many times, and when last, if more than once.
    count: int = 1
    until_ms: int = 0

    def encode(self, sequence: int) -> bytes:
        """Give the body of a line: JSON without what does not apply, in the order of the fields."""
        told: dict[str, object] = {_SEQUENCE: sequence}
        for name, default in _FIELDS.items():
            value = getattr(self, name)
            if value != default:
                told[name] = value[: LENGTHS[name]] if name in LENGTHS else value
        return json.dumps(told, separators=(",", ":")).encode()


#: Each field and what it is if it is left out.
_FIELDS: Final = MappingProxyType({field.name: field.default for field in fields(Entry)})


def decode(body: bytes) -> tuple[int, Entry]:
    """Read the body of a line: its sequence number and the entry. Raises ``ValueError``."""
    if len(body) > MAX_BODY:
        raise ValueError("too long for an entry")
    try:
        told = json.loads(body, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("not an entry") from None
    if not isinstance(told, dict) or not told.keys() <= _FIELDS.keys() | {_SEQUENCE}:
        raise ValueError("not an entry")
    return _count(told.get(_SEQUENCE)), Entry(
        at_ms=_count(told.get("at_ms")),
        kind=Kind(_text(told.get("kind"))),
        event=_text(told.get("event")),
        verdict=Verdict(_text(told.get("verdict", Verdict.DONE))),
        alarm=_flag(told.get("alarm", False)),
        service=_text(told.get("service", "")),
        instance=_text(told.get("instance", "")),
        by=_text(told.get("by", "")),
        method=_text(told.get("method", "")),
        rule=_text(told.get("rule", "")),
        call_id=_text(told.get("call_id", "")),
        token_id=_text(told.get("token_id", "")),
        detail=_text(told.get("detail", "")),
        count=_count(told.get("count", 1)),
        until_ms=_count(told.get("until_ms", 0)),
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("not a text")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("not true or false")


def _count(value: object) -> int:
    if type(value) is int and 0 <= value <= _MOST:
        return value
    raise ValueError("not a number from 0 to 2^63 - 1")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a field comes twice")
    return dict(pairs)
