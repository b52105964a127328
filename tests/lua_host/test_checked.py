"""The host's reading of messages: what passes is what its descriptor says, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.lua_host.checked import BadMessageError, Checker
from services.lua_host.shapes import MAX_DEPTH
from tests.lua_host import schemas

MANY = 1_000_000


def checker(*fields: str, syntax: str = "proto3", size: int = MANY, depth: int = 32) -> Checker:
    """Give a checker of one type, ``t.M``, which can refer to itself."""
    proto = schemas.file(syntax)
    schemas.message(proto, "M", *fields)
    return Checker(schemas.kind(proto, "M"), size, depth)


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def sub(field: int, content: bytes) -> bytes:
    """Give a field that holds bytes, a text or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(content: bytes) -> bytes:
    """Give an entry of a map, field 1, whose value is a message."""
    return sub(1, sub(2, content))


def nested(
    levels: int, wrap: Callable[[bytes], bytes] = lambda content: sub(1, content), leaf: bytes = b""
) -> bytes:
    """Give a message of so many levels."""
    for _ in range(levels - 1):
        leaf = wrap(leaf)
    return leaf


def refused(subject: Checker, payload: bytes, *, strict: bool = False) -> str:
    with pytest.raises(BadMessageError) as raised:
        subject.clean(payload, strict=strict)
    said = str(raised.value)
    assert "\n" not in said
    assert said.startswith("t.M: ")
    return said.removeprefix("t.M: ")


UNKNOWN = varint(99 << 3) + b"\x01"


def test_a_good_message_passes_as_it_is() -> None:
    """Byte for byte, if it was written as the library writes."""
    subject = checker("string a", "int64 b", "repeated .t.M c")
    payload = sub(1, b"x") + b"\x10\x05" + sub(3, sub(1, b"y")) + sub(3, b"")
    assert subject.clean(payload) == subject.clean(payload, strict=True) == payload


def test_what_goes_on_is_written_anew() -> None:
    """However odd it came: fields out of order, one twice, a varint that is too long."""
    subject = checker("string a", "int64 b")
    odd = b"\x10\x85\x80\x80\x00" + sub(1, b"lost") + sub(1, b"x")
    assert subject.clean(odd) == sub(1, b"x") + b"\x10\x05"
    assert subject.clean(odd, strict=True) == sub(1, b"x") + b"\x10\x05"


def test_entries_of_maps_get_an_order() -> None:
    """Two that say the same are the same afterwards; a worker may have any order."""
    subject = checker("map string int32 m")
    one, two = (sub(1, sub(1, key) + b"\x10\x01") for key in (b"a", b"b"))
    assert subject.clean(two + one) == subject.clean(one + two, strict=True) == one + two
    assert subject.clean(two + one, strict=True) == one + two


@pytest.mark.parametrize("where", ["outside", "in a message", "in a list", "in a map"])
def test_unknown_fields_are_dropped_or_refused(where: str) -> None:
    """At every level; from a worker they are no accident."""
    subject = checker(".t.M a", "repeated .t.M b", "map string .t.M c")
    payload = {
        "outside": UNKNOWN,
        "in a message": sub(1, sub(1, UNKNOWN)),
        "in a list": sub(2, b"") + sub(2, UNKNOWN),
        "in a map": sub(3, sub(1, b"k") + sub(2, UNKNOWN)),
    }[where]
    assert UNKNOWN not in subject.clean(payload)
    assert refused(subject, payload, strict=True) == "unknown fields"


def test_unknown_fields_are_seen_at_the_deepest_level() -> None:
    """Protobuf's library would leave them at a level that is just not allowed any more."""
    subject = checker(".t.M a", depth=MAX_DEPTH)
    deepest = nested(MAX_DEPTH, leaf=UNKNOWN)
    assert subject.clean(deepest) == nested(MAX_DEPTH)
    assert refused(subject, deepest, strict=True) == "unknown fields"
    with pytest.raises(ValueError, match="max_depth has to lie between 1 and 60"):
        checker(".t.M a", depth=MAX_DEPTH + 1)


