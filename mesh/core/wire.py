"""The bytes of ``protos/mesh/v1/wire.proto``: encoding, and strict decoding within bounds.

    mesh-call-bin     0a 20 <mac 32>  12 <length> <header: an encoded CallHeader, at most 2048>
    Frame             0a 20 <mac 32>  10 <flags 1>  1a <length> <payload>
    mesh-refusal-bin  0a 20 <mac 32>  12 10 <instance 16>  18 <epoch>

Lengths are varints. Decoding takes only the canonical encoding, so that no two byte strings mean the same:
what was parsed is encoded again and compared (for frames, which may be large, the prefix is). It raises
``PeerError`` and nothing else, and says nothing about whether a mac is right: that is ``seal``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import MAC_BYTES
from mesh.core.names import (
    FullMethod,
    InstanceId,
    KeyEpoch,
    ServiceName,
    full_method,
    instance_id,
    service_name,
)
from mesh.core.replay import MAX_SEQUENCE
from mesh.v1 import wire_pb2

VERSION: Final = 1
MAX_HEADER: Final = 2048
DIGEST_BYTES: Final = 32
#: A deadline of 2^53 ms lies 285,000 years ahead; past it a 64-bit float cannot tell milliseconds apart.
MAX_DEADLINE_MS: Final = 2**53
#: Most that a frame adds to a payload: mac, flags, tags, and a length of up to 5 bytes (4 GiB).
FRAME_OVERHEAD: Final = 42

END: Final = 1
EMPTY: Final = 2
FLAGS: Final = (0, END, END | EMPTY)

_M = TypeVar("_M", wire_pb2.SealedCall, wire_pb2.CallHeader, wire_pb2.Refusal)

_MAC_TAG: Final = b"\x0a\x20"
_FLAGS_TAG: Final = 0x10
_PAYLOAD_TAG: Final = 0x1A
_PAYLOAD_AT: Final = 37
#: A varint's digits and its flag that another digit follows.
_SEVEN_BITS: Final = 0x7F
_MORE: Final = 0x80


@dataclass(frozen=True, slots=True)
class CallHeader:
    """Who calls whom for what, once. See ``CallHeader`` in wire.proto for each field."""

    source: ServiceName
    source_instance: InstanceId
    destination: ServiceName
    destination_instance: InstanceId
    epoch: KeyEpoch
    sequence: int
    method: FullMethod
    metadata_digest: bytes
    deadline_ms: int = 0

    def encode(self) -> bytes:
        """Give the canonical bytes."""
        return wire_pb2.CallHeader(
            version=VERSION,
            source=self.source.text,
            source_instance=self.source_instance.raw,
            destination=self.destination.text,
            destination_instance=self.destination_instance.raw,
            key_epoch=self.epoch.number,
            sequence=self.sequence,
            method=self.method.text,
            metadata_digest=self.metadata_digest,
            deadline_ms=self.deadline_ms,
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> CallHeader:
        """Read canonical bytes; raise ``PeerError`` for anything outside the grammar."""
        raw = _canonical(wire_pb2.CallHeader(), data)
        if raw.version != VERSION:
            raise PeerError(Cause.BAD_VERSION, str(raw.version))
        if not 0 < raw.sequence <= MAX_SEQUENCE:
            raise PeerError(Cause.MALFORMED, f"sequence {raw.sequence}")
        if len(raw.metadata_digest) != DIGEST_BYTES or raw.deadline_ms > MAX_DEADLINE_MS:
            raise PeerError(Cause.MALFORMED, "digest or deadline")
        try:
            return cls(
                service_name(raw.source),
                instance_id(raw.source_instance),
                service_name(raw.destination),
                instance_id(raw.destination_instance),
                KeyEpoch(raw.key_epoch),
                raw.sequence,
                _method(raw.method),
                raw.metadata_digest,
                raw.deadline_ms,
            )
        except ValueError as error:
            raise PeerError(Cause.MALFORMED, str(error)) from None


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, or the bare end of a request stream, not yet verified."""

    mac: bytes
    flags: int
    payload: bytes


