"""Calls of a node whose keys auth keeps: what is to be sealed or verified is asked of auth before it is.

The code that seals and verifies is that of every node (``core.seal``). It runs over ``Answers``, which hold
what auth has said, so each step asks first, then does what it always does; one that was not asked for fails.

Round trips to auth: one for a call with its one message, at its source, and one at its destination; one for a
reply of one message with its end, at each; one for each message of a stream.

What this leaves to others: whether auth answers to this node (auth), and replay windows (``core.receiver``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import grpc

from mesh.core.errors import PeerError, Reason
from mesh.core.metadata import END as END_KEY
from mesh.core.metadata import INITIAL, Entries, application_entries, digest, single
from mesh.core.names import InstanceId, ServiceName
from mesh.core.receiver import Answer, Incoming, Receiver
from mesh.core.seal import CallSeal, End, FrameOpener, FrameSealer, Session, call_covers
from mesh.core.signing import PARTS, Answers, end_part, learn
from mesh.core.wire import EMPTY, END, Refusal, decode_call, decode_frame, encode_call
from mesh.rpc.caller import LATE, CallSpec
from mesh.rpc.reply import RawEnd, seen_end
from mesh.rpc.status import CallFailedError, Outcome, mesh_outcome
from mesh.v1 import signer_pb2

if TYPE_CHECKING:
    from mesh.v1.signer_pb2_grpc import SignerServiceAsyncStub

_C = grpc.StatusCode
#: Seconds that auth has for an answer.
PATIENCE: Final = 10.0
_AWAY: Final = "auth, which keeps this node's keys, does not answer"
_LARGE: Final = "message is larger than auth takes to seal or verify"

_Q = TypeVar("_Q", signer_pb2.SignRequest, signer_pb2.VerifyRequest)
_R = TypeVar("_R", signer_pb2.SignResponse, signer_pb2.VerifyResponse)


class Signer:
    """Auth, as far as it seals and verifies for this node. Failure is a ``CallFailedError``."""

    def __init__(self, stub: SignerServiceAsyncStub) -> None:
        """Take the way to auth."""
        self._stub = stub

    async def begin(
        self,
        destination: ServiceName,
        instance: InstanceId,
        spec: CallSpec,
        deadline_ms: int,
        only: bytes | None,
    ) -> KeptKeys:
        """Have a call sealed, and with it the one message that it has, if it has one only."""
        new = signer_pb2.NewCall(
            destination=destination.text,
            destination_instance=instance.raw,
            method=spec.method.text,
            metadata_digest=spec.digest,
            deadline_ms=deadline_ms,
        )
        parts = signer_pb2.CallParts(frame=None if only is None else _frame(0, END, only))
        request = signer_pb2.SignRequest(new_call=new, parts=parts)
        response = await self.sign(request, spec, Reason.NAME_UNAVAILABLE)
        try:
            mac, _ = decode_call(response.sealed_call)
        except PeerError:
            raise CallFailedError(mesh_outcome(Reason.NOT_READY, _AWAY)) from None
        asking = KeptKeys(self, response.sealed_call, mac, spec)
        learn(asking.seal, parts, response.macs)
        return asking

    async def received(
        self, receiver: Receiver, incoming: Incoming, reading: asyncio.Future[Any] | None, now_ms: int
    ) -> tuple[Answer, KeptKeys]:
        """Have a call verified, and with it its first message, if that is there; raise ``PeerError``.

        ``reading``: what reads that message, unless it is to be read later.
        """
        mac, encoded, header = receiver.read(incoming)
        asking = KeptKeys(self, encode_call(mac, encoded), mac)
        if not receiver.accepts(header.epoch, now_ms):
            return Answer(asking.seal.session), asking  # which is no call for this node, whatever auth says
        first = asking.reads(reading)
        response = await asking.verify(*(_nothing() if first is None else _seen_frame(0, first)))
        if response.call:
            asking.requests.learn(mac, call_covers(encoded))
        with suppress(PeerError):
            refusal = Refusal.decode(response.refusal) if response.refusal else None
            return Answer(asking.seal.session, refusal), asking
        raise CallFailedError(mesh_outcome(Reason.NOT_READY, _AWAY))

    async def sign(
        self,
        request: signer_pb2.SignRequest,
        spec: CallSpec | None,
        refused: Reason = Reason.NOT_READY,
    ) -> signer_pb2.SignResponse:
        """Ask for macs, in the time that the call has; ``refused``: what a refusal of auth's is told as."""
        return await _asked(self._stub.Sign, request, spec, refused)

    async def verify(
        self, request: signer_pb2.VerifyRequest, spec: CallSpec | None
    ) -> signer_pb2.VerifyResponse:
        """Ask which macs are right, in the time that the call has."""
        return await _asked(self._stub.Verify, request, spec, Reason.NOT_READY)


