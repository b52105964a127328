"""The bytes: only the canonical encoding passes, and garbage gives a ``PeerError`` and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.errors import Cause, PeerError
from mesh.core.names import MAX_EPOCH, FullMethod, InstanceId, KeyEpoch, ServiceName
from mesh.core.replay import MAX_SEQUENCE
from mesh.core.wire import (
    EMPTY,
    END,
    FRAME_OVERHEAD,
    MAX_DEADLINE_MS,
    MAX_HEADER,
    CallHeader,
    Refusal,
    decode_call,
    decode_frame,
    encode_call,
    encode_frame,
)
from mesh.v1 import wire_pb2
from tests.core import world

MAC = bytes(range(32))
HEADER = world.header(sequence=300, deadline_ms=5_000_000)
REFUSAL = Refusal(MAC, world.B, KeyEpoch(300))
CALL = encode_call(MAC, HEADER.encode())
FRAME = encode_frame(MAC, 0, b"payload")
DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "call": (decode_call, CALL),
    "header": (CallHeader.decode, HEADER.encode()),
    "frame": (decode_frame, FRAME),
    "refusal": (Refusal.decode, REFUSAL.encode()),
}
each = pytest.mark.parametrize(("decode", "good"), DECODERS.values(), ids=DECODERS)


def cause_of(decode: Callable[[bytes], object], data: bytes) -> Cause | None:
    try:
        decode(data)
    except PeerError as error:
        return error.cause
    return None


def field(number: int, value: bytes) -> bytes:
    """Encode a field of bytes (wire type 2), at most 127 long."""
    return bytes([number << 3 | 2, len(value)]) + value


names = st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z]{1,10}){0,4}", fullmatch=True).map(ServiceName)
instances = st.binary(min_size=16, max_size=16).map(InstanceId)
headers = st.builds(
    CallHeader,
    names,
    instances,
    names,
    instances,
    st.integers(1, MAX_EPOCH).map(KeyEpoch),
    st.integers(1, MAX_SEQUENCE),
    st.from_regex(r"/[A-Za-z_]{1,20}(\.[A-Za-z0-9_]{0}[A-Z]){0,3}/[A-Za-z_]{1,20}", fullmatch=True).map(
        FullMethod
    ),
    st.binary(min_size=32, max_size=32),
    st.integers(0, MAX_DEADLINE_MS),
)


@given(headers)
def test_header_there_and_back(header: CallHeader) -> None:
    """Every header within the grammar comes back as it was, and fits its bound."""
    encoded = header.encode()
    assert CallHeader.decode(encoded) == header
    assert len(encoded) <= MAX_HEADER


def test_largest_header_fits() -> None:
    """The longest names, method and numbers that the grammar allows fit the bound of a header."""
    name = ServiceName(".".join(["a" * 63, "b" * 61]))
    method = FullMethod("/p.S/" + "M" * 507)
    most = CallHeader(
        name,
        world.A,
        name,
        world.B,
        KeyEpoch(MAX_EPOCH),
        MAX_SEQUENCE,
        method,
        MAC,
        MAX_DEADLINE_MS,
    )
    assert decode_call(encode_call(MAC, most.encode())) == (MAC, most.encode())


@each
def test_good_passes(decode: Callable[[bytes], object], good: bytes) -> None:
    """The samples that the attacks below start from are good themselves."""
    decode(good)


@each
@given(data=st.binary(max_size=300))
def test_garbage(decode: Callable[[bytes], object], good: bytes, data: bytes) -> None:
    """Random bytes give a value or a ``PeerError``."""
    cause_of(decode, data)
    cause_of(decode, good[: len(data)] + data)


@each
@given(data=st.data())
def test_mutations(decode: Callable[[bytes], object], good: bytes, data: st.DataObject) -> None:
    """Whatever is spliced into a good encoding gives a value or a ``PeerError``."""
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 4))
    cause_of(decode, good[:at] + data.draw(st.binary(max_size=8)) + good[at + cut :])


@each
def test_every_cut(decode: Callable[[bytes], object], good: bytes) -> None:
    """No beginning of a good encoding means the same; it is another value, or an error."""
    value = decode(good)
    for end in range(len(good)):
        assert cause_of(decode, good[:end]) is not None or decode(good[:end]) != value


@each
def test_every_extension(decode: Callable[[bytes], object], good: bytes) -> None:
    """Nothing can be appended: not a byte, not the same again, not an unknown field."""
    for tail in (b"\0", b"\x7a\0", b"\x7a\1x", b"\xf8\x7f\1", b"\x7b\x7c", good[:34], good):
        assert cause_of(decode, good + tail) is not None
    for byte in range(256):
        assert cause_of(decode, good + bytes([byte])) is not None


@each
def test_unknown_field_first(decode: Callable[[bytes], object], good: bytes) -> None:
    """An unknown field before the known ones is refused too."""
    assert cause_of(decode, b"\x7a\1x" + good) is not None


@each
def test_every_bit_of_a_length_or_tag(decode: Callable[[bytes], object], good: bytes) -> None:
    """Changing a bit gives another value or an error, but never the same value from other bytes."""
    value = decode(good)
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert decode(bytes(changed)) != value
        except PeerError:
            continue


def test_wrong_order() -> None:
    """The same fields in another order are refused."""
    mac, header = field(1, MAC), b"\x12\1h"
    assert decode_call(mac + header) == (MAC, b"h")
    assert cause_of(decode_call, header + mac) is Cause.MALFORMED
    assert cause_of(decode_frame, b"\x10\0" + field(1, MAC) + b"\x1a\0") is Cause.MALFORMED
    assert cause_of(decode_frame, field(1, MAC) + b"\x1a\0\x10\0") is Cause.MALFORMED


def test_repeated_field() -> None:
    """A field that comes twice is refused, though protobuf would take the last."""
    mac, header = field(1, MAC), b"\x12\1h"
    for data in (mac + mac + header, mac + header + header, mac + b"\x12\1g" + header):
        assert cause_of(decode_call, data) is Cause.MALFORMED
    assert cause_of(decode_frame, field(1, MAC) + b"\x10\0\x10\0\x1a\0") is Cause.MALFORMED


def test_longer_varints() -> None:
    """A number spelled with more bytes than it needs is refused."""
    mac = field(1, MAC)
    assert cause_of(decode_call, b"\x0a\xa0\x00" + MAC + b"\x12\1h") is Cause.MALFORMED
    assert cause_of(decode_call, mac + b"\x12\x81\x00h") is Cause.MALFORMED
    assert cause_of(decode_frame, mac + b"\x10\x80\x00\x1a\x00") is Cause.MALFORMED
    for length in (b"\x80\x00", b"\x80\x80\x00", b"\x80\x80\x80\x80\x00", b"\x80\x80\x80\x80\x80\x00"):
        assert cause_of(decode_frame, mac + b"\x10\0\x1a" + length) is Cause.MALFORMED
    epoch = wire_pb2.CallHeader(key_epoch=7).SerializeToString()
    data = HEADER.encode()
    assert epoch in data
    assert cause_of(CallHeader.decode, data.replace(epoch, epoch[:1] + b"\x87\x00")) is Cause.MALFORMED
    # 2^32 + 7 would be 7 in a field of 32 bits.
    wide = epoch[:1] + b"\x87\x80\x80\x80\x10"
    assert cause_of(CallHeader.decode, data.replace(epoch, wide)) is Cause.MALFORMED


def test_explicit_default() -> None:
    """A field that spells out its default, which the canonical encoding omits, is refused."""
    assert cause_of(CallHeader.decode, replace(HEADER, deadline_ms=0).encode() + b"\x50\0") is Cause.MALFORMED


@pytest.mark.parametrize("length", [0, 31, 33])
def test_mac_length(length: int) -> None:
    """A mac of another length is refused wherever it stands."""
    mac = b"m" * length
    assert (
        cause_of(decode_call, wire_pb2.SealedCall(mac=mac, header=b"h").SerializeToString())
        is Cause.MALFORMED
    )
    refusal = wire_pb2.Refusal(mac=mac, instance=world.B.raw, key_epoch=1).SerializeToString()
    assert cause_of(Refusal.decode, refusal) is Cause.MALFORMED
    frame = wire_pb2.Frame(mac=mac, flags=0, payload=b"").SerializeToString()
    assert cause_of(decode_frame, frame) is Cause.MALFORMED


def test_call_without_header() -> None:
    """A call whose header is empty gets no further than the header's version."""
    mac, header = decode_call(field(1, MAC))
    assert (mac, header) == (MAC, b"")
    assert cause_of(CallHeader.decode, header) is Cause.BAD_VERSION


