"""What a function makes or walks at once is bounded; within the bounds it does what Lua's own does.

The twin is Lua's own library, called by trusted code with the same arguments.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.lua_host.lua.box import MAX_STRING, Box

BOX = Box()
TOO_LONG = "would go over more than 16777216 elements"
NO_ADDRESS = "own.lua:1: string.format tells no addresses: %p is not allowed here"

#: Each with the error that ends it.
BOMBS = {
    "string.rep('x', 65537)": "own.lua:1: string.rep would make more than 65536 bytes",
    "string.rep('x', math.maxinteger)": "own.lua:1: string.rep would make more than 65536 bytes",
    "string.rep('', math.maxinteger, 'x')": "own.lua:1: string.rep would make more than 65536 bytes",
    "string.rep('xx', 1 << 62, 'xx')": "own.lua:1: string.rep would make more than 65536 bytes",
    "('x'):rep('1e9')": "own.lua:1: string.rep would make more than 65536 bytes",
    "string.pack('c65537', '')": "own.lua:1: string.pack would make more than 65536 bytes",
    "string.pack('c65536 c1', '', '')": "own.lua:1: string.pack would make more than 65536 bytes",
    "string.pack('c99999999999999999999', '')": "own.lua:1: string.pack would make more than 65536 bytes",
    "string.format('%p', 'x')": NO_ADDRESS,
    "string.format('%%%s%-20p', 1, 2)": NO_ADDRESS,
    "string.format((' '):rep(300) .. '%p', 2)": NO_ADDRESS,
    "('x'):find(('a'):rep(257))": "own.lua:1: the pattern is longer than 256 bytes",
    "('x'):match(('a*'):rep(17))": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):gsub(('a?[%]*+-]'):rep(17), '')": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):gmatch(('%%b[a*]*'):rep(17), '')": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):find(('%b[za*b*c*]'):rep(6))": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):find(('[%a]b*c*]'):rep(9))": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):find(('[]]b*c*]'):rep(9))": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):find(('%b%%%%-a-'):rep(9))": "own.lua:1: the pattern has more than 16 repetitions",
    "('x'):find(('%f[a]b-c-'):rep(9))": "own.lua:1: the pattern has more than 16 repetitions",
    "(('x'):rep(65536) .. 'x'):find('y')": "own.lua:1: the text is longer than 65536 bytes",
    "(('x'):rep(65536) .. 'x'):gsub('y', {})": "own.lua:1: the text is longer than 65536 bytes",
    "(('x'):rep(65536) .. 'x'):find('y', 1, true)": "own.lua:1: the text is longer than 65536 bytes",
    "table.concat({('x'):rep(65536), 1})": "own.lua:1: table.concat would make more than 65536 bytes",
    "table.concat({1, 2}, ('x'):rep(65536))": "own.lua:1: table.concat would make more than 65536 bytes",
    "table.concat({}, '', 1, math.maxinteger)": f"own.lua:1: table.concat {TOO_LONG}",
    "table.move({}, 1, 1 << 60, 2)": f"own.lua:1: table.move {TOO_LONG}",
    "table.move({}, math.mininteger, math.maxinteger, 2)": f"own.lua:1: table.move {TOO_LONG}",
    "table.move({}, 1, 3, math.maxinteger)": "own.lua:1: bad argument #4 to 'move' (destination wrap around)",
    "table.unpack({}, 1, 1e7)": "own.lua:1: too many results to unpack",
    "utf8.char(-1)": "own.lua:1: bad argument #1 to 'char' (value out of range)",
}
#: A length that is not one, and what asks for it.
LIARS = {
    "by its metatable": "setmetatable({}, {__len = function() return math.maxinteger - 1 end})",
    "by its keys": """(function()
        local t = {}
        for bit = 62, 0, -1 do t[1 << bit], t[(1 << bit) + 1] = 1, 1 end
        return t
    end)()""",
}
ASKING = {
    "table.insert(liar, 1, 'x')": "insert",
    "table.remove(liar, 1)": "remove",
    "table.sort(liar)": "sort",
    "table.concat(liar)": "concat",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_an_error_at_its_line(bomb: str) -> None:
    """At once, before anything is made."""
    assert BOX.error(bomb) == BOMBS[bomb]


@pytest.mark.parametrize("lie", LIARS)
@pytest.mark.parametrize("asking", ASKING)
def test_a_length_that_lies_is_not_walked(lie: str, asking: str) -> None:
    """However a table comes to say that it is as long as a number can be."""
    assert BOX.error(f"liar = {LIARS[lie]}\n{asking}").endswith(f": table.{ASKING[asking]} {TOO_LONG}")


TWO_FACED = """
    local asked = 0
    local t = setmetatable({}, {
      __len = function() asked = asked + 1 return asked == 1 and 3 or math.maxinteger end,
      __index = function(_, key) asked = asked + 1 return asked <= 4 and key or nil end,
    })
