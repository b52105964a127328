"""The corners of the wire format, each as Python's protobuf has it; and how deep a message may be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lua_host.lua.bridge import CodecError
from tests.lua_host.lua.twin import NUMBER_ZERO, compare, descriptors, lua, parsed, schema
from tests.lua_host.lua.wire import (
    BYTES,
    END_GROUP,
    FIXED32,
    FIXED64,
    GROUP,
    VARINT,
    group,
    sized,
    tag,
    varint,
)

INT32, UINT32, UINT64, SINT32, BOOL, STRING, COLOR, POINT = 3, 5, 6, 7, 13, 14, 16, 17
ENTRY_KEY = sized(1, b"k")
NEEDY = tag(1, VARINT) + b"\1" + tag(5, VARINT) + b"\5"


def scalar(number: int, value: bytes) -> bytes:
    return tag(number, VARINT) + value


#: Bytes of codec.test.Scalars unless another message is named.
CORNERS = {
    "a tag longer than it need be": varint(INT32 << 3, 5) + b"\5",
    "a tag of six bytes": varint(INT32 << 3, 6) + b"\5",
    "a tag above 32 bits": varint(INT32 << 3 | 2**32) + b"\5",
    "the highest number": tag(2**29 - 1, VARINT) + b"\5",
    "number 0": tag(0, VARINT) + b"\5",
    "number 0 with a length": sized(0, b""),
    "wire type 6": tag(INT32, 6),
    "wire type 7": tag(INT32, 7),
    "a varint of ten bytes": scalar(INT32, varint(5, 10)),
    "a varint of eleven bytes": scalar(INT32, varint(5, 11)),
    "a tenth byte with more than a bit": scalar(UINT64, b"\x81" + b"\x80" * 8 + b"\x7f"),
    "an unknown varint of eleven bytes": scalar(100, varint(5, 11)),
    "int32 of more bits": scalar(INT32, varint(2**32 + 5)),
    "int32 of 33 bits that ends in a sign": scalar(INT32, varint(2**32 + 2**31)),
    "int32 that is negative in 32 bits": scalar(INT32, varint(2**32 - 1)),
    "uint32 of more bits": scalar(UINT32, varint(2**32 + 5)),
    "sint32 of more bits": scalar(SINT32, varint(2**33 + 5)),
    "bool of 2": scalar(BOOL, b"\2"),
    "bool of 2^32": scalar(BOOL, varint(2**32)),
    "bool of a bit that is lost": scalar(BOOL, b"\x80" * 9 + b"\2"),
    "enum of more bits": scalar(COLOR, varint(2**32 + 127)),
    "enum below 0": scalar(COLOR, varint(-1)),
    "enum that is unknown": scalar(COLOR, varint(77)),
    "enum that looks like the first byte of another": scalar(COLOR, varint(200)),
    "a length longer than it need be": tag(STRING, BYTES) + varint(1, 5) + b"a",
    "a length of 2^63": tag(STRING, BYTES) + varint(2**63) + b"a",
    "a length of 2^31": tag(STRING, BYTES) + varint(2**31) + b"a",
    "a length one too long": tag(STRING, BYTES) + varint(2) + b"a",
    "an unknown length past the end": tag(100, BYTES) + varint(2) + b"a",
    "the last of a field wins": scalar(INT32, b"\1") + scalar(INT32, b"\2"),
    "the default after a value": scalar(INT32, b"\1") + scalar(INT32, b"\0"),
    "messages are merged": sized(POINT, scalar(1, b"\2")) + sized(POINT, scalar(2, b"\4")),
    "wrong wire types are unknown": sized(INT32, b"a")
    + tag(INT32, FIXED32)
    + b"1234"
    + tag(STRING, VARINT)
    + b"\1",
    "a known number as a group": group(INT32, b""),
    "a message past its parent's end": tag(POINT, BYTES) + b"\1" + scalar(1, b"\2"),
    "a varint past its message's end": sized(POINT, tag(1, VARINT)) + b"\1",
    "a string that is not UTF-8": sized(STRING, b"\xff"),
    "a surrogate": sized(STRING, b"\xed\xa0\x80"),
    "a letter longer than it need be": sized(STRING, b"\xc0\x80"),
    "a letter above U+10FFFF": sized(STRING, b"\xf4\x90\x80\x80"),
    "half a letter": sized(STRING, b"\xe2\x82"),
    "a group that ends as another": tag(100, GROUP) + tag(101, END_GROUP),
    "a group that does not end": tag(100, GROUP) + scalar(1, b"\1"),
    "a group that has not begun": tag(100, END_GROUP),
    "a group over its message's end": sized(POINT, tag(100, GROUP)) + tag(100, END_GROUP),
    "groups in each other": group(100, group(101, scalar(1, b"\1")) + sized(2, b"x")),
    "wire type 6 in a group": group(100, tag(1, 6)),
    "fixed64 cut short": tag(10, FIXED64) + b"1234567",
    "fixed64 cut short and unknown": tag(100, FIXED64) + b"1234567",
    "fixed32 cut short and unknown": tag(100, FIXED32) + b"123",
}
LISTS = {
    "packed and not": scalar(INT32, b"\1") + sized(INT32, b"\2\3") + scalar(INT32, b"\4"),
    "packed to nothing": sized(INT32, b""),
    "a packed varint past the end": sized(INT32, b"\1\x80") + b"\1",
    "packed fixed32 with a byte left": sized(9, b"12345"),
    "packed bools": sized(BOOL, b"\0\1\2"),
    "packed enums": sized(COLOR, b"\1" + varint(77) + varint(-1)),
    "strings are never packed": sized(STRING, b"\1a"),
}
MAPS = {
    "an entry of nothing": sized(3, b""),
    "an entry without a key": sized(3, tag(2, VARINT) + b"\5"),
    "an entry without a value": sized(3, ENTRY_KEY),
    "an entry without a message": sized(17, ENTRY_KEY),
    "a value before its key": sized(3, tag(2, VARINT) + b"\5" + ENTRY_KEY),
    "a key twice in an entry": sized(3, sized(1, b"a") + ENTRY_KEY),
    "a key in two entries": sized(3, ENTRY_KEY + tag(2, VARINT) + b"\5") + sized(3, ENTRY_KEY),
    "a message twice in an entry": sized(
        17, ENTRY_KEY + sized(2, scalar(1, b"\2")) + sized(2, scalar(2, b"\4"))
    ),
    "a message in two entries": sized(17, ENTRY_KEY + sized(2, scalar(1, b"\2"))) + sized(17, ENTRY_KEY),
    "an entry with an unknown field": sized(3, ENTRY_KEY + tag(2, VARINT) + b"\5" + scalar(3, b"\1")),
    "an entry with a value of another wire type": sized(3, ENTRY_KEY + sized(2, b"x")),
    "an unknown field in an entry's message": sized(17, ENTRY_KEY + sized(2, scalar(9, b"\2"))),
    "a key that is not UTF-8": sized(3, sized(1, b"\xff")),
}
CHOICES = {
    "the last member wins": scalar(INT32, b"\1") + sized(STRING, b"a"),
    "a member of another oneof stays": sized(19, b"") + scalar(INT32, b"\1"),
    "a message is merged into itself": sized(POINT, scalar(1, b"\2")) + sized(POINT, scalar(2, b"\4")),
    "but not across another": sized(POINT, scalar(1, b"\2")) + scalar(INT32, b"\1") + sized(POINT, b""),
}
CLOSED = {
    "an unknown number": scalar(16, b"\7"),
    "an unknown number after a known one": scalar(16, b"\5") + scalar(16, b"\7"),
    "a first value that is not 0": scalar(17, b"\0"),
}
CLOSED_LISTS = {
    "unknown numbers among known": scalar(16, b"\5") + scalar(16, b"\7") + scalar(16, b"\0"),
    "and packed": sized(16, b"\5\7\0") + sized(17, b"\1\2\3"),
}
CLOSED_MAPS = {
    "an unknown number": sized(1, ENTRY_KEY + scalar(2, b"\7")),
    "an unknown number before a known one": sized(1, ENTRY_KEY + scalar(2, b"\7") + scalar(2, b"\5")),
    "a known number before an unknown one": sized(1, ENTRY_KEY + scalar(2, b"\5") + scalar(2, b"\7")),
    "no number": sized(1, ENTRY_KEY),
    "a message without what it needs": sized(3, ENTRY_KEY),
    "a message with what it needs": sized(3, ENTRY_KEY + sized(2, NEEDY)),
}
CLOSED_CHOICES = {
    "an unknown number replaces nothing": sized(2, b"a") + scalar(1, b"\7"),
    "a replaced message needs nothing": sized(3, b"") + sized(2, b"a"),
}
NEEDS = {
    "nothing at all": b"",
    "one of two": scalar(1, b"\1"),
    "an unknown enum is not there": scalar(1, b"\1") + scalar(5, b"\7"),
    "in a message": NEEDY + sized(3, b""),
    "in a list": NEEDY + sized(4, NEEDY) + sized(4, b""),
    "in two parts": NEEDY + sized(3, scalar(1, b"\1")) + sized(3, scalar(5, b"\5")),
}
CASES = [
    pytest.param(f"codec.{name}", data, id=f"{name}: {what}")
    for name, corners in {
        "test.Scalars": CORNERS,
        "test.Lists": LISTS,
        "test.Maps": MAPS,
        "test.Choice": CHOICES,
        "old.Optionals": CLOSED,
        "old.Lists": CLOSED_LISTS,
        "old.Maps": CLOSED_MAPS,
        "old.Choice": CLOSED_CHOICES,
        "old.Needy": NEEDS,
    }.items()
    for what, data in corners.items()
]


@pytest.mark.parametrize(("name", "data"), CASES)
def test_a_corner_is_as_python_has_it(name: str, data: bytes) -> None:
    """Taken or refused, and if taken then with the same in it."""
    compare(name, data)


def test_the_corners_are_right_and_wrong() -> None:
    """A twin that refuses everything, or takes it, would show nothing."""
    taken = sum(parsed(*case.values) is not None for case in CASES)  # type: ignore[arg-type]
    assert len(CASES) / 3 < taken < len(CASES) * 2 / 3


@pytest.mark.parametrize(("name", "data"), CASES)
def test_a_message_cut_short_is_as_python_has_it(name: str, data: bytes) -> None:
    """At every byte."""
    for end in range(len(data)):
        compare(name, data[:end])


# Where the codec is stricter --------------------------------------------------------------------------------


def test_no_field_has_the_number_0_in_a_group_either() -> None:
    """Python skips what is in an unknown group without a look at the numbers."""
    with pytest.raises(CodecError, match=NUMBER_ZERO):
        schema().decode_table("codec.test.Scalars", group(100, scalar(0, b"\1")))


def test_a_string_of_proto2_is_utf8() -> None:
    """Python gives bytes for what is not."""
    with pytest.raises(CodecError, match="a_string: has to be UTF-8, and is not at byte 2"):
        schema().decode_table("codec.old.Optionals", sized(STRING, b"a\xff"))


@pytest.mark.parametrize("number", [STRING, 100])
def test_a_length_of_six_bytes_is_none(number: int) -> None:
    """Known field or not. Python's releases differ in that."""
    with pytest.raises(CodecError, match="a length has more than 5 bytes"):
        schema().decode_table("codec.test.Scalars", tag(number, BYTES) + varint(1, 6) + b"a")