def test_call_bounds() -> None:
    """A header passes up to its bound; past it the call is refused unread."""
    assert decode_call(encode_call(MAC, b"h" * MAX_HEADER)) == (MAC, b"h" * MAX_HEADER)
    assert cause_of(decode_call, encode_call(MAC, b"h" * (MAX_HEADER + 1))) is Cause.TOO_LARGE
    assert cause_of(decode_call, b"\xff" * (MAX_HEADER + 65)) is Cause.TOO_LARGE


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"version": 0}, Cause.BAD_VERSION),
        ({"version": 2}, Cause.BAD_VERSION),
        ({"version": 2**32 - 1}, Cause.BAD_VERSION),
        ({"sequence": 0}, Cause.MALFORMED),
        ({"sequence": MAX_SEQUENCE + 1}, Cause.MALFORMED),
        ({"sequence": 2**64 - 1}, Cause.MALFORMED),
        ({"metadata_digest": b""}, Cause.MALFORMED),
        ({"metadata_digest": b"d" * 31}, Cause.MALFORMED),
        ({"metadata_digest": b"d" * 33}, Cause.MALFORMED),
        ({"deadline_ms": MAX_DEADLINE_MS + 1}, Cause.MALFORMED),
        ({"deadline_ms": 2**64 - 1}, Cause.MALFORMED),
        ({"key_epoch": 0}, Cause.MALFORMED),
        ({"source": ""}, Cause.MALFORMED),
        ({"source": "Frontend"}, Cause.MALFORMED),
        ({"source": "frontend\n"}, Cause.MALFORMED),
        ({"destination": "or ders"}, Cause.MALFORMED),
        ({"source_instance": b""}, Cause.MALFORMED),
        ({"source_instance": b"x" * 17}, Cause.MALFORMED),
        ({"destination_instance": b"x" * 15}, Cause.MALFORMED),
        ({"method": ""}, Cause.BAD_METHOD),
        ({"method": "p.S/M"}, Cause.BAD_METHOD),
        ({"method": "/p.S/M "}, Cause.BAD_METHOD),
        ({"method": "/p.S/../M"}, Cause.BAD_METHOD),
    ],
)
def test_header_fields(changes: dict[str, object], cause: Cause) -> None:
    """A header with any one field outside its range or grammar is refused."""
    raw = wire_pb2.CallHeader.FromString(HEADER.encode())
    for name, value in changes.items():
        setattr(raw, name, value)
    assert cause_of(CallHeader.decode, raw.SerializeToString(deterministic=True)) is cause


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"fronten\xe4"])
def test_header_that_is_not_utf_8(text: bytes) -> None:
    """Text that is not UTF-8 is refused as malformed, whatever protobuf makes of it."""
    good = field(2, b"frontend")
    assert good in HEADER.encode()
    assert cause_of(CallHeader.decode, HEADER.encode().replace(good, field(2, text))) is Cause.MALFORMED


