"""One session, and one call in it: sealing and opening of header, frames and end.

``lp``, keys and labels are those of ``keys``; ``call-mac`` names the call in everything that follows it::

    call-mac = HMAC(Kreq, "mesh/v1/call"    lp(header))
    frame    = HMAC(K,    "mesh/v1/frame"   call-mac direction index flags lp(payload))
    initial  = HMAC(Krep, "mesh/v1/initial" call-mac digest)
    end      = HMAC(Krep, "mesh/v1/end"     call-mac count code lp(message) initial-digest trailing-digest)
    refusal  = HMAC(Krep, "mesh/v1/refusal" lp(call-mac))

direction is 1 byte, index and count 8, flags 1, code 4, all big-endian. K is Kreq for direction 0 and Krep
for direction 1. Openers raise ``PeerError`` and are then dead: nothing passes after one bad frame.

What this leaves to others: whether a call may be opened at all (``receiver``), and metadata (``metadata``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import Key, lp, session_keys
from mesh.core.names import InstanceId
from mesh.core.wire import EMPTY, END, CallHeader, decode_frame, encode_call, encode_frame

REQUEST: Final = b"\0"
REPLY: Final = b"\1"

_CALL: Final = b"mesh/v1/call"
_FRAME: Final = b"mesh/v1/frame"
_INITIAL: Final = b"mesh/v1/initial"
_END: Final = b"mesh/v1/end"
_REFUSAL: Final = b"mesh/v1/refusal"


@dataclass(frozen=True, slots=True)
class Session:
    """The two keys between a source instance and a destination instance in one epoch."""

    request_key: Key
    reply_key: Key

    @classmethod
    def derive(cls, pair: Key, source: InstanceId, destination: InstanceId) -> Self:
        """Derive both keys from the pair key."""
        return cls(*session_keys(pair, source, destination))

    def seal(self, header: CallHeader) -> tuple[bytes, CallSeal]:
        """Seal a header: the value of ``mesh-call-bin``, and the seal of that call for all that follows."""
        encoded = header.encode()
        mac = self.request_key.mac(*call_covers(encoded))
        return encode_call(mac, encoded), CallSeal(self, mac)

    def open(self, mac: bytes, header: bytes) -> CallSeal:
        """Verify the mac of a header's bytes; raise ``PeerError(BAD_MAC)`` if it is not theirs."""
        if not self.sealed(mac, header):
            raise PeerError(Cause.BAD_MAC, "call")
        return CallSeal(self, mac)

    def sealed(self, mac: bytes, header: bytes) -> bool:
        """Whether ``mac`` is that of a header's bytes in this session."""
        return self.request_key.verify(mac, *call_covers(header))

    def refuse(self, call_mac: bytes) -> bytes:
        """Give the mac of a refusal of the call that ``call_mac`` names, whoever it was sealed for."""
        return self.reply_key.mac(_REFUSAL, lp(call_mac))

    def is_refusal(self, mac: bytes, call_mac: bytes) -> bool:
        """Whether ``mac`` is this session's refusal of the call that ``call_mac`` names."""
        return self.reply_key.verify(mac, _REFUSAL, lp(call_mac))


@dataclass(frozen=True, slots=True)
class CallSeal:
    """One call, named by its mac. Both ends hold one, and make from it what they need."""

    session: Session
    mac: bytes

    @property
    def id(self) -> str:
        """A name for logs and for correlation between the ends: 16 hex digits, no secret."""
        return self.mac[:8].hex()

    def request_sealer(self) -> FrameSealer:
        """Make the caller's sealer of request frames."""
        return FrameSealer(self.session.request_key, self.mac, REQUEST)

    def request_opener(self) -> FrameOpener:
        """Make the callee's opener of request frames."""
        return FrameOpener(self.session.request_key, self.mac, REQUEST)

    def reply_sealer(self) -> FrameSealer:
        """Make the callee's sealer of reply frames."""
        return FrameSealer(self.session.reply_key, self.mac, REPLY)

    def reply_opener(self) -> FrameOpener:
        """Make the caller's opener of reply frames."""
        return FrameOpener(self.session.reply_key, self.mac, REPLY)

    def seal_initial(self, digest: bytes) -> bytes:
        """Give the value of ``mesh-initial-bin`` for the digest of the response's initial metadata."""
        return self.session.reply_key.mac(*initial_covers(self.mac, digest))

    def open_initial(self, mac: bytes, digest: bytes) -> None:
        """Verify ``mesh-initial-bin``; raise ``PeerError(BAD_METADATA)``."""
        if not self.session.reply_key.verify(mac, *initial_covers(self.mac, digest)):
            raise PeerError(Cause.BAD_METADATA, "initial metadata of the reply")

    def seal_end(self, end: End) -> bytes:
        """Give the value of ``mesh-end-bin``."""
        return self.session.reply_key.mac(*end_covers(self.mac, end))

    def open_end(self, mac: bytes | None, end: End) -> None:
        """Verify ``mesh-end-bin`` against what was seen; raise ``PeerError(CUT_SHORT)`` if it differs."""
        if mac is None:
            raise PeerError(Cause.CUT_SHORT, "no sealed end")
        if not self.session.reply_key.verify(mac, *end_covers(self.mac, end)):
            raise PeerError(Cause.CUT_SHORT, "status, number of messages or metadata is not what was sealed")