"""


@pytest.mark.parametrize(
    ("asking", "expected"),
    [
        ("return table.concat(t, ' ')", "1 2 3"),
        ("table.insert(t, 1, 'x') return rawlen(t) .. t[1] .. t[4]", "4x3"),
        ("return table.remove(t, 1) .. t[1] .. t[2]", "123"),
        ("table.sort(t, function(one, other) return one > other end) return t[1] .. t[2] .. t[3]", "321"),
    ],
)
def test_a_table_is_asked_once(asking: str, expected: str) -> None:
    """A length or an element that is another at the second look is never looked at twice."""
    assert BOX.value(TWO_FACED + asking) == expected


def test_a_thousand_coroutines_a_call() -> None:
    """The next is an error, and the next call has a thousand again."""
    script = "for i = 1, {} / 2 do coroutine.wrap(pairs) coroutine.create(pairs) end return 'made'"
    assert BOX.value(script.replace("{}", "1000")) == "made"
    assert BOX.error(script.replace("{}", "1002")) == "own.lua:1: more than 1000 coroutines in one call"
    assert BOX.value(script.replace("{}", "1000")) == "made"


def test_patterns_are_remembered_without_end() -> None:
    """More patterns and formats than are remembered come out right, and only so many are kept."""
    box = Box()
    script = """
        first = math.random(1000000)
        for i = first, first + 2000 do
          assert(("x" .. i .. "y"):match("x(" .. i .. ")y") == tostring(i))
          assert(string.format(i .. "%s", "x") == i .. "x")
        end
        return "right"
    """
    assert box.value(script) == "right"
    collect = "collectgarbage() collectgarbage()"
    box.trusted(collect)
    before = box.lua.get_memory_used()
    for _ in range(5):
        assert box.value(script) == "right"
    box.trusted(collect)
    assert box.lua.get_memory_used() < before + 128 * 1024


#: What Lua's patterns allow in ordinary scripts.
PATTERNS = [
    "^%s*(.-)%s*$",
    "(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.?(%d*)",
    "^([^,]*),([^,]*),([^,]*),([^,]*),([^,]*)$",
    "[%w._%%+-]+@[%w.-]+%.%a+",
    "%b()",
    "%f[%w]%w+",
    '^(%S+) (%S+) (%S+) %[([^%]]+)%] "(%u+) ([^"]+) ([^"]+)" (%d+) (%d+)$',
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ordinary_patterns_are_no_bombs(pattern: str) -> None:
    """They match what they match in Lua."""
    text = b'a@b.org, (1) 2026-11-24T21:56:00.5 x y z [d] "GET / HTTP" 200 5'
    both("string.match", text, pattern.encode())


TRY = """
local observer = ...
local pack, pcall, environment = table.pack, pcall, observer.box.environment()
local real, tables, type, tostring = observer.real, {}, type, tostring
-- Lists stay tables for both, fresh for each.
local function given(values, list, plain)
  local copy = {}
  for at = 1, values.n do copy[at] = values[at] end
  if list then
    copy[list] = {}
    for at = 1, #values[list] do copy[list][at] = values[list][at] end
    if not plain then environment.setmetatable(copy[list], {}) end
  end
  return copy