class KeptKeys:
    """What is asked about one call. ``seal`` knows what the answers were."""

    remote: Literal[True] = True

    def __init__(self, signer: Signer, sealed: bytes, call_mac: bytes, spec: CallSpec | None = None) -> None:
        """Take the call as it is sealed, its mac, and at its source what the application asked for."""
        self.sealed, self._signer, self._spec = sealed, signer, spec
        self.requests, self._replies = Answers(), Answers()
        self.seal = CallSeal(Session(self.requests, self._replies), call_mac)
        self._reading: asyncio.Future[Any] | None = None
        self._first: bytes | None = None
        self._initial: bytes | None = None
        self._end: End | None = None

    # At the source

    async def to_send(self, sealer: FrameSealer, payload: bytes, *, last: bool) -> None:
        """Ask before a message of the request is sealed."""
        frame = _frame(sealer.count, END if last else 0, payload)
        await self._sign(signer_pb2.CallParts(frame=frame))

    async def to_end(self, sealer: FrameSealer) -> None:
        """Ask before the bare end of the request is sealed."""
        await self._sign(signer_pb2.CallParts(frame=_frame(sealer.count, END | EMPTY, b"")))

    async def reply_seen(self, opener: FrameOpener, data: bytes | None, initial: Entries | None) -> None:
        """Ask before a message of the reply is opened, or its initial metadata is believed."""
        parts, macs = _seen_reply(opener.count, data, initial or ())
        if macs != signer_pb2.PartMacs():
            await self.verify(parts, macs)

    async def end_seen(self, raw: RawEnd, counts: tuple[int, ...], data: bytes | None = None) -> None:
        """Ask before the end of the reply is believed, and its one message opened if that is ``data``."""
        for count in counts:
            parts, macs = _seen_reply(0, data, raw.initial)
            with suppress(PeerError):  # as in _seen_reply
                mac = single(raw.trailing, END_KEY)
                if mac is not None:
                    parts.end.CopyFrom(end_part(seen_end(raw, count)))
                    macs.end = mac
            if macs == signer_pb2.PartMacs() or (await self.verify(parts, macs)).end:
                return

    async def is_refused(self, refusal: Refusal) -> bool:
        """Whether a refusal proves that the call was not dispatched."""
        request = signer_pb2.VerifyRequest(sealed_call=self.sealed, refusal=refusal.encode())
        return (await self._signer.verify(request, self._spec)).refused

    # At the destination

    def reads(self, reading: asyncio.Future[Any] | None) -> bytes | None:
        """Give the first message of the request, if it is there; asking about it is then done."""
        self._reading = reading
        if reading is not None and reading.done() and not reading.cancelled():
            read = reading.result()
            self._first = read if isinstance(read, bytes) else None
        return self._first

    def read(self, raw: Any) -> Awaitable[Any]:
        """Give the next message of the request."""
        reading, self._reading = self._reading, None
        next_message: Awaitable[Any] = reading or raw.read()
        return next_message

    async def request_seen(self, opener: FrameOpener, data: bytes) -> None:
        """Ask before a message of the request is opened, unless that was asked already."""
        if data is not self._first:
            await self.verify(*_seen_frame(opener.count, data))
        self._first = None

    async def to_reply(
        self, sealer: FrameSealer, payload: bytes, initial: bytes | None = None, end: End | None = None
    ) -> None:
        """Ask before a message of the reply is sealed, with the initial metadata and the end if given."""
        parts = signer_pb2.CallParts(reply=True, frame=_frame(sealer.count, 0, payload))
        if initial is not None:
            parts.initial_digest = initial
        if end is not None:
            parts.end.CopyFrom(end_part(end))
        await self._sign(parts)
        self._initial, self._end = initial, end

    async def to_begin(self, initial: bytes) -> None:
        """Ask before the reply's initial metadata is sealed, unless that was asked already."""
        if self._initial != initial:
            await self._sign(signer_pb2.CallParts(reply=True, initial_digest=initial))

    async def to_close(self, end: End) -> None:
        """Ask before the reply's end is sealed, unless that was asked already."""
        if self._end != end:
            await self._sign(signer_pb2.CallParts(reply=True, end=end_part(end)))

    async def verify(
        self, parts: signer_pb2.CallParts, macs: signer_pb2.PartMacs
    ) -> signer_pb2.VerifyResponse:
        """Ask which macs are right, and know those that are from then on."""
        request = signer_pb2.VerifyRequest(sealed_call=self.sealed, parts=parts, macs=macs)
        response = await self._signer.verify(request, self._spec)
        learn(self.seal, parts, macs, [name for name in PARTS if getattr(response, name)])
        return response

    async def _sign(self, parts: signer_pb2.CallParts) -> None:
        response = await self._signer.sign(
            signer_pb2.SignRequest(sealed_call=self.sealed, parts=parts), self._spec
        )
        learn(self.seal, parts, response.macs)


