"""What an application may believe of a reply.

A sealed end is believed. Without one: OK is never believed; an error is passed on only if it is the mesh's
own refusal, or one that the transport makes on this side (deadline, lost connection, oversized message).
Everything else becomes an error of the mesh. Text that came unsealed from elsewhere is not passed on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

import grpc

from mesh.core.errors import Cause, PeerError
from mesh.core.metadata import END, INITIAL, REFUSAL, Entries, application_entries, digest, pushbacks, single
from mesh.core.seal import CallSeal, End, FrameOpener
from mesh.core.wire import Refusal
from mesh.rpc.status import Outcome, mesh_outcome, unsealed_reason

log = logging.getLogger("mesh")

_C = grpc.StatusCode
_TOO_LARGE: Final = "a message is larger than the transport's limit"
_LATE: Final = "deadline exceeded"
_LOST: Final = "connection to the destination failed: try again; this node's log says why"


@dataclass(frozen=True, slots=True)
class RawEnd:
    """A reply's end as the transport shows it, nothing verified."""

    code: grpc.StatusCode
    details: str
    initial: Entries
    trailing: Entries


async def end_of(raw: Any) -> RawEnd:
    """Wait for a call of the transport to end; give how."""
    return RawEnd(
        await raw.code(),
        await raw.details() or "",
        tuple(await raw.initial_metadata()),
        tuple(await raw.trailing_metadata()),
    )


def raw_end(error: grpc.aio.AioRpcError) -> RawEnd:
    """Give a reply's end from the error that gRPC made of it."""
    return RawEnd(
        error.code(),
        error.details() or "",
        tuple(error.initial_metadata() or ()),
        tuple(error.trailing_metadata() or ()),
    )


def message_of(opener: FrameOpener, data: bytes) -> bytes:
    """Open a frame of a reply, which must be a message; else raise ``PeerError``."""
    payload = opener.open(data)
    if payload is None or opener.ended:
        raise PeerError(Cause.BAD_FRAME, "end flag in a reply")
    return payload


def initial_entries(seal: CallSeal, raw: Entries) -> Entries | None:
    """Give verified initial metadata; ``None`` if it carries no seal, so only the end can tell.

    Raises ``PeerError`` if the seal is there and wrong.
    """
    mac = single(raw, INITIAL)
    if mac is None:
        return None
    entries = application_entries(raw)
    seal.open_initial(mac, digest(entries))
    return entries


def settle(seal: CallSeal, raw: RawEnd, counts: tuple[int, ...], *, late: bool) -> Outcome:
    """Judge a reply's end; raise ``PeerError`` if it must not be believed.

    ``counts``: how many messages there may have been; ``late``: whether the caller's own deadline has passed.
    """
    initial, trailing = application_entries(raw.initial), application_entries(raw.trailing)
    details = "" if raw.code is _C.OK else raw.details
    try:
        mac = single(raw.trailing, END)
    except PeerError:
        mac = None
    for count in counts if mac is not None else ():
        try:
            seal.open_end(mac, _end(raw, count, initial, trailing))
        except PeerError:
            continue
        return Outcome(raw.code, details, initial, trailing, pushbacks(raw.trailing))
    return _unsealed(raw, trailing, late=late)


def is_sealed(raw: RawEnd) -> bool:
    """Whether a reply's end carries a seal, unverified."""
    return any(key == END for key, _ in raw.trailing)


def seen_end(raw: RawEnd, count: int) -> End:
    """Give a reply's end, of so many messages, as its seal has to cover it."""
    return _end(raw, count, application_entries(raw.initial), application_entries(raw.trailing))


def _end(raw: RawEnd, count: int, initial: Entries, trailing: Entries) -> End:
    details = "" if raw.code is _C.OK else raw.details
    return End(count, raw.code.value[0], details, digest(initial), digest(trailing))


def refusal_of(raw: RawEnd) -> Refusal | None:
    """Give the refusal that a reply carries, unverified, or ``None``."""
    try:
        value = single(raw.trailing, REFUSAL)
        return Refusal.decode(value) if value is not None else None
    except PeerError:
        return None


def _unsealed(raw: RawEnd, trailing: Entries, *, late: bool) -> Outcome:
    if raw.code is _C.DEADLINE_EXCEEDED and late:
        return Outcome(raw.code, _LATE)
    own = unsealed_reason(trailing)
    if own is not None and raw.code is not _C.OK:
        return mesh_outcome(own[0], call_id=own[1])
    if raw.code is _C.UNAVAILABLE:
        # Why is often the transport's own word, but nothing tells it from what the other side may say.
        log.warning("connection failed: %r", raw.details[:200])
        return Outcome(raw.code, _LOST)
    if raw.code is _C.RESOURCE_EXHAUSTED:
        return Outcome(raw.code, _TOO_LARGE)
    if raw.code is _C.CANCELLED:
        return Outcome(_C.UNAVAILABLE, "the destination's node ended the call: try again")
    raise PeerError(Cause.CUT_SHORT, f"unsealed or altered end; the transport said {raw.code.name}")