def test_what_is_required_is_required_of_bytes_too() -> None:
    """Python's parser leaves that to its caller. The error says where it is missing."""
    with pytest.raises(
        CodecError, match=r"^holder\.needy\.more\[2\]\.(id|level): is required, and not there$"
    ):
        schema().decode_table("codec.old.Holder", sized(2, sized(1, NEEDY + sized(4, NEEDY) + sized(4, b""))))


# Depth ------------------------------------------------------------------------------------------------------

Wrap = Callable[[bytes], bytes]
NAME, LEFT, LEAVES, NAMED, INNER, BRANCH = 1, 2, 3, 4, 5, 7
#: What puts a tree into a tree: its bytes around those of the other, and how many levels that adds.
WRAPS: dict[str, tuple[Wrap, int]] = {
    "a message": (lambda inner: sized(LEFT, inner), 1),
    "an element": (lambda inner: sized(LEAVES, inner), 1),
    "an entry": (lambda inner: sized(NAMED, ENTRY_KEY + sized(2, inner)), 2),
    "a member": (lambda inner: sized(INNER, inner), 1),
    "two messages": (lambda inner: sized(BRANCH, sized(2, inner)), 2),
}
#: How deep Python reads: the message, and a hundred in it.
PYTHONS = 101


def wrapped(wrap: Wrap, times: int, core: bytes) -> bytes:
    for _ in range(times):
        core = wrap(core)
    return core