@dataclass(frozen=True, slots=True)
class End:
    """All that closes a reply: how many messages there were, the status, and both metadata's digests."""

    count: int
    code: int
    message: str
    initial_digest: bytes
    trailing_digest: bytes

    def encode(self) -> bytes:
        """Give the bytes that the mac of the end covers after the call's mac."""
        return b"".join(
            (
                self.count.to_bytes(8, "big"),
                self.code.to_bytes(4, "big"),
                # An application may say anything, half a surrogate pair too: sealing its end must not fail.
                lp(self.message.encode(errors="surrogatepass")),
                self.initial_digest,
                self.trailing_digest,
            )
        )


class FrameSealer:
    """Seals the messages of one direction of one call, in order."""

    __slots__ = ("_key", "_prefix", "count", "ended")

    def __init__(self, key: Key, call_mac: bytes, direction: bytes) -> None:
        """Start at index 0."""
        self._key, self._prefix = key, _FRAME + call_mac + direction
        self.count = 0
        self.ended = False

    def seal(self, payload: bytes, *, end: bool = False) -> bytes:
        """Seal the next message; with ``end``, the last one. Gives the bytes to send."""
        return self._seal(payload, END if end else 0)

    def seal_end(self) -> bytes:
        """Seal the bare end of a request stream whose last message was sent already."""
        return self._seal(b"", END | EMPTY)

    def _seal(self, payload: bytes, flags: int) -> bytes:
        if self.ended:
            msg = "this direction has ended: nothing can follow"
            raise RuntimeError(msg)
        mac = self._key.mac(_covered(self._prefix, self.count, flags, payload), payload)
        self.count += 1
        self.ended = bool(flags & END)
        return encode_frame(mac, flags, payload)


class FrameOpener:
    """Opens the messages of one direction of one call; takes them only as they were sealed, in order."""

    __slots__ = ("_dead", "_key", "_prefix", "count", "ended")

    def __init__(self, key: Key, call_mac: bytes, direction: bytes) -> None:
        """Start at index 0."""
        self._key, self._prefix = key, _FRAME + call_mac + direction
        self._dead = False
        self.count = 0
        self.ended = False

    def open(self, data: bytes) -> bytes | None:
        """Open the next frame: its payload, or ``None`` for the bare end. ``ended`` tells if it was the last.

        Raises ``PeerError`` for a frame that was changed, repeated, reordered or belongs elsewhere, for
        anything after the end, and for everything after such an error.
        """
        if self._dead or self.ended:
            raise self._fail("after the end" if self.ended else "after a bad frame")
        try:
            frame = decode_frame(data)
        except PeerError:
            self._dead = True
            raise
        covered = _covered(self._prefix, self.count, frame.flags, frame.payload)
        if not self._key.verify(frame.mac, covered, frame.payload):
            raise self._fail(f"index {self.count}")
        self.count += 1
        self.ended = bool(frame.flags & END)
        return None if frame.flags & EMPTY else frame.payload

    def finish(self) -> None:
        """Say that the stream is over; raise ``PeerError(CUT_SHORT)`` unless its end was seen."""
        if not self.ended:
            self._dead = True
            raise PeerError(Cause.CUT_SHORT, f"after {self.count} messages")

    def _fail(self, detail: str) -> PeerError:
        self._dead = True
        return PeerError(Cause.BAD_FRAME, detail)


def call_covers(header: bytes) -> tuple[bytes, bytes]:
    """Give what the mac of a call is over, in parts."""
    return _CALL, lp(header)


def frame_covers(
    call_mac: bytes, direction: bytes, index: int, flags: int, payload: bytes
) -> tuple[bytes, bytes]:
    """Give what the mac of a frame is over, in parts."""
    return _covered(_FRAME + call_mac + direction, index, flags, payload), payload


def initial_covers(call_mac: bytes, digest: bytes) -> tuple[bytes, bytes, bytes]:
    """Give what ``mesh-initial-bin`` is over, in parts."""
    return _INITIAL, call_mac, digest


def end_covers(call_mac: bytes, end: End) -> tuple[bytes, bytes, bytes]:
    """Give what ``mesh-end-bin`` is over, in parts."""
    return _END, call_mac, end.encode()


def _covered(prefix: bytes, index: int, flags: int, payload: bytes) -> bytes:
    # All that a frame's mac covers before the payload itself, which is too large to copy.
    return b"".join((prefix, index.to_bytes(8, "big"), bytes((flags,)), len(payload).to_bytes(4, "big")))
