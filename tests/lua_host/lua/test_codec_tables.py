"""Tables on both sides: read raw on the way out, whatever they pretend to be, and guarded on the way in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua_host.lua.bridge import CodecError
from tests.lua_host.lua.twin import lua, schema

TREE = "codec.test.Tree"
LIAR = b"""function(contents)
  local function lie() error("a metamethod was asked", 0) end
  return setmetatable(contents, {
    __index = lie, __newindex = lie, __len = lie, __pairs = lie, __eq = lie, __lt = lie, __le = lie,
    __call = lie, __tostring = lie, __concat = lie, __unm = lie, __name = "liar", __metatable = "liar",
  })
end"""


def run(body: str, *arguments: Any) -> Any:
    """Run the body of a Lua function of (codec, messages, ...); raise ``CodecError`` if it raises."""
    function = lua().eval(f"function(codec, messages, ...) {body} end".encode())
    return lua().call(function, lua().codec, schema().messages, *arguments)


# On the way out ---------------------------------------------------------------------------------------------


def test_metatables_are_not_asked() -> None:
    """Of messages, lists and maps; what is in the tables counts, and what they would say does not."""
    encoded = run(
        """local liar = ...
        return messages["codec.test.Tree"].encode(liar {
          name = "x", left = liar {}, leaves = liar {liar {name = "y"}}, named = liar {k = liar {weight = 1}},
        })""",
        lua().eval(LIAR),
    )
    honest = {"name": "x", "left": {}, "leaves": [{"name": "y"}], "named": {"k": {"weight": 1}}}
    assert encoded == schema().encode(TREE, honest)


def test_what_only_a_metatable_gives_is_not_there() -> None:
    """Inherited fields are not fields."""
    body = """local given = {name = "x", leaves = {{}}}
      local function pairs_of() return next, given end
      return messages["codec.test.Tree"].encode(setmetatable({}, {__index = given, __pairs = pairs_of}))"""
    assert run(body) == b""


def test_a_list_of_a_false_length_is_as_long_as_it_is() -> None:
    """``__len`` is not asked, nor ``__index`` for more."""
    body = """local function length() return 1 << 40 end
      local function more() return true end
      local list = setmetatable({true}, {__len = length, __index = more})
      return messages["codec.test.Lists"].encode {a_bool = list}"""
    assert run(body) == schema().encode("codec.test.Lists", {"a_bool": [True]})


def test_a_hole_in_a_list_is_not_filled() -> None:
    """``__index`` is not asked for what is missing either."""
    body = """local list = setmetatable({1, nil, 3}, {__index = function() return 2 end})
      return messages["codec.test.Lists"].encode {a_int32 = list}"""
    with pytest.raises(CodecError, match="of its 2 elements none is at 2"):
        run(body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("local t = {} t.left = t", r"left\.left\..* \.\.\. .*left: nested deeper than 101 levels"),
        ("local t = {} t.leaves = {t, t}", r"leaves\[1\]\.leaves\[1\].*: nested deeper than 101 levels"),
        ("local t = {} t.named = {x = t}", r'named\["x"\]\.named.*: nested deeper than 101 levels'),
        ("local t = {} t.leaves = t", r"leaves: has to be a list from 1 on"),
        ("local t = {} for i = 1, 100000 do t = {left = t} end", r".*: nested deeper than 101 levels"),
    ],
)
def test_a_table_without_an_end_is_an_error(body: str, error: str) -> None:
    """Whether it holds itself or only goes on and on."""
    with pytest.raises(CodecError, match=f"^{error}"):
        run(f"{body} return messages['{TREE}'].encode(t)")


def test_nothing_is_left_of_a_message_that_failed() -> None:
    """The next one is written as if it were the first."""
    good = {"name": "n", "leaves": [{"name": "a"}, {"weight": 5}], "named": {"k": {"name": "v"}}}
    expected = schema().encode(TREE, good)
    for bad in ({"name": 1}, {"leaves": [{"name": "x"}, {"name": 2}]}, {"named": {"a": {"named": {"b": 3}}}}):
        with pytest.raises(CodecError):
            schema().encode(TREE, bad)
        with pytest.raises(CodecError):
            schema().decode_table(TREE, expected[:-1])
        assert schema().encode(TREE, good) == expected


@pytest.mark.parametrize(
    "contents",
    [
        "name = string.rep('x', 1 << 20), weight = 1.5",
        "named = {[string.rep('x', 1 << 20)] = {weight = 1.5}}",
        "named = {[string.rep('x', 1 << 20)] = {}}",
    ],
)
def test_no_large_text_is_held(contents: str) -> None:
    """Whether the message went or failed, what it was made of can go."""
    body = """local tree = messages["codec.test.Tree"]
      tree.encode {name = "small"}
      collectgarbage() collectgarbage()
      local before = collectgarbage("count")
      pcall(tree.encode, {%s})
      collectgarbage() collectgarbage()
      return collectgarbage("count") - before"""
    assert run(body % contents) < 100


# On the way in ----------------------------------------------------------------------------------------------


def test_an_absent_field_reads_as_nil_and_a_wrong_name_is_an_error() -> None:
    """The error names the type and the field, and stands at the script's line."""
    body = """local tree = messages["codec.test.Tree"].decode("")
      assert(tree.left == nil and tree.inner == nil and tree.name == "")
      assert(#tree.leaves == 0 and next(tree.named) == nil)
      return tree.nam"""
    with pytest.raises(CodecError, match=r':4: no field "nam" in codec\.test\.Tree: did you mean name$'):
        run(body)


