"""Scripts that break whatever of their own run can be broken: the next run begins anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lua_host.lua.box import Box

#: Code that must not be trusted to stop, to return, or to say the same thing twice. Each ends, well or not.
CHAOS = {
    "errors in handlers of errors": "return xpcall(error, function() error(string.rep('x', 1000)) end)",
    "handlers that handle themselves": "local function h(e) xpcall(error, h, e) end return xpcall(error, h)",
    "handlers that overflow": "local function h() return 1 + h() end return xpcall(error, h)",
    "handlers on a full stack": """
        local function deep() return 1 + deep() end
        return xpcall(deep, function() local function deeper() return 1 + deeper() end return deeper() end)
    """,
    "handlers that yield": "return coroutine.wrap(function() return xpcall(error, coroutine.yield, 1) end)()",
    "an overflow of pcalls": "local function f() return pcall(f) end return f()",
    "an overflow of coroutines": "local function f() return coroutine.wrap(f)() end return pcall(f)",
    "an overflow of both": "local function f() return pcall(coroutine.wrap(f)) end return f()",
    "an overflow of gsubs": "local function f() return (('x'):gsub('.', f)) end return pcall(f)",
    "an overflow of indices": """
        local meta = {} meta.__index = function(own, key) return own[key .. 'x'] end
        return pcall(function() return setmetatable({}, meta).x end)
    """,
    "a cycle of indices": """
        local one = {} setmetatable(one, {__index = one})
        return pcall(function() return one.x end)
    """,
    "an overflow of tostrings": """
        local meta = {} meta.__tostring = function(own) return tostring(own) end
        return pcall(tostring, setmetatable({}, meta))
    """,
    "an overflow of comparisons": """
        local meta = {} meta.__lt = function(one, other) return one < other end
        return pcall(function() return setmetatable({}, meta) < setmetatable({}, meta) end)
    """,
    "errors that are anything": """
        for _, value in ipairs {{}, pairs, 0/0, true, string, coroutine.running()} do
          pcall(error, value) xpcall(error, function(e) return e end, value)
        end
        error(setmetatable({}, {__tostring = function() error({}) end}))
    """,
    "errors that are nil": "error(nil)",
    "errors with levels": "for level = -3, 300 do pcall(error, 'x', level) end error('x', math.maxinteger)",
    "keys that are no keys": "local t = {} t[0/0] = 1",
    "keys that are nil": "rawset({}, nil, 1)",
    "nan as a key, raw": "rawset({}, 0/0, 1)",
    "next with a key that is not there": "return next({}, 'x')",
    "next of a library with a key that is not there": "local step = pairs(string) return step(string, 'x')",
    "a table that changes under pairs": "local t = {1, 2} for k in pairs(t) do t[k .. k], t[k] = 1 end",
    "a list that changes under sort": """
        local list = {3, 1, 2}
        table.sort(list, function(one, other) list[#list + 1] = {} list[1] = nil return true end)
    """,
    "an order that is none": """
        local list = {}
        for i = 1, 100 do list[i] = i end
        table.sort(list, function() return true end)
    """,
    "a sort that yields": """
        return coroutine.wrap(function() table.sort({1, 2, 3}, function() coroutine.yield() end) end)()
    """,
    "a gsub that yields": "return coroutine.wrap(function() return ('xx'):gsub('x', coroutine.yield) end)()",
    "a gsub that closes its own coroutine": """
        local thread
        local function close() coroutine.close(thread) end
        thread = coroutine.create(function() return ('x'):gsub('x', close) end)
        return coroutine.resume(thread)
    """,
    "the main coroutine, resumed": """
        local main = coroutine.running()
        return coroutine.wrap(function() return coroutine.resume(main), coroutine.status(main) end)()
    """,
    "the main coroutine, closed": """
        local main = coroutine.running()
        return coroutine.wrap(function() return pcall(coroutine.close, main) end)()
    """,
    "a coroutine that resumes itself": """
        local thread thread = coroutine.create(function() return coroutine.resume(thread) end)
        return coroutine.resume(thread)
    """,
    "a coroutine that closes itself": """
        local thread thread = coroutine.create(function() return coroutine.close(thread) end)
        return coroutine.resume(thread)
    """,
    "a metamethod that never comes back": """
        local away = coroutine.yield
        local meta = {__index = away, __newindex = away, __len = away, __tostring = away, __concat = away,
          __eq = away, __call = away}
        for _, try in ipairs {
          function(o) return tostring(o) end, function(o) return string.format('%s', o) end,
          function(o) return table.concat(o) end, function(o) table.insert(o, 1, 1) end,
          function(o) table.remove(o, 1) end, function(o) table.sort(o) end,
          function(o) table.move(o, 1, 2, 2) end, function(o) return ('x'):gsub('x', o) end,
          function(o) setmetatable(o, getmetatable(o)) end,
        } do
          coroutine.resume(coroutine.create(try), setmetatable({}, meta))
        end
    """,
    "an __eq that says yes": """
        local yes = function() return true end
        local function liar() return setmetatable({}, {__eq = yes, __index = yes}) end
        local meta = {__index = liar(), __call = liar(), __add = liar(), __metatable = nil}
        local object = setmetatable({}, meta)
        meta.__index, meta.__call, meta.__add = liar(), liar(), liar()
        setmetatable(object, meta)
        return getmetatable(object) == meta
    """,
    "source that is deep": "return load('return ' .. string.rep('(', 10000) .. string.rep(')', 10000))",
    "source that is wide": "return load('return ' .. string.rep('a .. ', 10000) .. 'a')",
    "source with many locals": "return load(string.rep('local x = 1 ', 300))",
    "source with many upvalues": """
        local outer = {} for i = 1, 190 do outer[i] = 'local a' .. i .. ' = 1' end
        local inner = {} for i = 1, 190 do inner[i] = 'a' .. i end
        local head, sum = table.concat(outer, ' '), table.concat(inner, ' + ')
        return load(head .. ' return function() return ' .. sum .. ' end')
    """,
    "source that names an environment": "return load('local _ENV <const> = nil return x', 'x', 't', nil)",
    "an environment that is gone": "_ENV = nil pairs = nil",
    "an environment that is a library": "_ENV = string format = 1",
    "patterns that are broken": r"""
        for _, pattern in ipairs {'%', '[', '[^', '[%', '%f', '%fa', '(', ')', '%1', '%b', '%bx', '(()'} do
          for _, name in ipairs {'find', 'match', 'gsub', 'gmatch'} do
            pcall(string[name], 'text', pattern, 'x')
          end
        end
        return ('x'):match('[')
    """,
    "patterns that are deep": "return (string.rep('x', 10000)):match(string.rep('(x', 100))",
    "replacements that are broken": "return ('x'):gsub('x', '%2')",
    "unpack of too much": "return table.unpack({}, 1, 1e8)",
    "unpack at the edge": "return table.unpack({}, math.mininteger, math.maxinteger)",
    "select at the edge": "return select(math.mininteger, 1)",
    "every character there is": "return utf8.char(0x7fffffff, -1)",
    "a format that is too long": "return string.format('%' .. string.rep('0', 300) .. 'd', 1)",
    "a format that ends": "return string.format('%')",
}


@pytest.fixture(scope="module")
def made() -> Box:
    return Box()


@pytest.fixture
def box(made: Box) -> Iterator[Box]:
    yield made
    assert made.changes() == ""


@pytest.mark.parametrize("attack", CHAOS)
def test_chaos_ends_and_changes_nothing(box: Box, attack: str) -> None:
    """Whatever a script does to its own run, the next one begins as if there had been none."""
    box.run(CHAOS[attack])
    assert box.value("x = (x or 0) + 1 return x") == "1"


FUZZ = """
-- What is used here is kept, since the script writes to its globals, too.
local state, worked, largest = {seed}, 0, math.maxinteger
local function random(most)
  state = (state * 6364136223846793005 + 1442695040888963407) & largest
  return (state >> 20) % most + 1
end
local pool = {{0, 1, -1, 2, 3.5, 0/0, 1/0, math.maxinteger, math.mininteger, '', 'x', '%s', '(.-)%1',
  '__index', '__gc', true, false, {{}}, {{1, 2, 3}}, setmetatable({{}}, {{__index = string}}), _ENV,
  function(...) return ... end}}
local function learn(value)
  pool[#pool < 200 and #pool + 1 or 22 + random(178)] = value
end
for _, value in pairs(_ENV) do
  learn(value)
  if type(value) == 'table' then
    for _, member in pairs(value) do learn(member) end
  end
end
local function pick() return pool[random(#pool)] end
local try, pack = pcall, table.pack
for _ = 1, 400 do
  local got = pack(try(pick(), pick(), pick(), pick(), pick()))
  worked = worked + (got[1] and 1 or 0)
  for at = 2, got.n < 6 and got.n or 6 do
    if got[at] ~= nil then learn(got[at]) end
  end
  try(function() pick()[pick()] = pick() end)
  try(function() return pick()[pick()], pick() .. pick(), pick() < pick(), #pick(), pick() + pick() end)
end
return worked
"""


def test_whatever_is_called_with_whatever(box: Box) -> None:
    """Calls, writes and operators on all that there is, by chance: nothing changes but the script's own."""
    worked = 0
    for seed in range(60):
        worked += int(box.value(FUZZ.format(seed=seed)))
        assert box.changes() == "", seed
    assert worked > 60 * 15
