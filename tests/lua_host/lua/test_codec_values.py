"""What a script may put into a field: nothing that would have to change to fit. The error names the field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.lua_host.lua.bridge import CodecError, exact
from tests.lua_host.lua.twin import classes, lua, schema, seen

PRELUDE = """function(codec)
  local uint64, most = codec.uint64, codec.uint64("18446744073709551615")
  return {%s}
end"""


def table(fields: str) -> Any:
    """Give a table of Lua, from the inside of its constructor."""
    return lua().eval((PRELUDE % fields).encode())(lua().codec)


def refusal(name: str, fields: str) -> str:
    """Give the error that a message ends in."""
    with pytest.raises(CodecError) as caught:
        schema().encode_table(f"codec.test.{name}", table(fields))
    return str(caught.value)


NO_INTEGERS = ["1.5", "3.0", "'1'", "true", "{}", "print"]
SIGNED_32 = [*NO_INTEGERS, "most", "1 << 31", "(-1 << 31) - 1", "2.0^31"]
SIGNED_64 = [*NO_INTEGERS, "most", "2.0^53", "0/0"]
UNSIGNED_32 = [*NO_INTEGERS, "most", "-1", "1 << 32"]
UNSIGNED_64 = [*NO_INTEGERS, "-1", "math.mininteger", "2.0^64"]
NO_UTF8 = ["'\\xff'", "'a\\xed\\xa0\\x80'", "'\\xc0\\x80'", "'\\xf4\\x90\\x80\\x80'"]
WRONG = {
    "int32": SIGNED_32,
    "sint32": SIGNED_32,
    "sfixed32": SIGNED_32,
    "uint32": UNSIGNED_32,
    "fixed32": UNSIGNED_32,
    "int64": SIGNED_64,
    "sint64": SIGNED_64,
    "sfixed64": SIGNED_64,
    "uint64": UNSIGNED_64,
    "fixed64": UNSIGNED_64,
    "bool": ["0", "1", "'true'", "{}", "most", "print"],
    "string": ["1", "1.5", "true", "{}", "most", *NO_UTF8],
    "bytes": ["1", "1.5", "true", "{}", "most"],
    "double": ["'1'", "true", "{}", "most", "(1 << 53) + 1", "math.maxinteger"],
    "float": ["'1'", "true", "{}", "most", "(1 << 24) + 1", "1e39", "-1e39", "0x1.ffffffp127"],
    "color": ["1.0", "true", "{}", "most", "'COLOR_REDD'", "''", "1 << 31", "(-1 << 31) - 1"],
    "point": ["1", "1.5", "'x'", "true", "most", "print", "{z = 1}", "{x = '1'}"],
}
NO_KEY_TYPES = {"bytes", "double", "float", "color", "point"}
KEYS = {kind: wrong for kind, wrong in WRONG.items() if kind not in NO_KEY_TYPES}
# Lua itself takes a float for the integer that it is when it is a key; and nothing is a key that is not a
# number.
NO_KEYS = {"3.0", "2.0^31", "2.0^53", "0/0"}
#: Where a value may be, as a table and as the path that an error has to name.
PLACES = {
    "Scalars": ("a_{} = {}", "a_{}"),
    "Optionals": ("a_{} = {}", "a_{}"),
    "Choice": ("a_{} = {}", "a_{}"),
    "Lists": ("a_{} = {{{}}}", "a_{}[1]"),
    "Maps": ("a_{} = {{key = {}}}", 'a_{}["key"]'),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "wrong"), [(kind, wrong) for kind in WRONG for wrong in WRONG[kind]])
def test_a_wrong_value_is_an_error_that_names_the_field(place: str, kind: str, wrong: str) -> None:
    """Of every kind, wherever it is; and of what is in a message, with the way to it."""
    fields, path = PLACES[place]
    inner = wrong[1:2].join((".", "")) if kind == "point" and wrong.startswith("{x") else ""
    error = refusal(place, fields.format(kind, wrong))
    assert error.startswith(f"{path.format(kind)}{inner}: "), error
    assert len(error) < 300


@pytest.mark.parametrize(
    ("kind", "wrong"), [(kind, wrong) for kind in KEYS for wrong in KEYS[kind] if wrong not in NO_KEYS]
)
def test_a_wrong_key_is_an_error_that_names_the_field(kind: str, wrong: str) -> None:
    """And shows the key as far as it can be shown."""
    error = refusal("Keys", f"a_{kind} = {{[{wrong}] = 'x'}}")
    assert error.startswith(f"a_{kind}["), error
    assert "]: the key has to be " in error


@pytest.mark.parametrize("wrong", ["1", "'abc'", "true", "most", "print"])
@pytest.mark.parametrize("place", ["Lists", "Maps"])
def test_a_list_or_map_is_a_table(place: str, wrong: str) -> None:
    """A uint64 value is a table too, but not for this."""
    assert refusal(place, f"a_int32 = {wrong}").startswith("a_int32: has to be a ")


@pytest.mark.parametrize(
    ("elements", "missing"),
    [
        ("nil, 2", 1),
        ("1, nil, 3", 2),
        ("[0] = 1", 1),
        ("[2] = 1", 1),
        ("[-1] = 1, 2", 2),
        ("1, [1.5] = 1", 2),
        ("1, n = 1", 2),
        ("[1] = 1, [3] = 3, x = 2", 2),
        ("[most] = 1", 1),
    ],
)
def test_a_list_has_no_holes_and_no_other_keys(elements: str, missing: int) -> None:
    """Nothing is left out in silence."""
    error = refusal("Lists", f"a_int32 = {{{elements}}}")
    assert error.startswith("a_int32: has to be a list from 1 on")
    assert error.endswith(f"none is at {missing}")


def test_a_list_may_be_stored_in_any_way() -> None:
    """Lua's tables keep integers in two places; which of them is nobody's business."""
    backwards = "(function() local list = {} for i = 50, 1, -1 do list[i] = i end return list end)()"
    encoded = schema().encode_table("codec.test.Lists", table(f"a_int32 = {backwards}"))
    assert list(classes()["codec.test.Lists"].FromString(encoded).a_int32) == list(range(1, 51))  # type: ignore[attr-defined]


# Errors -----------------------------------------------------------------------------------------------------

TEXTS = [
    ("Scalars", "a_int32 = 3.0", "a_int32: has to be an integer, not a float"),
    (
        "Scalars",
        "a_int32 = 1 << 31",
        "a_int32: has to be an integer from -2147483648 to 2147483647, not 2147483648",
    ),
    ("Scalars", "a_uint64 = -1", "a_uint64: has to be an integer from 0 to 18446744073709551615, not -1"),
    ("Scalars", "a_int64 = most", "a_int64: has to be an integer, not a uint64 value"),
    ("Scalars", "a_float = 1e39", "a_float: has to fit into a float of 32 bits, and 1e+39 does not"),
    (
        "Scalars",
        "a_color = 'COLOR_REED'",
        'a_color: no value "COLOR_REED" in codec.common.Color: did you mean COLOR_RED',
    ),
    (
        "Scalars",
        "a_in32 = 1",
        'codec.test.Scalars: no field "a_in32" in codec.test.Scalars: did you mean a_int32',
    ),
    ("Scalars", "a_point = {z = 1}", 'a_point: no field "z" in codec.common.Point: there is x, y'),
    ("Scalars", "1", "codec.test.Scalars: no field 1 in codec.test.Scalars: there is "),
    ("Nothing", "x = 1", 'codec.test.Nothing: no field "x" in codec.test.Nothing'),
    (
        "Tree",
        "left = {leaves = {{}, {branch = {length = 1.5}}}}",
        "left.leaves[2].branch.length: has to be an integer or ",
    ),
    (
        "Tree",
        "named = {['a\"\\n'] = {left = 1}}",
        'named["a\\x22\\x0a"].left: has to be a table, not an integer',
    ),
    (
        "Tree",
        "named = {[string.rep('k', 99)] = 1}",
        f'named["{"k" * 40}..."]: has to be a table, not an integer',
    ),
    (
        "Tree",
        "named = {x = {named = {[1] = {}}}}",
        'named["x"].named[1]: the key has to be a string, not an integer',
    ),
    (
        "Tree",
        "inner = {}, weight = 1",
        "codec.test.Tree: inner and weight are both there, and of kind there may be one",
    ),
    (
        "Tree",
        "left = {inner = {}, weight = 0}",
        "left: inner and weight are both there, and of kind there may be one",
    ),
    ("Keys", "a_uint64 = {[most] = 1}", "a_uint64[18446744073709551615]: has to be a string, not an integer"),
]


@pytest.mark.parametrize(("name", "fields", "expected"), TEXTS)
def test_an_error_says_where_what_and_what_else(name: str, fields: str, expected: str) -> None:
    """The way to the field, what is wrong there, and where there is a guess what to do."""
    assert refusal(name, fields).startswith(expected)


@pytest.mark.parametrize("wrong", [b"1", b"'x'", b"nil", b"true", b"print"])
def test_a_message_is_a_table(wrong: bytes) -> None:
    """The error of the outermost message names its type."""
    with pytest.raises(CodecError, match=r"^codec\.test\.Tree: has to be a table, not "):
        schema().encode_table("codec.test.Tree", lua().eval(wrong))


@pytest.mark.parametrize("wrong", [b"1", b"{}", b"nil"])
def test_bytes_are_a_string(wrong: bytes) -> None:
    """Nothing else is decoded."""
    with pytest.raises(CodecError, match=r"^codec\.test\.Tree: has to be a string of bytes, not "):
        schema().decode_table("codec.test.Tree", lua().eval(wrong))


def test_closed_enums_take_only_what_they_have() -> None:
    """By number too; an open one takes any of 32 bits."""
    with pytest.raises(CodecError, match=r"^level: no value 7 in codec\.old\.Level: there is LEVEL_LOW, "):
        schema().encode("codec.old.Optionals", {"level": 7})
    assert schema().encode("codec.old.Optionals", {"level": 5}) == schema().encode(
        "codec.old.Optionals", {"level": "LEVEL_HIGH"}
    )
    assert schema().encode("codec.test.Scalars", {"a_color": 7}) == b"\x80\x01\x07"


def test_what_is_required_has_to_be_there() -> None:
    """The error names the field and the way to it."""
    with pytest.raises(CodecError, match=r'^needy\["k"\]\.level: is required, and not there$'):
        schema().encode("codec.old.Maps", {"needy": {"k": {"id": 1}}})


# Edges ------------------------------------------------------------------------------------------------------

EDGES = [
    ("a_int64", "math.maxinteger", 2**63 - 1),
    ("a_int64", "math.mininteger", -(2**63)),
    ("a_sint64", "math.maxinteger", 2**63 - 1),
    ("a_sint64", "math.mininteger", -(2**63)),
    ("a_sfixed64", "math.mininteger", -(2**63)),
    ("a_uint64", "math.maxinteger", 2**63 - 1),
    ("a_uint64", "uint64('9223372036854775807')", 2**63 - 1),
    ("a_uint64", "uint64('9223372036854775808')", 2**63),
    ("a_uint64", "most", 2**64 - 1),
    ("a_fixed64", "uint64('9223372036854775808')", 2**63),
    ("a_fixed64", "most", 2**64 - 1),
    ("a_int64", "1 << 53", 2**53),
    ("a_int64", "(1 << 53) + 1", 2**53 + 1),
    ("a_int64", "(1 << 53) - 1", 2**53 - 1),
    ("a_double", "1 << 53", 2.0**53),
    ("a_double", "(1 << 53) - 1", 2.0**53 - 1),
    ("a_double", "-(1 << 53)", -(2.0**53)),
    ("a_double", "math.mininteger", -(2.0**63)),
    ("a_double", "-0.0", -0.0),
    ("a_double", "1/0", math.inf),
    ("a_double", "-1/0", -math.inf),
    ("a_double", "0/0", math.nan),
    ("a_double", "5e-324", 5e-324),
    ("a_float", "1 << 24", 2.0**24),
    ("a_float", "-0.0", -0.0),
    ("a_float", "1/0", math.inf),
    ("a_float", "0/0", math.nan),
    ("a_float", "0.1", 0.10000000149011612),
    ("a_float", "0x1.fffffefffffffp127", float.fromhex("0x1.fffffep127")),
    ("a_int32", "(1 << 31) - 1", 2**31 - 1),
    ("a_int32", "-1 << 31", -(2**31)),
    ("a_sint32", "-1 << 31", -(2**31)),
    ("a_sfixed32", "-1 << 31", -(2**31)),
    ("a_uint32", "(1 << 32) - 1", 2**32 - 1),
    ("a_fixed32", "(1 << 32) - 1", 2**32 - 1),
    ("a_color", "'COLOR_FIRST'", "COLOR_FIRST"),
    ("a_color", "'COLOR_CRIMSON'", "COLOR_RED"),
    ("a_string", "'\\u{10ffff}\\0'", "\U0010ffff\0"),
]


@pytest.mark.parametrize("name", ["codec.test.Scalars", "codec.test.Optionals", "codec.test.Choice"])
@pytest.mark.parametrize(("field", "text", "value"), EDGES)
def test_edges_pass_unchanged(name: str, field: str, text: str, value: object) -> None:
    """To Python and back to Lua."""
    encoded = schema().encode_table(name, table(f"{field} = {text}"))
    message = classes()[name].FromString(encoded)
    assert exact(seen(message)[field]) == exact(value)
    decoded = schema().decode(message.DESCRIPTOR, encoded)
    assert exact(decoded[field]) == exact(value)


ZEROS = {
    **{f"a_{kind}": "0" for kind in ("double", "int32", "uint64", "fixed64", "sfixed32", "sint64")},
    "a_float": "0.0",
    "a_bool": "false",
    "a_string": "''",
    "a_bytes": "''",
    "a_color": "'COLOR_NONE'",
}


def test_defaults_are_sent_where_they_are_told_from_absence() -> None:
    """And nowhere else. An integer 0 in a field of floats is one."""
    zeros = table(", ".join(f"{field} = {text}" for field, text in ZEROS.items()))
    assert schema().encode_table("codec.test.Scalars", zeros) == b""
    sent = schema().encode_table("codec.test.Optionals", zeros)
    assert set(seen(classes()["codec.test.Optionals"].FromString(sent))) == set(ZEROS)


@pytest.mark.parametrize("kind", ["double", "float"])
def test_minus_zero_is_no_default(kind: str) -> None:
    """It would come out as another number."""
    assert len(schema().encode_table("codec.test.Scalars", table(f"a_{kind} = -0.0"))) > 1
