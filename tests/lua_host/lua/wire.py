"""Bytes as protobuf has them, right and wrong, for fields that a message has and for others."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from hypothesis import strategies as st

from tests.lua_host.lua.twin import built, classes, messages

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_MOST: Final = 10


def varint(value: int, length: int = 1) -> bytes:
    """Give a varint, longer than it need be if a length says so."""
    parts: list[int] = []
    value &= 2**64 - 1
    while value >= 0x80 or len(parts) + 1 < length:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def tag(number: int, wire: int) -> bytes:
    """Give what stands before a field."""
    return varint(number << 3 | wire)


def sized(number: int, content: bytes) -> bytes:
    """Give a field with its length before it: text, a message, packed values."""
    return tag(number, BYTES) + varint(len(content)) + content


def group(number: int, content: bytes) -> bytes:
    """Give a group."""
    return tag(number, GROUP) + content + tag(number, END_GROUP)


numbers = st.one_of(
    st.integers(0, 127), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**31, 2**32 + 5])
)
lengths = st.one_of(st.just(1), st.just(1), st.integers(1, _MOST + 1))
varints = st.builds(varint, numbers, lengths)
#: What follows a tag, by its wire type; often too short, too long, or not there.
payloads = st.one_of(
    st.tuples(st.just(VARINT), varints),
    st.tuples(st.just(FIXED64), st.binary(min_size=7, max_size=8)),
    st.tuples(st.just(FIXED32), st.binary(min_size=3, max_size=4)),
    st.tuples(st.just(BYTES), st.binary(max_size=9).map(lambda content: varint(len(content)) + content)),
    st.tuples(st.just(BYTES), st.lists(varints, max_size=4).map(lambda parts: sized(0, b"".join(parts))[1:])),
    st.tuples(st.just(BYTES), st.builds(bytes.__add__, varints, st.binary(max_size=3))),
    st.tuples(st.integers(3, 7), st.just(b"")),
)


@cache
def numbers_of(descriptor: Any) -> st.SearchStrategy[int]:
    """Give numbers of fields, mostly a message's own."""
    known = st.sampled_from([field.number for field in descriptor.fields] or [1])
    return st.one_of(known, known, known, st.integers(0, 20), st.just(2**29 - 1))


@st.composite
def several(draw: st.DrawFn, descriptor: Any, depth: int) -> bytes:
    """Give a few fields in a row, for a message and with others in them."""
    return b"".join(draw(one(descriptor, depth)) for _ in range(draw(st.integers(0, 4))))


@st.composite
def one(draw: st.DrawFn, descriptor: Any, depth: int) -> bytes:
    """Give one field of any wire type; if its number is a message's, mostly one of those in it."""
    number = draw(numbers_of(descriptor))
    field = descriptor.fields_by_number.get(number)
    nests = depth > 0 and draw(st.integers(0, 9))
    if nests and field is not None and field.message_type is not None:
        return sized(number, draw(several(field.message_type, depth - 1)))
    if nests == 1:
        return group(number, draw(several(descriptor, depth - 1)))
    wire, payload = draw(payloads)
    return tag(number, wire) + bytes(payload)


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """Give a message's bytes with a few of them changed, added, taken or doubled."""
    data = bytearray(built(name, draw(messages(name))).SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 8)))
        data[at:end] = draw(st.one_of(st.binary(max_size=4), st.just(bytes(data[at:end]) * 2)))
    return bytes(data)


def garbage(name: str) -> st.SearchStrategy[bytes]:
    """Give bytes of every kind of wrong, and some that are right."""
    made = several(classes()[name].DESCRIPTOR, 3)
    return st.one_of(made, made, mutated(name), st.binary(max_size=40))