def _frame(index: int, flags: int, payload: bytes) -> signer_pb2.FramePart:
    return signer_pb2.FramePart(index=index, flags=flags, payload=payload)


def _nothing() -> tuple[signer_pb2.CallParts, signer_pb2.PartMacs]:
    return signer_pb2.CallParts(), signer_pb2.PartMacs()


def _seen_frame(index: int, data: bytes) -> tuple[signer_pb2.CallParts, signer_pb2.PartMacs]:
    parts, macs = _nothing()
    with suppress(PeerError):  # what is no frame is for the opener to refuse
        frame = decode_frame(data)
        parts.frame.CopyFrom(_frame(index, frame.flags, frame.payload))
        macs.frame = frame.mac
    return parts, macs


def _seen_reply(
    index: int, data: bytes | None, initial: Entries
) -> tuple[signer_pb2.CallParts, signer_pb2.PartMacs]:
    parts, macs = _nothing() if data is None else _seen_frame(index, data)
    parts.reply = True
    with suppress(PeerError):  # more than one is for whoever believes it to refuse
        mac = single(initial, INITIAL)
        if mac is not None:
            parts.initial_digest, macs.initial = digest(application_entries(initial)), mac
    return parts, macs


async def _asked(
    method: Callable[..., Awaitable[_R]], request: _Q, spec: CallSpec | None, refused: Reason
) -> _R:
    left = spec.remaining() if spec else None
    timeout = PATIENCE if left is None else min(PATIENCE, left)
    try:
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is not _C.UNAVAILABLE:
                raise
            return await method(request, timeout=timeout)  # perhaps elsewhere, or back by now
    except grpc.aio.AioRpcError as error:
        raise CallFailedError(_outcome(error.code(), spec, refused)) from None


def _outcome(code: grpc.StatusCode, spec: CallSpec | None, refused: Reason) -> Outcome:
    if spec is not None and spec.late():
        return LATE
    if code is _C.RESOURCE_EXHAUSTED:
        return Outcome(code, _LARGE)
    if code is _C.PERMISSION_DENIED:
        return mesh_outcome(refused)
    return mesh_outcome(Reason.NOT_READY, _AWAY)
