"""What would have become of recorded calls under another policy: exact counts, and a row for each difference.

``retrial`` judges. Here its outcomes are held against the verdicts that were recorded, and calls of whom the
same can be said are put together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from mesh.core.observed import DENY, Gap, Seen, merged, timeless
from mesh.core.policy import Policy
from mesh.core.retrial import UNKNOWN, Outcome, Retrial


class Change(StrEnum):
    """What another policy makes of a call."""

    DENIED = "newly denied"
    UNKNOWN = "cannot be told"
    ALLOWED = "newly allowed"
    AUDIT = "audit changes"
    """Permitted under both, and under one of them only in audit, or perhaps so."""
    JUDGED = "without a verdict before"
    UNCHANGED = "unchanged"


_WORST_FIRST: Final = {change: place for place, change in enumerate(Change)}


@dataclass(frozen=True, slots=True)
class Row:
    """Calls that were alike, whenever it was and under whichever version, and what becomes of them."""

    change: Change
    seen: Seen
    outcome: Outcome


_GAP: Final = Outcome(UNKNOWN, (), "these calls were counted, and not recorded: too many were different")


class Replayed:
    """Takes observations, and tells what changes for them."""

    def __init__(self, policy: Policy) -> None:
        """Take the other policy."""
        self._retrial = Retrial(policy)
        self._rows: dict[Row, Row] = {}
        self._distinct: dict[Change, set[object]] = {change: set() for change in Change}
        self.calls: Counter[Change] = Counter()

    def take(self, seen: Seen) -> None:
        """Judge an observation again."""
        if isinstance(seen, Gap):
            row = Row(Change.UNKNOWN, seen, _GAP)
        else:
            outcome = self._retrial.outcome(seen)
            row = Row(_change(seen.verdict, outcome.word), seen, outcome)
        self.calls[row.change] += seen.count
        self._distinct[row.change].add(_names(seen))
        alike = replace(row, seen=timeless(seen))
        before = self._rows.get(alike)
        self._rows[alike] = replace(row, seen=merged(before.seen, seen)) if before else row

    def distinct(self, change: Change) -> int:
        """Give how many different callers and methods there are among the calls with this change."""
        return len(self._distinct[change])

    def rows(self) -> list[Row]:
        """Give the rows, what is worst first, and by names below that."""
        return sorted(self._rows.values(), key=_place)


def _change(before: str, after: str) -> Change:
    if after == UNKNOWN:
        return Change.UNKNOWN
    if not before:
        return Change.JUDGED
    if before == after:
        return Change.UNCHANGED
    if DENY in (before, after):
        return Change.DENIED if after == DENY else Change.ALLOWED
    return Change.AUDIT


def _names(seen: Seen) -> tuple[str, str, str]:
    if isinstance(seen, Gap):
        return seen.destination, "", ""
    return seen.destination, seen.source, seen.method


def _place(row: Row) -> tuple[object, ...]:
    return _WORST_FIRST[row.change], _names(row.seen), timeless(row.seen).encode(), row.outcome.why