IN_PURE_PYTHON = r"""
from google.protobuf.internal import api_implementation
from mesh.core.errors import PeerError
from mesh.core.join import read_request
from mesh.core.wire import CallHeader
from mesh.v1 import auth_pb2

assert api_implementation.Type() == "python"
request = auth_pb2.JoinRequest(body=b"\x08\x01\x12\x01\xff", mac=b"m" * 32)
for decode, data in ((CallHeader.decode, b"\x08\x01\x12\x01\xff"), (read_request, request)):
    try:
        decode(data)
    except PeerError as error:
        print(error.cause.name)
"""


def test_not_utf_8_where_protobuf_is_pure_python() -> None:
    """The same holds where protobuf has no C library and reports such text in its own way."""
    ran = subprocess.run(
        [sys.executable, "-c", IN_PURE_PYTHON],
        env={"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout.split(), ran.returncode) == (["MALFORMED", "MALFORMED"], 0), ran.stderr


@pytest.mark.parametrize(
    "changes",
    [{"instance": b""}, {"instance": b"x" * 15}, {"instance": b"x" * 17}, {"key_epoch": 0}],
)
def test_refusal_fields(changes: dict[str, object]) -> None:
    """A refusal with any one field out of range is refused itself."""
    raw = wire_pb2.Refusal.FromString(REFUSAL.encode())
    for name, value in changes.items():
        setattr(raw, name, value)
    assert cause_of(Refusal.decode, raw.SerializeToString()) is Cause.MALFORMED


@given(st.binary(min_size=32, max_size=32), instances, st.integers(1, MAX_EPOCH))
def test_refusal_there_and_back(mac: bytes, instance: InstanceId, epoch: int) -> None:
    """Every refusal comes back as it was."""
    refusal = Refusal(mac, instance, KeyEpoch(epoch))
    assert Refusal.decode(refusal.encode()) == refusal


# The slow twin of the hand-written codec of frames: protobuf's own.


def twin(data: bytes) -> tuple[bytes, int, bytes] | None:
    """Read a frame with protobuf, by the rules of wire.proto."""
    frame = wire_pb2.Frame()
    try:
        frame.ParseFromString(data)
    except DecodeError:
        return None
    frame.DiscardUnknownFields()
    whole = len(frame.mac) == 32 and frame.HasField("flags") and frame.HasField("payload")
    if not whole or frame.SerializeToString(deterministic=True) != data:
        return None
    if frame.flags not in {0, END, END | EMPTY} or (frame.flags & EMPTY and frame.payload):
        return None
    return frame.mac, frame.flags, frame.payload


def ours(data: bytes) -> tuple[bytes, int, bytes] | None:
    try:
        frame = decode_frame(data)
    except PeerError:
        return None
    return frame.mac, frame.flags, frame.payload


sizes = st.sampled_from([0, 1, 127, 128, 129, 16383, 16384, 16385])
payloads = st.binary(max_size=200) | sizes.map(lambda size: b"p" * size)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([0, END]), payloads)
def test_frame_encodes_as_protobuf(mac: bytes, flags: int, payload: bytes) -> None:
    """The codec of frames writes what protobuf writes, and reads it back."""
    data = encode_frame(mac, flags, payload)
    assert data == wire_pb2.Frame(mac=mac, flags=flags, payload=payload).SerializeToString()
    assert ours(data) == twin(data) == (mac, flags, payload)
    assert len(data) - len(payload) <= FRAME_OVERHEAD


@pytest.mark.parametrize("size", [2**21 - 1, 2**21, 2**21 + 1])
def test_large_frame(size: int) -> None:
    """Payloads around a length of three and four bytes come back as they were."""
    assert ours(encode_frame(MAC, 0, bytes(size))) == (MAC, 0, bytes(size))


@given(payloads, st.data())
@example(b"", None)
def test_frame_decodes_as_protobuf(payload: bytes, data: st.DataObject | None) -> None:
    """On changed frames, codec and protobuf agree about what is a frame and what is in it."""
    good = encode_frame(MAC, 0, payload)
    if data is not None:
        at = data.draw(st.integers(30, min(len(good), 45)))
        cut = data.draw(st.integers(0, 3))
        good = good[:at] + data.draw(st.binary(max_size=4)) + good[at + cut :]
    assert ours(good) == twin(good)


@pytest.mark.parametrize("flags", range(256))
def test_frame_flags(flags: int) -> None:
    """Only no flag, END, and END with EMPTY are frames; EMPTY alone and unknown bits are not."""
    data = field(1, MAC) + bytes([0x10, flags]) + b"\x1a\0"
    assert (ours(data) is not None) is (flags in {0, END, END | EMPTY})
    assert ours(data) == twin(data)


def test_empty_frame_carries_nothing() -> None:
    """A frame that says that it is empty and is not, is refused."""
    assert ours(field(1, MAC) + bytes([0x10, END | EMPTY]) + b"\x1a\1x") is None


@pytest.mark.parametrize(
    "length", [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x7f", b"\xff" * 9 + b"\x01", b"\x05"]
)
def test_frame_length_that_lies(length: bytes) -> None:
    """A length beyond what is there is refused, however large it claims to be."""
    assert ours(field(1, MAC) + b"\x10\0\x1a" + length + b"abcd") is None
