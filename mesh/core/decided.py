"""What one node decided, counted: alike calls are one observation, and there are never more than a few.

Calls are alike if caller, method, verdict with its rules, version of the policy, and the metadata that this
policy looks at are the same. There are bounds to how many are kept apart, so that no caller can fill what is
kept here by trying methods or values: past a bound calls are counted without their metadata, and past another
one by nothing but their number.

Metadata may hold what is secret. Of the keys that the policy looks at, those that sound like it are not
recorded, nor is a value that is long, or that comes many times.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from mesh.core.errors import Denied
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.core.observed import ALLOW, AUDIT, DENY, Gap, Metadata, Observation
from mesh.core.rules import Section

#: How many different ones are kept: in all, of one caller, and by metadata alone.
MOST: Final = 1024
MOST_OF_CALLER: Final = 256
MOST_BY_METADATA: Final = 32
#: The longest value, how many of one key, and how many keys are recorded.
MAX_VALUE: Final = 128
MAX_VALUES: Final = 4
MAX_KEYS: Final = 16

_SECRET: Final = re.compile(
    r"auth|cookie|credential|jwt|passw|pwd|secret|session|signature|token|bearer"
    r"|(^|[-_.])(api)?key($|[-_.])|(^|[-_.])(otp|pin|sid|sig)($|[-_.])"
)


def recordable(section: Section) -> tuple[str, ...]:
    """Give the metadata keys that rules look at and that sound like no secret, sorted."""
    rules = [rule for _, rule in section.rules("")]
    keys = {header.key for rule in rules for header in rule.headers}
    keys.update(key for rule in rules if rule.when for key in rule.when.keys)
    return tuple(sorted(key for key in keys if not _SECRET.search(key)))[:MAX_KEYS]


def said(verdict: Permit | Denied) -> tuple[str, str | None, str | None]:
    """Give a verdict as observations have it: the word, the rule, and the one that only audit kept away."""
    if isinstance(verdict, Denied):
        return DENY, verdict.rule, None
    if verdict.audited is None:
        return ALLOW, verdict.rule, None
    return AUDIT, verdict.rule or None, verdict.audited.rule


def recorded(keys: Collection[str], entries: Entries) -> Metadata:
    """Give what came under each key, but for keys whose values are not fit to be recorded."""
    found = []
    for key in keys:
        values = tuple([_text(value) for name, value in entries if name == key])
        if len(values) <= MAX_VALUES and all(map(_fit, values)):
            found.append((key, values))
    return tuple(found)


def _text(value: str | bytes) -> str:
    # As the matcher reads what is not text.
    return value if isinstance(value, str) else value.decode("latin-1")


def _fit(value: str) -> bool:
    # As ``metadata`` wants it, at a fraction of the cost: this is in the way of calls.
    return len(value) <= MAX_VALUE and value.isascii() and value.isprintable() and value.strip() == value


#: Caller, method, verdict, its rule, the one that audit kept from denying, version of the policy, metadata.
_Alike: TypeAlias = tuple[str, str, str, str | None, str | None, int, Metadata]


class _Counts:
    """How many, and when."""

    __slots__ = ("count", "first_ms", "last_ms")

    def __init__(self, first_ms: int) -> None:
        self.count, self.first_ms, self.last_ms = 0, first_ms, first_ms

    def add(self, count: int, first_ms: int, last_ms: int) -> None:
        self.count += count
        self.first_ms, self.last_ms = min(self.first_ms, first_ms), max(self.last_ms, last_ms)


class Decided:
    """Counts decisions on calls to one service, until they are taken out."""

    def __init__(self, destination: str) -> None:
        """Begin with nothing."""
        self.destination = destination
        self._counts: dict[_Alike, _Counts] = {}
        self._of_caller: Counter[str] = Counter()
        self._by_metadata: Counter[_Alike] = Counter()
        self._unrecorded: _Counts | None = None

    def __len__(self) -> int:
        """How many different ones are kept."""
        return len(self._counts)

    def note(
        self, source: str, method: str, verdict: Permit | Denied, policy: int, metadata: Metadata, now_ms: int
    ) -> None:
        """Count a call."""
        alike: _Alike = (source, method, *said(verdict), policy, metadata)
        counts = self._counts.get(alike) or self._counted(alike, now_ms)
        counts.count += 1
        if now_ms >= counts.last_ms:
            counts.last_ms = now_ms
        else:
            counts.first_ms = min(counts.first_ms, now_ms)

    def take(self) -> tuple[list[Observation], Gap | None]:
        """Take out all that was counted."""
        found = [_observation(self.destination, alike, counts) for alike, counts in self._counts.items()]
        lost = self._unrecorded
        gap = Gap(self.destination, lost.first_ms, lost.last_ms, lost.count) if lost else None
        self._counts.clear()
        self._of_caller.clear()
        self._by_metadata.clear()
        self._unrecorded = None
        return found, gap

    def give_back(self, seen: Iterable[Observation], gap: Gap | None = None) -> None:
        """Count again what could not be told."""
        for one in seen:
            alike = (one.source, one.method, one.verdict, one.rule, one.by, one.policy, one.metadata)
            self._counted(alike, one.first_ms).add(one.count, one.first_ms, one.last_ms)
        if gap:
            self._lost(gap.first_ms).add(gap.count, gap.first_ms, gap.last_ms)

    def _counted(self, alike: _Alike, now_ms: int) -> _Counts:
        """Give the counts of these calls, of calls alike but for metadata, or of all that is not recorded."""
        bare: _Alike = (*alike[:6], ())
        for wanted in (alike, bare):
            counts = self._counts.get(wanted)
            if counts is not None:
                return counts
            if self._has_room(wanted, bare):
                counts = self._counts[wanted] = _Counts(now_ms)
                self._of_caller[alike[0]] += 1
                self._by_metadata[bare] += 1
                return counts
        return self._lost(now_ms)

    def _has_room(self, wanted: _Alike, bare: _Alike) -> bool:
        return (
            len(self._counts) < MOST
            and self._of_caller[wanted[0]] < MOST_OF_CALLER
            and (wanted == bare or self._by_metadata[bare] < MOST_BY_METADATA)
        )

    def _lost(self, now_ms: int) -> _Counts:
        if self._unrecorded is None:
            self._unrecorded = _Counts(now_ms)
        return self._unrecorded


def _observation(destination: str, alike: _Alike, counts: _Counts) -> Observation:
    source, method, verdict, rule, by, policy, metadata = alike
    times = (counts.first_ms, counts.last_ms)
    return Observation(source, destination, method, *times, counts.count, verdict, rule, by, policy, metadata)