def encode_call(mac: bytes, header: bytes) -> bytes:
    """Join a mac of 32 bytes and an encoded header into the value of ``mesh-call-bin``."""
    return _MAC_TAG + mac + b"\x12" + _varint(len(header)) + header


def decode_call(data: bytes) -> tuple[bytes, bytes]:
    """Split ``mesh-call-bin`` into mac and header bytes."""
    if len(data) > MAX_HEADER + 64:
        raise PeerError(Cause.TOO_LARGE, f"call of {len(data)} bytes")
    raw = _canonical(wire_pb2.SealedCall(), data)
    if len(raw.mac) != MAC_BYTES:
        raise PeerError(Cause.MALFORMED, "mac length")
    if len(raw.header) > MAX_HEADER:
        raise PeerError(Cause.TOO_LARGE, f"header of {len(raw.header)} bytes")
    return raw.mac, raw.header


def encode_frame(mac: bytes, flags: int, payload: bytes) -> bytes:
    """Join a mac of 32 bytes, flags and a payload into a message."""
    length = _varint(len(payload))
    return b"".join((_MAC_TAG, mac, bytes((_FLAGS_TAG, flags, _PAYLOAD_TAG)), length, payload))


def decode_frame(data: bytes) -> Frame:
    """Split a message into mac, flags and payload, copying the payload once."""
    if len(data) <= _PAYLOAD_AT or data[:2] != _MAC_TAG:
        raise PeerError(Cause.MALFORMED, "frame")
    flags = data[35]
    if data[34] != _FLAGS_TAG or data[36] != _PAYLOAD_TAG or flags not in FLAGS:
        raise PeerError(Cause.MALFORMED, "frame flags")
    length, at = _read_varint(data, _PAYLOAD_AT)
    if length != len(data) - at:
        raise PeerError(Cause.MALFORMED, "frame length")
    if flags & EMPTY and at != len(data):
        raise PeerError(Cause.MALFORMED, "payload in an empty frame")
    return Frame(data[2:34], flags, data[at:])


@dataclass(frozen=True, slots=True)
class Refusal:
    """A receiver's word that it did not dispatch a call, not yet verified."""

    mac: bytes
    instance: InstanceId
    epoch: KeyEpoch

    def encode(self) -> bytes:
        """Give the canonical bytes: the value of ``mesh-refusal-bin``."""
        return wire_pb2.Refusal(
            mac=self.mac, instance=self.instance.raw, key_epoch=self.epoch.number
        ).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> Refusal:
        """Read canonical bytes; raise ``PeerError`` for anything else."""
        raw = _canonical(wire_pb2.Refusal(), data)
        if len(raw.mac) != MAC_BYTES:
            raise PeerError(Cause.MALFORMED, "mac length")
        try:
            return cls(raw.mac, InstanceId(raw.instance), KeyEpoch(raw.key_epoch))
        except ValueError as error:
            raise PeerError(Cause.MALFORMED, str(error)) from None


def _canonical(message: _M, data: bytes) -> _M:
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError):
        # ValueError: protobuf in pure Python says so of text that is not UTF-8.
        raise PeerError(Cause.MALFORMED, "not protobuf") from None
    # Unknown fields would be encoded again just as they came.
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        raise PeerError(Cause.MALFORMED, "not the canonical encoding")
    return message


def _method(text: str) -> FullMethod:
    try:
        return full_method(text)
    except ValueError as error:
        raise PeerError(Cause.BAD_METHOD, str(error)) from None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | _MORE)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    # Only the shortest encoding, of at most 5 bytes: the length of a frame's payload.
    number = 0
    for width in range(1, min(6, len(data) - at + 1)):
        byte = data[at + width - 1]
        number |= (byte & _SEVEN_BITS) << 7 * (width - 1)
        if not byte & _MORE:
            if byte == 0 and width > 1:
                break
            return number, at + width
    raise PeerError(Cause.MALFORMED, "frame length")
