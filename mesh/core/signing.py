"""Sealing for nodes that hold no keys: what auth does for them, and what they make of its answers.

The macs are those of ``seal``, made by the same code under the same keys; only the keys stay at auth. A node
sends what a mac is to be over, in terms of the call (``signer.proto``), never bytes to be put under a key as
they are. So nothing is sealed but calls, and of each call to each end what that end may seal or verify.

                   source                              destination
    Sign           the call, frames of its request     frames, initial metadata and end of its reply
    Verify         those of its reply, a refusal       the call, frames of its request, and: refuse it

``Answers`` stands at the node in the place of the key: it knows the macs that auth has given or confirmed,
and no others. ``FrameSealer``, ``FrameOpener`` and all else of ``seal`` run over it as over a key.

What this leaves to others: who may ask at all, sequence numbers (auth), and replay windows (``receiver``, at
the node: they are no secret).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import Key, Withheld, pair_key
from mesh.core.names import KeyEpoch, ServiceName, full_method, instance_id, service_name
from mesh.core.receiver import Peer, refuse
from mesh.core.seal import (
    REPLY,
    REQUEST,
    CallSeal,
    End,
    Session,
    end_covers,
    frame_covers,
    initial_covers,
)
from mesh.core.wire import DIGEST_BYTES, EMPTY, FLAGS, MAX_DEADLINE_MS, CallHeader, Refusal, decode_call
from mesh.v1 import signer_pb2

#: The parts that have macs of their own, by their names in ``PartMacs``.
PARTS: Final = ("frame", "initial", "end")

KeyOf: TypeAlias = Callable[[ServiceName, KeyEpoch], Key | None]
"""Gives D(destination, epoch) of an epoch that is accepted, else ``None``."""


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A sealed call, not yet verified."""

    mac: bytes
    encoded: bytes
    header: CallHeader


class Answers(Withheld):
    """In the place of a key that auth keeps: the macs of one direction of one call that auth knows of.

    What was taken is forgotten, so that a long stream costs no memory.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        """Start with none."""
        self._known: dict[tuple[bytes, ...], bytes] = {}

    def learn(self, mac: bytes, parts: tuple[bytes, ...]) -> None:
        """Take a mac that auth has made or confirmed."""
        self._known[parts] = mac

    def mac(self, *parts: bytes) -> bytes:
        """Give a mac that auth has made; raise ``RuntimeError`` for one that it was not asked for."""
        mac = self._known.pop(parts, None)
        if mac is None:
            msg = "auth keeps this key and was not asked for the mac"
            raise RuntimeError(msg)
        return mac

    def verify(self, mac: bytes, *parts: bytes) -> bool:
        """Whether auth has confirmed the mac."""
        return self._known.pop(parts, None) == mac


class Signing:
    """Auth's half."""

    def __init__(self, key_of: KeyOf) -> None:
        """Take what gives destination keys."""
        self._key_of = key_of

    def seal(self, header: CallHeader) -> tuple[bytes, CallSeal]:
        """Seal a new call; who may make it was asked before. Raises ``PeerError`` if its epoch is over."""
        return self._session(header).seal(header)

    def sign(self, peer: Peer, call: MadeCall, parts: signer_pb2.CallParts) -> signer_pb2.PartMacs:
        """Make macs of parts of a call for that end of it which makes them; raise ``PeerError``."""
        _check_end(peer, call.header, source=not parts.reply)
        return macs_of(self._session(call.header).open(call.mac, call.encoded), parts)

    def verify(
        self, peer: Peer, request: signer_pb2.VerifyRequest, newest: KeyEpoch
    ) -> signer_pb2.VerifyResponse:
        """Say which macs are right, to that end of a call which sees them; raise ``PeerError``.

        ``newest``: the epoch that has begun last, in which a call for another instance is refused.
        """
        call = read_call(request.sealed_call)
        if self._key_of(call.header.destination, call.header.epoch) is None:
            return signer_pb2.VerifyResponse()
        by_source = request.parts.reply or bool(request.refusal)
        if not by_source and _is_another(peer, call.header):
            return self._refuse(peer, call, newest)
        _check_end(peer, call.header, source=by_source)
        session = self._session(call.header)
        if not session.sealed(call.mac, call.encoded):
            return signer_pb2.VerifyResponse()
        found = _verified(CallSeal(session, call.mac), request)
        found.refused = self._is_refusal(call, request.refusal)
        return found

    def _session(self, header: CallHeader) -> Session:
        pair = pair_key(self._key(header.destination, header.epoch), header.source)
        return Session.derive(pair, header.source_instance, header.destination_instance)

    def _key(self, destination: ServiceName, epoch: KeyEpoch) -> Key:
        key = self._key_of(destination, epoch)
        if key is None:
            raise PeerError(Cause.UNKNOWN_EPOCH, str(epoch.number))
        return key

    def _refuse(self, peer: Peer, call: MadeCall, newest: KeyEpoch) -> signer_pb2.VerifyResponse:
        key, current = (self._key(peer.service, epoch) for epoch in (call.header.epoch, newest))
        refusal = refuse((newest, current), key, call.header, call.mac, call.encoded, peer.instance)
        return signer_pb2.VerifyResponse(refusal=refusal.encode() if refusal else b"")

    def _is_refusal(self, call: MadeCall, encoded: bytes) -> bool:
        if not encoded:
            return False
        refusal, header = Refusal.decode(encoded), call.header
        key = self._key_of(header.destination, refusal.epoch)
        if key is None:
            return False
        session = Session.derive(pair_key(key, header.source), header.source_instance, refusal.instance)
        return session.is_refusal(refusal.mac, call.mac)