@pytest.mark.parametrize(("wrap", "levels"), WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize(
    ("core", "more"),
    [(b"", 0), (sized(NAMED, b""), 1), (group(20, b""), 1), (group(20, group(21, b"")), 2)],
    ids=["nothing", "an entry", "a group", "groups"],
)
def test_levels_are_counted_as_python_counts_them(wrap: Wrap, levels: int, core: bytes, more: int) -> None:
    """Messages, entries of maps and unknown groups are one each; the last that fits is taken."""
    fits = (PYTHONS - 1 - more) // levels
    for times in range(fits - 1, fits + 2):
        data = wrapped(wrap, times, core)
        assert (parsed("codec.test.Tree", data) is not None) == (times <= fits)
        compare("codec.test.Tree", data)


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@pytest.mark.parametrize(("wrap", "levels"), WRAPS.values(), ids=WRAPS)
def test_both_ways_have_the_same_depth(wrap: Wrap, levels: int, depth: int) -> None:
    """A message is written just if it is read."""
    shallow = lua().schema(descriptors(), depth)
    for times in range(depth + 1):
        data = wrapped(wrap, times, sized(NAME, b"core"))
        table = schema().decode_table("codec.test.Tree", data)
        if 1 + times * levels <= depth:
            shallow.decode_table("codec.test.Tree", data)
            assert shallow.encode_table("codec.test.Tree", table) == data
        else:
            with pytest.raises(CodecError, match=f"nested deeper than {depth} levels"):
                shallow.decode_table("codec.test.Tree", data)
            with pytest.raises(CodecError, match=f"nested deeper than {depth} levels"):
                shallow.encode_table("codec.test.Tree", table)


def test_an_entry_is_a_level_whatever_its_value_is() -> None:
    """A map needs one if there is anything in it."""
    flat = lua().schema(descriptors(), 1)
    assert flat.encode("codec.test.Maps", {"a_int32": {}}) == b""
    with pytest.raises(CodecError, match=r"^a_int32: nested deeper than 1 levels$"):
        flat.encode("codec.test.Maps", {"a_int32": {"k": 1}})
    with pytest.raises(CodecError, match=r"^a_int32: nested deeper than 1 levels$"):
        flat.decode_table("codec.test.Maps", sized(3, b""))


def test_an_error_far_down_is_told_briefly() -> None:
    """The way to it is cut in the middle."""
    data = wrapped(WRAPS["a message"][0], 90, sized(NAME, b"\xff"))
    with pytest.raises(CodecError, match=r"^(left\.){5}left \.\.\. (left\.){5}name: has to be UTF-8"):
        schema().decode_table("codec.test.Tree", data)


def test_groups_without_an_end_end() -> None:
    """A megabyte of beginnings costs no stack."""
    with pytest.raises(CodecError, match="unknown groups are nested too deep"):
        schema().decode_table("codec.test.Tree", tag(20, GROUP) * 500_000)
