"""What was seen of calls, one line of JSON each: what the mesh records, and what anybody can write.

    {"source": "acme", "destination": "orders", "method": "/shop.v1.Orders/Get",
     "first": "2027-01-04T12:00:00Z", "last": "2027-01-04T12:00:59Z", "count": 12,
     "verdict": "audit", "rule": "partners", "by": "try-without-acme", "policy": 4,
     "metadata": {"x-tenant": ["beta"], "x-from": []}}

    {"destination": "orders", "unrecorded": 3, "first": ..., "last": ...}

    first, last   or ``time`` for both: RFC 3339, or whole Unix milliseconds, not seconds
    count         calls that were alike; 1 unless said
    verdict       allow, deny or audit; with ``rule``, which gave it, and ``by``, which denies but for audit
    policy        the version that gave it
    metadata      for each key that was looked for, the texts that came: none for ``[]``

A key that is not among ``metadata`` was not recorded, which is not the same as not sent. The other kind of
line counts calls of which no more is known. Whether a line is true is for those to say who wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from mesh.core import document
from mesh.core.document import Node, PolicyError
from mesh.core.expression import instant_ms
from mesh.core.metadata import Entries, checked_entries
from mesh.core.names import FullMethod, ServiceName, full_method, service_name
from mesh.core.patterns import checked_key
from mesh.core.policy import MAX_VERSION, OWN
from mesh.core.rules import checked_name

ALLOW, DENY, AUDIT = "allow", "deny", "audit"
VERDICTS: Final = (ALLOW, DENY, AUDIT)
#: Longer lines are not read.
MAX_LINE: Final = 64 * 1024
MAX_COUNT: Final = 2**53
#: The end of the year 9999, where times end for those who show them.
MAX_TIME: Final = 253_402_300_799_999

#: From here on, up to a hundred times that, a number is the seconds of a time from 1973 to 2286, and hardly
#: the milliseconds of one in the first months of 1970.
_SECONDS: Final = 100_000_000

_AT: Final = "call"
_REQUIRED: Final = ("source", "destination", "method")
_TIMES: Final = ("time", "first", "last")
_OPTIONAL: Final = (*_TIMES, "count", "verdict", "rule", "by", "policy", "metadata")

#: Keys in their order, each with the values that came.
Metadata: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """Calls that were alike. ``verdict`` is empty, and ``rule`` and ``by`` ``None``, where not known."""

    source: str
    destination: str
    method: str
    first_ms: int
    last_ms: int
    count: int = 1
    verdict: str = ""
    rule: str | None = None
    by: str | None = None
    policy: int = 0
    metadata: Metadata = ()

    @property
    def entries(self) -> Entries:
        """The metadata as the calls had it, as far as it was recorded."""
        return tuple((key, value) for key, values in self.metadata for value in values)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that were recorded, sent or not."""
        return tuple(key for key, _ in self.metadata)

    def encode(self) -> str:
        """Give the line, without its end: ``parse`` gives an equal observation back, if it is not of 1970."""
        data: dict[str, object] = {
            "source": self.source,
            "destination": self.destination,
            "method": self.method,
            "first": self.first_ms,
            "last": self.last_ms,
            "count": self.count,
        }
        for name in ("verdict", "rule", "by", "policy"):
            if value := getattr(self, name):
                data[name] = value
        if self.metadata:
            data["metadata"] = dict(self.metadata)
        return json.dumps(data)


@dataclass(frozen=True, slots=True)
class Gap:
    """Calls to a service that were counted, and not recorded."""

    destination: str
    first_ms: int
    last_ms: int
    count: int

    def encode(self) -> str:
        """Give the line, without its end."""
        data = {"destination": self.destination, "unrecorded": self.count}
        return json.dumps(data | {"first": self.first_ms, "last": self.last_ms})


Seen: TypeAlias = Observation | Gap
_Seen = TypeVar("_Seen", bound=Seen)


def parse(line: bytes) -> Seen:
    """Read a line; raise ``PolicyError`` with the field and what is wrong."""
    if len(line) > MAX_LINE:
        raise PolicyError(_AT, f"longer than {MAX_LINE} bytes: write one call on each line")
    node = document.load(_AT, line)
    found = document.members(_AT, node)
    if "unrecorded" in found:
        document.fields(_AT, node, ("destination", "unrecorded"), _TIMES)
        unrecorded = document.count(f"{_AT}.unrecorded", found["unrecorded"], MAX_COUNT)
        return Gap(_destination(found), *_times(found), unrecorded)
    document.fields(_AT, node, _REQUIRED, _OPTIONAL)
    first_ms, last_ms = _times(found)
    verdict, rule, by = _verdict(found)
    return Observation(
        document.checked(f"{_AT}.source", found["source"], _source),
        _destination(found),
        document.checked(f"{_AT}.method", found["method"], FullMethod).text,
        first_ms,
        last_ms,
        document.count(f"{_AT}.count", found.get("count", 1), MAX_COUNT),
        verdict,
        rule,
        by,
        document.count(f"{_AT}.policy", found["policy"], MAX_VERSION) if "policy" in found else 0,
        _metadata(f"{_AT}.metadata", found["metadata"]) if "metadata" in found else (),
    )