def read_call(sealed: bytes) -> MadeCall:
    """Read a ``mesh-call-bin``; raise ``PeerError``."""
    mac, encoded = decode_call(sealed)
    return MadeCall(mac, encoded, CallHeader.decode(encoded))


def header_of(source: Peer, new: signer_pb2.NewCall, epoch: KeyEpoch, sequence: int) -> CallHeader:
    """Give the header of a call that a source wants to make; raise ``PeerError`` for what none has."""
    try:
        destination, instance = service_name(new.destination), instance_id(new.destination_instance)
        method = full_method(new.method)
    except ValueError as error:
        raise PeerError(Cause.MALFORMED, str(error)) from None
    if new.deadline_ms > MAX_DEADLINE_MS:
        raise PeerError(Cause.BAD_DEADLINE, "not 0 to 2^53 milliseconds")
    ends = source.service, source.instance, destination, instance
    return CallHeader(*ends, epoch, sequence, method, _digest(new.metadata_digest), new.deadline_ms)


def macs_of(seal: CallSeal, parts: signer_pb2.CallParts) -> signer_pb2.PartMacs:
    """Make the macs of parts; raise ``PeerError`` for what no call has."""
    key = _key_of(seal, parts)
    return signer_pb2.PartMacs(**{name: key.mac(*over) for name, over in _covers(seal.mac, parts)})


def learn(
    seal: CallSeal, parts: signer_pb2.CallParts, macs: signer_pb2.PartMacs, right: Iterable[str] = PARTS
) -> None:
    """Take over, at the node, what auth has made or confirmed: macs of parts, those named in ``right``."""
    answers = _key_of(seal, parts)
    for name, over in _covers(seal.mac, parts):
        if name in right and isinstance(answers, Answers):
            answers.learn(getattr(macs, name), over)


def _verified(seal: CallSeal, request: signer_pb2.VerifyRequest) -> signer_pb2.VerifyResponse:
    key, macs = _key_of(seal, request.parts), request.macs
    right = {name: key.verify(getattr(macs, name), *over) for name, over in _covers(seal.mac, request.parts)}
    return signer_pb2.VerifyResponse(
        call=True,
        frame=right.get("frame", False),
        initial=right.get("initial", False),
        end=right.get("end", False),
    )


def _is_another(peer: Peer, header: CallHeader) -> bool:
    return peer.service == header.destination and peer.instance != header.destination_instance


def _check_end(peer: Peer, header: CallHeader, *, source: bool) -> None:
    if source:
        end = Peer(header.source, header.source_instance)
    else:
        end = Peer(header.destination, header.destination_instance)
    if peer != end:
        raise PeerError(Cause.WRONG_PEER, f"{peer.service} asks about a call of others")


def _key_of(seal: CallSeal, parts: signer_pb2.CallParts) -> Key:
    return seal.session.reply_key if parts.reply else seal.session.request_key


def _covers(call_mac: bytes, parts: signer_pb2.CallParts) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    # What each part's mac is over. Requests have frames alone.
    if parts.HasField("frame"):
        frame = parts.frame
        if frame.flags not in FLAGS or (frame.flags & EMPTY and frame.payload):
            raise PeerError(Cause.MALFORMED, "frame")
        direction = REPLY if parts.reply else REQUEST
        yield "frame", frame_covers(call_mac, direction, frame.index, frame.flags, frame.payload)
    if not parts.reply and (parts.initial_digest or parts.HasField("end")):
        raise PeerError(Cause.MALFORMED, "a request has frames alone")
    if parts.initial_digest:
        yield "initial", initial_covers(call_mac, _digest(parts.initial_digest))
    if parts.HasField("end"):
        yield "end", end_covers(call_mac, _end(parts.end))


def end_part(end: End) -> signer_pb2.EndPart:
    """Give an end as it is sent to auth."""
    message = end.message.encode(errors="surrogatepass")
    digests = {"initial_digest": end.initial_digest, "trailing_digest": end.trailing_digest}
    return signer_pb2.EndPart(count=end.count, code=end.code, message=message, **digests)


def _end(part: signer_pb2.EndPart) -> End:
    try:
        message = part.message.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        raise PeerError(Cause.MALFORMED, "text of an end") from None
    digests = _digest(part.initial_digest), _digest(part.trailing_digest)
    return End(part.count, part.code, message, *digests)


def _digest(raw: bytes) -> bytes:
    if len(raw) != DIGEST_BYTES:
        raise PeerError(Cause.MALFORMED, "digest")
    return raw
