"""Is an audit log whole? Its lines against the audit key, and its ends against the head kept outside it.

    every line      is the next entry of the chain: an edit, an insertion, a swap, a deletion is seen there
    the first one   begins the oldest segment that is kept, or the log
    at the head     stands the entry whose mac the head holds: a cut end, an older copy is seen there
    behind it       may stand whole entries that were written when a crash came before the head was kept,
                    and one that was cut short: neither was answered for, so neither is damage

The first entry that is not as it was written is named, and nothing behind it is believed. What is not told
apart: one who holds the key of the present (from the writer's memory, or its store and KEK) can write on as
the writer; and if log and head are both put back to an older state, only a head noted elsewhere shows it
(``after``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mesh.core.chain import (
    BEGUN,
    DAMAGED,
    RESTORED,
    BadLineError,
    Chain,
    Head,
    Line,
    after_segment,
    first_key,
    segment_key,
)
from mesh.core.keys import MAC_BYTES, Key


class Fault(StrEnum):
    """What is wrong with the first bad entry."""

    CHANGED = "changed"
    """It stands in its place and is not what was written, or the key is not this log's."""
    MISSING = "missing"
    """A later one stands in its place: it was deleted, or moved."""
    REPEATED = "out of place"
    """In its place stands one from before it."""
    GARBLED = "no entry"
    """In its place stands something that is no entry at all."""
    CUT = "cut off"
    """The log ends before it, and the head says that it was written."""
    FORGED = "forged"
    """It stands behind the end of the log, and nobody who may wrote it."""
    OLDER = "of another past"
    """The head, or one seen before, does not lie on this chain: log or head was put back or replaced."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The first bad entry: its number, and the line (from 1) of its segment where it should stand."""

    sequence: int
    segment: int
    line: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found. ``entries`` were verified, ``ahead`` of them behind the head; ``torn`` bytes follow.

    ``restored``: the genuine entry, the last of its kind, that says that the log was put back from a backup.
    ``damaged``: the first genuine one, of those not seen before, that says that somebody changed the log.
    ``gone``: the first and last entry between what was seen before and what is kept: unverified.
    """

    entries: int
    ahead: int
    torn: int
    bad: Finding | None
    restored: int | None = None
    damaged: int | None = None
    gone: tuple[int, int] | None = None

    @property
    def sound(self) -> bool:
        """Whether all of it is as it was written, and nothing went unseen."""
        return self.bad is None and self.damaged is None and self.gone is None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on a chain that was seen before: how many entries there were, and the last one's mac."""

    sequence: int
    mac: bytes


class _Found(Exception):
    def __init__(self, finding: Finding) -> None:
        self.finding = finding


def examine(head: Head, root: Key, segments: Mapping[int, bytes], after: Iterable[Mark] = ()) -> Examination:
    """Check the segments of a log, by number, against its head and the audit key.

    ``after``: marks that this log must have passed through, where it still holds the entries around them.
    """
    walk = _Walk(head, root, after)
    try:
        for number in range(head.first_segment, head.segment + 1):
            walk.segment(number, segments.get(number, b""))
        walk.beyond(segments.get(head.segment + 1, b""))
        walk.end()
    except _Found as found:
        return walk.found(0, found.finding)
    return walk.found(walk.torn, None)