def test_unknown_groups_are_dropped() -> None:
    """They are unknown fields like others, deep ones too."""
    group = varint(99 << 3 | 3) * 40 + varint(99 << 3 | 4) * 40
    assert checker("string a").clean(group + sub(1, b"x")) == sub(1, b"x")


@pytest.mark.parametrize("payload", [b"\x08", b"\x00\x00", b"\x0a\x05abc", b"\x0b", b"\xff" * 11, b"\x0f"])
def test_what_cannot_be_parsed_is_refused(payload: bytes) -> None:
    """The type is named, the bytes are not repeated."""
    assert refused(checker("string a"), payload)


def test_the_size_is_bounded_as_it_comes_and_as_it_goes() -> None:
    """Some bytes are short and mean much: a packed list of what is written unpacked."""
    subject = checker("repeated int32 a", size=100)
    assert subject.clean(sub(1, bytes(98))) == sub(1, bytes(98))
    assert refused(subject, sub(1, bytes(99))) == "101 bytes, and 100 are the limit"
    unpacked = checker("repeated int32 a", syntax="proto2", size=100)
    assert refused(unpacked, sub(1, bytes(60))) == "120 bytes when written out, and 100 are the limit"


LEVELS = {
    "messages": (".t.M a", lambda content: sub(1, content), 1),
    "lists": ("repeated .t.M a", lambda content: sub(1, b"") + sub(1, content), 1),
    "maps": ("map string .t.M a", entry, 2),
}


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize("depth", [1, 2, 3, 32, MAX_DEPTH])
def test_the_depth_is_bounded(kind: str, depth: int) -> None:
    """The first message is level 1; a message adds one level, an entry of a map another."""
    field, wrap, adds = LEVELS[kind]
    subject = checker(field, depth=depth)
    most = 1 + (depth - 1) // adds
    subject.clean(nested(most, wrap))
    assert refused(subject, nested(most + 1, wrap)) == f"nested deeper than {depth} levels"


@pytest.mark.parametrize("levels", [101, 102, 1000, 20_000])
def test_no_depth_is_too_much_to_be_refused(levels: int) -> None:
    """It is not looked into with a stack of its own."""
    assert refused(checker(".t.M a"), nested(levels))


def test_entries_of_plain_maps_are_a_level() -> None:
    """As the codec counts them."""
    subject = checker(".t.M a", "map string int32 b", depth=2)
    assert subject.clean(sub(2, sub(1, b"k")))
    assert refused(subject, sub(1, sub(2, sub(1, b"k")))) == "nested deeper than 2 levels"


def test_types_that_cannot_be_deep_are_still_bounded() -> None:
    """A chain of types is as deep as it is long, whether one contains itself or not."""
    proto = schemas.file()
    for number in range(8):
        schemas.message(proto, f"M{number}", f".t.M{number + 1} a")
    schemas.message(proto, "M8", "string a")
    for depth in range(1, 10):
        subject = Checker(schemas.kind(proto, "M0"), MANY, depth)
        assert subject.clean(nested(depth)) == nested(depth)
        if depth < 9:
            with pytest.raises(BadMessageError, match=f"t.M0: nested deeper than {depth} levels"):
                subject.clean(nested(depth + 1))


@pytest.mark.parametrize(
    ("syntax", "field", "payload"),
    [
        ("proto3", "string a", sub(1, b"\xff")),
        ("proto2", "string a", sub(1, b"\xff")),
        ("proto2", "repeated string a", sub(1, b"x") + sub(1, b"\xed\xa0\x80")),
        ("proto2", "map string int32 a", sub(1, sub(1, b"\xff") + b"\x10\x01")),
        ("proto2", "map int32 string a", sub(1, b"\x08\x01" + sub(2, b"\xff"))),
        ("proto2", "map string string a", sub(1, sub(1, b"k") + sub(2, b"\xff"))),
    ],
)
def test_strings_are_utf_8(syntax: str, field: str, payload: bytes) -> None:
    """Those of proto2 too, which the library would take as they are."""
    said = refused(checker(field, syntax=syntax), payload)
    # Of proto3 the library tells, and older releases do not say what is wrong.
    assert "UTF-8" in said or (syntax == "proto3" and "pars" in said)


