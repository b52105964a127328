"""The chain that entries of the audit log hang on, with a key that only goes forward.

    A        32 random bytes, the audit key: the verifier's alone, kept away from who writes
    S(0)   = HKDF-Expand(A,      "mesh/v1/audit/log" lp(name of the log))
    S(j+1) = HKDF-Expand(S(j),   "mesh/v1/audit/segment")
    K(j,0) = HKDF-Expand(S(j),   "mesh/v1/audit/first")
    K', M  = HKDF-Expand(K(j,i), "mesh/v1/audit/step"), 64 bytes, split: K' = K(j,i+1)

    mac    = HMAC(M, "mesh/v1/audit/entry" lp(log) segment-as-8-bytes sequence-as-8-bytes mac-before lp(body))
    line   = mac as 64 hex digits | blank | body (``audit``), JSON of one line | line feed

Whoever writes holds ``K(j,i)`` and ``S(j+1)`` and destroys what came before each: with what he holds no mac
of the past can be made or made again, nor can its order be changed (Schneier and Kelsey, "Secure audit logs
to support computer forensics", 1999; Bellare and Yee, "Forward-security in private-key cryptography", 2003).
The step per segment lets a verifier begin at any segment without walking through all entries before it.

A log is a row of segments, numbered from 0. The first line of each begins it, and names the mac before. The
``Head`` is what has to be kept outside the log, so that its end cannot be cut off: see ``examine``.

Values in, values out: ``extend`` says what is to be written where, and gives the chain as it is then. Until
that is done and remembered, the old chain is the one in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Self

from mesh.core.audit import MAX_BODY, Entry, Kind, decode
from mesh.core.keys import KEY_BYTES, MAC_BYTES, Key, expand, lp

_LOG: Final = b"mesh/v1/audit/log"
_SEGMENT: Final = b"mesh/v1/audit/segment"
_FIRST: Final = b"mesh/v1/audit/first"
_STEP: Final = b"mesh/v1/audit/step"
_ENTRY: Final = b"mesh/v1/audit/entry"

#: What is in the place of the mac before the very first entry.
NOTHING: Final = bytes(MAC_BYTES)
BEGUN: Final = "segment begun"
#: What the first entry says that a log goes on with after it was put back from a backup.
RESTORED: Final = "restored from a backup"
#: The entry that says that somebody changed what had been written.
DAMAGED: Final = "log damaged"
_MAC: Final = re.compile(rb"[0-9a-f]{64}")
_SIZE_BYTES: Final = 8
#: Full ones are a few; this many are kept only where the newest was spoilt again and again.
MOST_SEGMENTS: Final = 1024
MAX_LINE: Final = 2 * MAC_BYTES + 1 + MAX_BODY


class BadLineError(ValueError):
    """A line that is no entry."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands, nothing verified."""

    mac: bytes
    body: bytes
    sequence: int
    entry: Entry

    @classmethod
    def parse(cls, line: bytes) -> Line:
        """Read a line without its line feed; raise ``BadLineError``."""
        mac, blank, body = line.partition(b" ")
        if not blank or not _MAC.fullmatch(mac):
            raise BadLineError("no mac")
        try:
            sequence, entry = decode(body)
        except ValueError as error:
            raise BadLineError(str(error)) from None
        return cls(bytes.fromhex(mac.decode()), body, sequence, entry)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log begins and ends. ``sequence`` is the next entry's, ``size`` that of the newest segment."""

    log: str
    first_segment: int = 0
    segment: int = 0
    sequence: int = 0
    size: int = 0
    mac: bytes = NOTHING
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are to stand in a segment at an offset."""

    segment: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """When a segment is full, in bytes, and how many full ones are kept, the newest included."""

    segment_bytes: int = 8 * 1024 * 1024
    segments: int = 8

    @property
    def closed_bytes(self) -> int:
        """The bytes that all segments but the newest may take."""
        return self.segment_bytes * (self.segments - 1)


def segment_key(root: Key, log: str, segment: int) -> Key:
    """S(segment) from the audit key."""
    key = Key(expand(root, _LOG + lp(log.encode())))
    for _ in range(segment):
        key = after_segment(key)
    return key


def after_segment(key: Key) -> Key:
    """S(j+1) from S(j)."""
    return Key(expand(key, _SEGMENT))


def first_key(segment: Key) -> Key:
    """K(j,0) from S(j)."""
    return Key(expand(segment, _FIRST))


def step(key: Key) -> tuple[Key, Key]:
    """K(j,i+1), and the key of the mac of entry i."""
    both = expand(key, _STEP, 2 * KEY_BYTES)
    return Key(both[:KEY_BYTES]), Key(both[KEY_BYTES:])


def covered(head: Head, body: bytes) -> bytes:
    """Give what the mac of the next entry after a head covers."""
    place = head.segment.to_bytes(8, "big") + head.sequence.to_bytes(8, "big")
    return _ENTRY + lp(head.log.encode()) + place + head.mac + lp(body)


@dataclass(frozen=True, slots=True)
class Chain:
    """The end of a log, with the keys to go on from it."""

    head: Head
    key: Key = field(repr=False)
    next_segment: Key = field(repr=False)
    #: What each segment before the newest takes of what may be kept.
    closed: tuple[int, ...] = ()

    @classmethod
    def start(cls, log: str, root: Key) -> Self:
        """Give the chain of a log that holds nothing yet."""
        own = segment_key(root, log, 0)
        return cls(Head(log), first_key(own), after_segment(own))

    @classmethod
    def restore(cls, head: Head, secret: bytes) -> Self:
        """Take up a chain again from its head and ``secret``; raise ``ValueError`` for a bad length."""
        keys, closed = secret[: 2 * KEY_BYTES], secret[2 * KEY_BYTES :]
        if len(closed) != _SIZE_BYTES * (head.segment - head.first_segment):
            raise ValueError("not the sizes of the segments that are kept")
        sizes = (closed[at : at + _SIZE_BYTES] for at in range(0, len(closed), _SIZE_BYTES))
        return cls(
            head,
            Key(keys[:KEY_BYTES]),
            Key(keys[KEY_BYTES:]),
            tuple(int.from_bytes(size, "big") for size in sizes),
        )

    @property
    def secret(self) -> bytes:
        """The keys and sizes as bytes, to be sealed."""
        sizes = b"".join(size.to_bytes(_SIZE_BYTES, "big") for size in self.closed)
        return self.key.reveal() + self.next_segment.reveal() + sizes

    def extend(self, entries: Iterable[Entry], limits: Limits) -> tuple[list[Piece], Chain]:
        """Append entries: what is to be written, in order, and the chain after it."""
        chain, pieces = self, list[Piece]()
        for entry in entries:
            size = chain.head.size
            if size and size + line_bytes(entry.encode(chain.head.sequence)) > limits.segment_bytes:
                chain = chain.rotated(limits)
            if chain.head.size == 0:
                before = chain.head.mac.hex()
                pieces, chain = chain.append(pieces, Entry(entry.at_ms, Kind.LOG, BEGUN, detail=before))
            pieces, chain = chain.append(pieces, entry)
        return pieces, chain

    def rotated(self, limits: Limits, *, full: bool = True) -> Chain:
        """Leave the newest segment as it is, and go on in the next, still empty.

        The oldest go that are more than may be kept. One that is left early takes no more than what stands in
        it: who can spoil the newest would otherwise have all others retired.
        """
        segment = self.head.segment + 1
        closed = [*self.closed, limits.segment_bytes if full else self.head.size]
        while closed and (sum(closed) > limits.closed_bytes or len(closed) >= MOST_SEGMENTS):
            del closed[0]
        head = replace(self.head, first_segment=segment - len(closed), segment=segment, size=0)
        return Chain(head, first_key(self.next_segment), after_segment(self.next_segment), tuple(closed))

    def adopt(self, tail: bytes) -> tuple[Chain, int]:
        """Follow what stands behind the head, as far as it is whole and genuine; give the chain there.

        And how many bytes at the end are neither: a line cut short by a crash, or not ours.
        """
        chain = self
        while True:
            line, end, rest = tail.partition(b"\n")
            after = chain.follow(line) if end else None
            if after is None:
                return chain, len(tail)
            chain, tail = after, rest

    def follow(self, line: bytes) -> Chain | None:
        """Give the chain after a line, without its line feed; ``None`` if that is not the next entry."""
        try:
            parsed = Line.parse(line)
        except BadLineError:
            return None
        after, mac_key = step(self.key)
        if parsed.sequence != self.head.sequence or not mac_key.verify(
            parsed.mac, covered(self.head, parsed.body)
        ):
            return None
        return self._on(parsed.mac, len(line) + 1, parsed.entry.at_ms, after)

    def append(self, pieces: list[Piece], entry: Entry) -> tuple[list[Piece], Chain]:
        """Append one line to the newest segment, and to what is to be written; ``extend`` is for entries."""
        head, body = self.head, entry.encode(self.head.sequence)
        after, mac_key = step(self.key)
        mac = mac_key.mac(covered(head, body))
        line = b"%s %s\n" % (mac.hex().encode(), body)
        if pieces and pieces[-1].segment == head.segment:
            grown = replace(pieces[-1], data=pieces[-1].data + line)
            pieces = [*pieces[:-1], grown]
        else:
            pieces = [*pieces, Piece(head.segment, head.size, line)]
        return pieces, self._on(mac, len(line), entry.at_ms, after)

    def _on(self, mac: bytes, size: int, at_ms: int, key: Key) -> Chain:
        head = self.head
        after = replace(
            head,
            sequence=head.sequence + 1,
            size=head.size + size,
            mac=mac,
            at_ms=max(head.at_ms, at_ms),
        )
        return replace(self, head=after, key=key)


def line_bytes(body: bytes) -> int:
    """Give the bytes of the line of a body."""
    return 2 * MAC_BYTES + 1 + len(body) + 1