def test_a_wrong_name_is_not_written_either() -> None:
    """A right one is."""
    body = """local tree = messages["codec.test.Tree"].decode("")
      tree.name, tree.left, tree.weight = "x", {}, 1
      assert(tree.name == "x" and tree.weight == 1)
      tree.right = {}"""
    with pytest.raises(CodecError, match=r':4: no field "right" in codec\.test\.Tree'):
        run(body)


def test_a_message_keeps_its_metatable() -> None:
    """It can be neither had nor replaced."""
    body = """local tree = messages["codec.test.Tree"].decode("")
      assert(getmetatable(tree) == false)
      setmetatable(tree, nil)"""
    with pytest.raises(CodecError, match="protected metatable"):
        run(body)


def test_a_message_that_came_goes_again() -> None:
    """Changed in between like any table; so does one that was merged from two."""
    body = """local tree = messages["codec.test.Tree"]
      local left = tree.encode {left = {name = "x"}} .. tree.encode {left = {weight = 1, leaves = {{}}}}
      local came = tree.decode(left)
      came.left.weight = came.left.weight + 1
      assert(came.left.left == nil)
      return tree.encode(came)"""
    assert run(body) == schema().encode(TREE, {"left": {"name": "x", "weight": 2, "leaves": [{}]}})


def test_names_that_lua_keeps_for_itself_are_names() -> None:
    """Also those of metamethods, which mean nothing in a message."""
    message = {
        "end": 1,
        "function": "f",
        "goto": 2,
        "nil": 0,
        "repeat": [1],
        "return": {"k": 1},
        "__index": 3,
        "_ENV": 4,
    }
    encoded = schema().encode("codec.test.Keywords", {**message, "local": message})
    body = """local came = messages["codec.test.Keywords"].decode(...)
      return came["local"].__index + came["end"] + came._ENV"""
    assert run(body, encoded) == 8


def test_two_messages_share_nothing() -> None:
    """Not even what is empty."""
    body = """local tree = messages["codec.test.Tree"]
      local one, other = tree.decode(""), tree.decode("")
      one.leaves[1], one.named.k = {}, {}
      return #other.leaves == 0 and next(other.named) == nil"""
    assert run(body)