def test_strings_are_utf_8_at_every_level() -> None:
    """In a message, a list and a map of messages."""
    subject = checker("string s", ".t.M a", "repeated .t.M b", "map int32 .t.M c", syntax="proto2")
    bad = sub(1, b"\xff")
    for payload in (
        sub(2, bad),
        sub(3, b"") + sub(3, bad),
        sub(4, sub(2, bad)),
        sub(2, sub(3, sub(4, sub(2, bad)))),
    ):
        assert refused(subject, payload) == "s: has to be UTF-8"


def test_required_fields_are_required() -> None:
    """At every level; a few are named."""
    subject = checker("required int32 a", "repeated .t.M b", syntax="proto2")
    assert subject.clean(b"\x08\x01", strict=True) == b"\x08\x01"
    assert refused(subject, b"") == "a is required, and not there"
    assert (
        refused(subject, b"\x08\x01" + sub(2, b"") * 5) == "b[0].a, b[1].a, b[2].a is required, and not there"
    )


def test_a_field_may_have_the_name_of_a_method() -> None:
    """What the library's messages can do is taken from elsewhere."""
    names = ["SerializeToString", "DiscardUnknownFields", "FindInitializationErrors", "HasField", "ByteSize"]
    subject = checker(*(f"string {name}" for name in names), ".t.M a", depth=4)
    payload = sub(1, b"x") + sub(2, b"y") + sub(6, sub(6, sub(4, b"z") + UNKNOWN))
    assert subject.clean(payload) == sub(1, b"x") + sub(2, b"y") + sub(6, sub(6, sub(4, b"z")))
    assert "deeper" in refused(subject, nested(5, lambda content: sub(6, content)))


_FIELDS = (
    *("string s", "bytes b", "int64 i", "double d", "repeated sint32 p", "bool o"),
    *(".t.M m", "repeated .t.M r", "map string .t.M n", "map int32 string q"),
)
_CHECKERS = [checker(*_FIELDS, syntax=syntax, depth=4, size=200) for syntax in ("proto3", "proto2")]


@given(st.sampled_from(_CHECKERS), st.binary(max_size=80), st.booleans())
@example(_CHECKERS[0], nested(120), False)
def test_any_bytes_are_a_message_or_none(subject: Checker, payload: bytes, strict: bool) -> None:
    """There is no third way out; what passes passes again, and unchanged."""
    try:
        once = subject.clean(payload, strict=strict)
    except BadMessageError:
        return
    assert subject.clean(once, strict=True) == once


_PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "s": st.text(max_size=4),
    "i": st.integers(-(2**63), 2**63 - 1),
    "p": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    "q": st.dictionaries(st.integers(0, 9), st.text(max_size=2), max_size=2),
}
_VALUES = st.recursive(
    st.fixed_dictionaries({}, optional=_PLAIN),
    lambda inner: st.fixed_dictionaries(
        {}, optional={**_PLAIN, "m": inner, "r": st.lists(inner, max_size=2)}
    ),
    max_leaves=8,
)


def _depth(value: dict[str, Any]) -> int:
    """Count levels, the slow and obvious way."""
    inside = [value["m"]] if "m" in value else []
    inside += value.get("r", [])
    return 1 + max([_depth(one) for one in inside] + [1 if value.get("q") else 0], default=0)


@given(_VALUES, st.integers(1, 5))
def test_what_the_library_wrote_passes_if_it_is_not_too_deep(value: dict[str, Any], depth: int) -> None:
    """As it is, also with ``strict``; the depth is that of a slow twin."""
    proto = schemas.file()
    schemas.message(proto, "M", *_FIELDS)
    kind = schemas.kind(proto, "M")
    payload = schemas.python(kind)(**value).SerializeToString(deterministic=True)
    subject = Checker(kind, MANY, depth)
    if _depth(value) <= depth:
        assert subject.clean(payload, strict=True) == payload
    else:
        assert "deeper" in refused(subject, payload)