class _Walk:
    """Along the lines of a log, with the chain as it was when each was written."""

    def __init__(self, head: Head, root: Key, after: Iterable[Mark]) -> None:
        self._head, self._marks = head, {(mark.sequence, mark.mac) for mark in after}
        self._key = segment_key(root, head.log, head.first_segment)
        self._chain = Chain(Head(head.log, segment=head.first_segment), self._key, self._key)
        self._knows_before = head.first_segment == 0
        self._line = 0
        self._seen = max((sequence for sequence, _ in self._marks), default=None)
        self._restored: int | None = None
        self._damaged: int | None = None
        self._gone: tuple[int, int] | None = None
        self.entries = self.ahead = self.torn = 0

    def segment(self, number: int, data: bytes) -> None:
        """Check a segment that the head says is there, whole up to where the head says."""
        self._begin(number)
        last, at = number == self._head.segment, 0
        while at < len(data) and not (last and self._chain.head.size >= self._head.size):
            end = data.find(b"\n", at)
            if end < 0:
                raise self._found(Fault.CUT if last else Fault.GARBLED)
            self._take(data[at:end])
            at = end + 1
        if last:
            self._at_head()
            self._behind(data[at:])
        elif self._line == 0:
            raise self._found(Fault.MISSING)

    def beyond(self, data: bytes) -> None:
        """Look at a segment that was begun when the head was not yet kept."""
        if data and not self.torn:
            self._begin(self._head.segment + 1)
            self._behind(data)

    def end(self) -> None:
        """Look whether the log goes at least as far as it did before."""
        if (self._seen or 0) > self._chain.head.sequence:
            raise self._found(Fault.OLDER)

    def found(self, torn: int, bad: Finding | None) -> Examination:
        """Give what was found so far."""
        return Examination(self.entries, self.ahead, torn, bad, self._restored, self._damaged, self._gone)

    def _begin(self, number: int) -> None:
        if number != self._chain.head.segment:
            self._key = after_segment(self._key)
        before = self._chain.head
        head = Head(before.log, 0, number, before.sequence, 0, before.mac, before.at_ms)
        self._chain = Chain(head, first_key(self._key), self._key)
        self._line = 0

    def _take(self, line: bytes) -> None:
        try:
            parsed = Line.parse(line)
        except BadLineError:
            raise self._found(Fault.GARBLED) from None
        if self._line == 0:
            self._open(parsed)
        at = self._chain.head.sequence
        if parsed.sequence != at:
            raise self._found(Fault.MISSING if parsed.sequence > at else Fault.REPEATED)
        followed = self._chain.follow(line)
        if followed is None:
            raise self._found(Fault.CHANGED)
        if self._line == 0 and parsed.entry.event != BEGUN:
            raise self._found(Fault.CHANGED)
        self._go(followed, parsed.entry.event)

    def _go(self, to: Chain, event: str) -> None:
        at = self._chain.head.sequence
        if event == RESTORED:
            self._restored = at
        if event == DAMAGED and self._damaged is None and at >= (self._seen or 0):
            self._damaged = at
        self._chain = to
        self._line += 1
        self.entries += 1
        self._marked()

    def _open(self, first: Line) -> None:
        # Of the oldest segment that is kept, the key and the anchored end have to vouch for where it begins.
        if self._knows_before:
            return
        before = first.entry.detail
        try:
            mac = bytes.fromhex(before)
        except ValueError:
            mac = b""
        if len(mac) != MAC_BYTES:
            raise self._found(Fault.CHANGED)
        head = self._chain.head
        self._chain = Chain(
            Head(head.log, 0, head.segment, first.sequence, 0, mac), self._chain.key, self._chain.next_segment
        )
        self._knows_before = True
        self._marked()
        if self._seen is not None and self._seen < first.sequence:
            self._gone = self._seen, first.sequence - 1

    def _at_head(self) -> None:
        reached, head = self._chain.head, self._head
        if reached.size < head.size or reached.sequence < head.sequence:
            raise self._found(Fault.CUT)
        if (reached.size, reached.sequence, reached.mac) != (head.size, head.sequence, head.mac):
            raise self._found(Fault.OLDER)

    def _behind(self, rest: bytes) -> None:
        at = 0
        while (end := rest.find(b"\n", at)) >= 0:
            followed = self._chain.follow(rest[at:end])
            if followed is None:
                break
            self._go(followed, Line.parse(rest[at:end]).entry.event)
            self.ahead += 1
            at = end + 1
        rest = rest[at:]
        self.torn = len(rest)
        # A crash leaves the beginning of a line, or room that was never filled; never a whole line that is
        # wrong.
        if b"\n" in rest:
            raise self._found(Fault.FORGED)

    def _marked(self) -> None:
        reached = self._chain.head
        if any(at == reached.sequence and mac != reached.mac for at, mac in self._marks):
            raise self._found(Fault.OLDER)

    def _found(self, fault: Fault) -> _Found:
        head = self._chain.head
        sequence = head.sequence - 1 if fault is Fault.OLDER and head.sequence else head.sequence
        return _Found(Finding(sequence, head.segment, self._line + 1, fault))


def latest(head: Head) -> Mark:
    """Give the mark to remember of a log that was found whole."""
    return Mark(head.sequence, head.mac)