def timeless(seen: _Seen) -> _Seen:
    """Give calls without their times, number and version of the policy: equal if they were alike."""
    if isinstance(seen, Observation):
        return replace(seen, first_ms=0, last_ms=0, count=0, policy=0)
    return replace(seen, first_ms=0, last_ms=0, count=0)


def merged(seen: _Seen, more: Seen) -> _Seen:
    """Give the first with the calls of the second added to it; a count that is full stays ``MAX_COUNT``."""
    return replace(
        seen,
        first_ms=min(seen.first_ms, more.first_ms),
        last_ms=max(seen.last_ms, more.last_ms),
        count=min(MAX_COUNT, seen.count + more.count),
    )


def check(seen: Seen) -> None:
    """Raise ``ValueError`` for what ``parse`` would not have given, were it a line."""
    if service_name(seen.destination).reserved:
        raise ValueError("no policy decides about calls to the mesh's own services")
    if not 0 <= seen.first_ms <= seen.last_ms <= MAX_TIME or not 1 <= seen.count <= MAX_COUNT:
        raise ValueError("the times or the count are out of range")
    if isinstance(seen, Gap):
        return
    _source(seen.source)
    full_method(seen.method)
    for name in (seen.rule, seen.by):
        if name is not None:
            checked_name(name)
    if seen.verdict not in ("", *VERDICTS) or (seen.rule and not seen.verdict):
        raise ValueError(f"bad verdict {seen.verdict!a:.80}")
    if (seen.by and seen.verdict != AUDIT) or not 0 <= seen.policy <= MAX_VERSION:
        raise ValueError("the verdict does not fit the rest")
    for key, values in seen.metadata:
        _check_values(key, values)
    if list(seen.keys) != sorted(set(seen.keys)):
        raise ValueError("the keys of the metadata are not in order")


def _check_values(key: str, values: Iterable[str]) -> None:
    checked_key(key)
    checked_entries((key, value) for value in values)


def _source(text: str) -> str:
    if service_name(text).reserved and text not in OWN:
        msg = f"{text!r} is no service: names below mesh are the mesh's own"
        raise ValueError(msg)
    return text


def _destination(found: Mapping[str, Node]) -> str:
    at = f"{_AT}.destination"
    name = document.checked(at, found["destination"], ServiceName)
    if name.reserved:
        raise PolicyError(at, f"no policy decides about calls to {name}, the code does: leave the line out")
    return name.text


def _times(found: Mapping[str, Node]) -> tuple[int, int]:
    if "time" in found:
        if "first" in found or "last" in found:
            raise PolicyError(f"{_AT}.time", "is there beside first or last: use it alone, or both of these")
        return (_time(found, "time"),) * 2
    for name in ("first", "last"):
        if name not in found:
            raise PolicyError(f"{_AT}.{name}", "is missing: add first and last, or time")
    first, last = _time(found, "first"), _time(found, "last")
    if first > last:
        raise PolicyError(f"{_AT}.first", "is later than last: exchange them")
    return first, last


def _time(found: Mapping[str, Node], name: str) -> int:
    at, node = f"{_AT}.{name}", found[name]
    moment = document.checked(at, node, instant_ms) if isinstance(node, str) else node
    # Not isinstance: to Python, true is the number 1.
    if type(moment) is not int:
        raise PolicyError(at, "has to be a time: use RFC 3339, or whole milliseconds since 1970")
    if not 0 <= moment <= MAX_TIME:
        raise PolicyError(at, "has to lie between the years 1970 and 9999")
    if isinstance(node, int) and _SECONDS <= moment < _SECONDS * 100:
        raise PolicyError(at, f"{moment} looks like seconds: use milliseconds since 1970, or RFC 3339")
    return moment


def _verdict(found: Mapping[str, Node]) -> tuple[str, str | None, str | None]:
    verdict = document.checked(f"{_AT}.verdict", found["verdict"], _word) if "verdict" in found else ""
    rule, by = (
        document.checked(f"{_AT}.{name}", found[name], checked_name) if name in found else None
        for name in ("rule", "by")
    )
    if rule and not verdict:
        raise PolicyError(f"{_AT}.rule", "is there without a verdict: add the one that it gave")
    if by and verdict != AUDIT:
        raise PolicyError(f"{_AT}.by", "goes with the verdict audit alone: remove it")
    return verdict, rule, by


def _word(text: str) -> str:
    if text not in VERDICTS:
        msg = f"bad verdict {text!a:.80}: use allow, deny or audit"
        raise ValueError(msg)
    return text


def _metadata(at: str, node: Node) -> Metadata:
    found = []
    for key, values in document.members(at, node).items():
        listed = [values] if isinstance(values, str) else [text for _, text in document.items(at, values)]
        texts = tuple(document.text(at, value) for value in listed)
        try:
            _check_values(key, texts)
        except ValueError as error:
            raise PolicyError(at, str(error), key) from None
        found.append((key, texts))
    return tuple(sorted(found))