end
local function shown(copy, list, got)
  local texts = {}
  for at = 1, got[1] and got.n or 1 do
    local value = got[at]
    texts[at] = (math.type(value) or type(value)) .. (type(value) == "table" and "" or tostring(value))
  end
  for at, value in pairs(list and copy[list] or {}) do
    texts[#texts + 1] = tostring(at) .. "=" .. tostring(value)
  end
  table.sort(texts)
  return table.concat(texts, "; ")
end
return function(module, name, list, ...)
  local values, said = pack(...), {}
  local twin, ours = real[module][name], environment[module][name]
  for _, way in ipairs {{twin, true}, {ours, true}, {ours, false}} do
    local copy = given(values, list, way[2])
    local got = pack(pcall(way[1], table.unpack(copy, 1, values.n)))
    said[#said + 1] = shown(copy, list, got)
  end
  return said[1], said[2], said[3], twin ~= ours
end
"""
ATTEMPT: Any = BOX.trusted(TRY)


def both(function: str, *arguments: object, table: int | None = None) -> None:
    """Call Lua's and ours, also with a metatable on the table: the same comes out, and the same is left."""
    module, _, name = function.partition(".")
    values = [BOX.lua.table_from(value) if isinstance(value, list) else value for value in arguments]
    twin, plain, derived, replaced = ATTEMPT(module.encode(), name.encode(), table, *values)
    assert replaced, f"{function} is Lua's own"
    assert twin == plain == derived


near = st.integers(-6, 9) | st.sampled_from([2.0, 2.5, b"3", b"x", None])
numbers = near | st.sampled_from([2**63 - 1, -(2**63)])
texts = st.binary(max_size=12) | st.integers(-20, 20) | st.sampled_from([1.5, None, True])
lists = st.lists(st.integers(-9, 9) | st.sampled_from([b"b", b"a", 1.5]), max_size=6)


@given(lists, numbers, texts)
@example([1, 2, 3], 4, b"x")
def test_insert_is_lua_s(values: list[object], position: object, value: object) -> None:
    """At every position, and beyond."""
    both("table.insert", values, position, value, table=1)
    both("table.insert", values, value, table=1)
    both("table.insert", values, table=1)
    both("table.insert", values, 1, 2, 3, table=1)


@given(lists, numbers)
@example([], 0)
@example([], 1)
@example([1, 2], 3)
def test_remove_is_lua_s(values: list[object], position: object) -> None:
    """At every position, and beyond."""
    both("table.remove", values, position, table=1)
    both("table.remove", values, table=1)


@given(lists, near, near, near)
def test_move_is_lua_s(values: list[object], first: object, last: object, to: object) -> None:
    """Also onto itself."""
    both("table.move", values, first, last, to, table=1)


@given(st.lists(st.integers(-9, 9) | st.floats(-9, 9), max_size=20))
def test_sort_is_lua_s(values: list[object]) -> None:
    """Numbers in order."""
    both("table.sort", values, table=1)


@given(lists, texts, numbers, numbers)
@example([1, 2], b", ", 1, 2)
def test_concat_is_lua_s(values: list[object], between: object, first: object, last: object) -> None:
    """From any index to any other."""
    both("table.concat", values, between, first, last, table=1)
    both("table.concat", values, between, table=1)


@given(texts, numbers, texts)
@example(b"", 2**62, b"")
def test_rep_is_lua_s(text: object, times: object, between: object) -> None:
    """With and without something between, where it does not count to the moon."""
    if times != 2**63 - 1 and times != 2**62:
        both("string.rep", text, times, between)
        both("string.rep", text, times)


@given(
    st.lists(st.sampled_from([b"%", b"s", b"d", b"5", b".", b"-", b"q", b"x", b" ", b"%s", b"%%", b"g"])),
    texts,
    texts,
)
def test_format_is_lua_s(form: list[bytes], one: object, other: object) -> None:
    """Whatever the format, but for addresses."""
    both("string.format", b"".join(form), one, other)


@given(
    st.binary(max_size=20),
    st.lists(
        st.sampled_from([b".", b"%a", b"-", b"*", b"(", b")", b"[", b"]", b"^", b"$", b"%b", b"x"]),
        max_size=8,
    ),
)
def test_patterns_are_lua_s(text: bytes, pieces: list[bytes]) -> None:
    """Whether they are well formed or not."""
    pattern = b"".join(pieces)
    for function in ("string.find", "string.match"):
        both(function, text, pattern)
    both("string.gsub", text, pattern, b"<%0>")
    both("string.find", text, pattern, 1, True)


def test_within_bounds_to_the_byte() -> None:
    """What makes exactly as much as is allowed is made."""
    assert BOX.value("return #string.rep('x', 65536)") == str(MAX_STRING)
    assert BOX.value("return #table.concat({('x'):rep(65535), 'y'})") == str(MAX_STRING)
    assert BOX.value("return #string.pack('c65536', 'x')") == str(MAX_STRING)
    assert BOX.value("return (('x'):rep(65535) .. 'y'):find('y')") == str(MAX_STRING)