# uint64 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'0'", "0"),
        ("'9223372036854775807'", "9223372036854775807"),
        ("'9223372036854775808'", "9223372036854775808"),
        ("'18446744073709551615'", "18446744073709551615"),
        ("'00000000000000000007'", "7"),
        ("'10000000000000000000'", "10000000000000000000"),
        ("7", "7"),
        ("math.maxinteger", "9223372036854775807"),
        ("codec.uint64('18446744073709551615')", "18446744073709551615"),
    ],
)
def test_a_uint64_is_made_of_digits_or_an_integer(text: str, expected: str) -> None:
    """An integer of Lua where there is one, else a value of its own."""
    assert run(f"return tostring(codec.uint64({text}))") == expected.encode()
    assert run(f"return math.type(codec.uint64({text})) == 'integer'") == (int(expected) < 2**63)
    assert run(f"return codec.is_uint64(codec.uint64({text}))") == (int(expected) >= 2**63)


NO_UINT64 = ["'18446744073709551616'", "'99999999999999999999'", "'000000000000000000001'", "'-1'", "'+1'"]
NO_UINT64 += ["' 1'", "'0x1'", "''", "'1e3'", "'1.0'", "1.0", "-1", "math.mininteger", "nil", "true", "{}"]


@pytest.mark.parametrize("text", NO_UINT64)
def test_nothing_else_is_a_uint64(text: str) -> None:
    """No sign, no blank, no other base, no float."""
    with pytest.raises(
        CodecError, match="uint64 takes an integer from 0, or a text of digits up to 1844674407370955161"
    ):
        run(f"return codec.uint64({text})")


COMPARED = [
    ("big == codec.uint64('9223372036854775808')", True),
    ("big == most", False),
    ("big == math.mininteger", False),
    ("big < most", True),
    ("most < big", False),
    ("most <= most", True),
    ("most < most", False),
    ("big > math.maxinteger", True),
    ("big < math.maxinteger", False),
    ("math.maxinteger <= big", True),
    ("-1 < big", True),
    ("math.mininteger >= most", False),
    ("({[big] = true})[codec.uint64('9223372036854775808')]", True),
]


@pytest.mark.parametrize(("text", "expected"), COMPARED)
def test_uint64_values_compare_as_numbers(text: str, expected: object) -> None:
    """With each other and with integers; and one number is one key."""
    setup = "local big, most = codec.uint64('9223372036854775808'), codec.uint64('18446744073709551615')"
    assert run(f"{setup} return {text}") is expected


MISUSED = ["big + 1", "-big", "big .. ''", "#big", "big.x", "big()", "big & 1", "pairs(big)"]
MISUSED += ["ipairs(big)(big, 0)", "big < 1.5", "'1' < big", "big <= {}", "setmetatable(big, nil)"]


@pytest.mark.parametrize("text", MISUSED)
def test_nothing_else_can_be_done_to_a_uint64_value(text: str) -> None:
    """An error, not a guess."""
    with pytest.raises(CodecError):
        run(f"local big = codec.uint64('9223372036854775808') return {text}")


def test_uint64_values_are_forgotten_when_nobody_holds_them() -> None:
    """Reading many leaves nothing behind; the number keeps its value as long as there is one."""
    body = """local held = codec.uint64("18446744073709551615")
      collectgarbage() collectgarbage()
      local before = collectgarbage("count")
      for i = 1, 20000 do
        local varint = string.rep("\\xff", 7) .. string.char(128 | i % 128, 128 | i // 128) .. "\\1"
        assert(codec.is_uint64(messages["codec.test.Scalars"].decode("\\x30" .. varint).a_uint64))
      end
      collectgarbage() collectgarbage()
      assert(held == codec.uint64("18446744073709551615"))
      return collectgarbage("count") - before"""
    # In KiB. Twenty thousand that stayed would be over 1,500; the table of those known shrinks late.
    assert run(body) < 400
