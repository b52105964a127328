"""All that a script can reach from its environment, walked by trusted code that sees behind the proxies.

Reached is what a script gets without ``debug``: keys and values, what indexing and ``pairs`` give, what
``getmetatable`` gives, and what the functions there return when they are called.
"""

from __future__ import annotations

import pytest

from tests.lua_host.lua.box import Box

WALK = """
local observer = ...
local box, real = observer.box, observer.real
local getmetatable, type, next, pairs, pcall, select, rawequal, upvalue =
  getmetatable, type, next, pairs, pcall, select, rawequal, debug.getupvalue
local raw_getmetatable = debug.getmetatable

-- Finds what is reached from a fresh environment: {value = path}. With `calls`, by calling, too.
local function walk(environment, calls)
  local reached, waiting = {}, {}
  local function reach(value, path)
    if value ~= nil and value == value and not reached[value] then
      reached[value] = path
      waiting[#waiting + 1] = value
    end
  end
  local function call(value, ...)
    local got = table.pack(pcall(value, ...))
    for at = 2, got.n do
      reach(got[at], reached[value] .. "()")
    end
  end
  reach(environment, "_ENV")
  reach("", "''")
  while #waiting > 0 do
    local value = table.remove(waiting)
    local path = reached[value]
    reach(getmetatable(value), path .. " metatable")
    if type(value) == "table" then
      for key, member in next, value do
        reach(key, path .. " key")
        reach(member, path .. "." .. tostring(key))
      end
      call(pairs, value)
      reached[pairs] = reached[pairs] or "pairs"
      for key, member in pairs(value) do
        reach(member, path .. "." .. tostring(key))
      end
    end
    local meta = raw_getmetatable(value)
    if meta and type(meta.__index) == "table" then
      for key in next, meta.__index do
        reach(value[key], path .. "." .. tostring(key))
      end
    end
    if calls and type(value) == "function" then
      for _, one in ipairs {"x", 1, environment.string, function() end, {}, environment} do
        for _, two in ipairs {"x", 1, {}} do
          call(value)
          call(value, one)
          call(value, one, two)
          call(value, one, two, two)
        end
      end
    end
  end
  return reached
end
"""


@pytest.fixture(scope="module")
def box() -> Box:
    return Box()


def found(box: Box, code: str) -> str:
    value: bytes = box.trusted(WALK + code)
    return value.decode()


@pytest.mark.parametrize("calls", ["false", "true"])
def test_no_function_of_the_real_library_but_those_that_are_harmless(box: Box, calls: str) -> None:
    """None of those that are replaced, and none that is never allowed, nor the tables that hold them."""
    assert (
        found(
            box,
            f"""
            local forbidden = {{}}
            for _, name in ipairs {{"debug", "os", "io", "package", "string", "table", "math", "utf8"}} do
              forbidden[_G[name]] = name
            end
            for _, name in ipairs {{"debug", "os", "io", "package"}} do
              for member, value in pairs(_G[name]) do
                if type(value) ~= "string" then forbidden[value] = name .. "." .. member end
              end
            end
            for _, name in ipairs {{"load", "loadfile", "dofile", "require", "collectgarbage", "print",
                "warn", "_G", "setmetatable", "rawset", "tostring", "python", "coroutine"}} do
              forbidden[_G[name]] = name
            end
            for module, names in pairs {{
              string = {{"dump", "find", "format", "gmatch", "gsub", "match", "pack", "rep"}},
              table = {{"concat", "insert", "move", "remove", "sort"}}, math = {{"randomseed"}},
              coroutine = {{"create", "wrap"}},
            }} do
              for _, name in ipairs(names) do forbidden[real[module][name]] = module .. "." .. name end
            end
            forbidden[raw_getmetatable("")] = "the metatable of strings"
            forbidden[raw_getmetatable("").__index] = "the methods of strings"
            forbidden[debug.getregistry()] = "the registry"
            local count, bad = 0, {{}}
            for value, path in pairs(walk(box.environment(), {calls})) do
              count = count + 1
              if forbidden[value] then bad[#bad + 1] = path .. " is " .. forbidden[value] end
            end
            assert(count > 100, count)
            return table.concat(bad, ", ")
            """,
        )
        == ""
    )


@pytest.mark.parametrize("calls", ["false", "true"])
def test_nothing_of_python(box: Box, calls: str) -> None:
    """No userdata at all: lupa's objects are userdata."""
    assert (
        found(
            box,
            f"""
            local bad = {{}}
            for value, path in pairs(walk(box.environment(), {calls})) do
              if type(value) == "userdata" then bad[#bad + 1] = path end
            end
            return table.concat(bad, ", ")
            """,
        )
        == ""
    )


@pytest.mark.parametrize("calls", ["false", "true"])
def test_tables_that_two_environments_share_are_frozen(box: Box, calls: str) -> None:
    """Such a table is empty, refuses writes of every kind, and shows no metatable."""
    assert (
        found(
            box,
            f"""
            local one, other = walk(box.environment(), {calls}), walk(box.environment(), {calls})
            local environment = box.environment()
            local bad, shared = {{}}, 0
            for value, path in pairs(one) do
              if type(value) == "table" and other[value] then
                shared = shared + 1
                local is_open = pcall(function() value.x = 1 end) or pcall(environment.rawset, value, 1, 1)
                  or pcall(environment.setmetatable, value, {{}}) or pcall(environment.table.insert, value, 1)
                if is_open or next(value) ~= nil or getmetatable(value) ~= false then bad[#bad + 1] = path end
              end
            end
            assert(shared == 7, shared)
            return table.concat(bad, ", ")
            """,
        )
        == ""
    )


def test_the_walk_sees_what_is_open(box: Box) -> None:
    """A function, a userdata and a shared table that are put into an environment are found by these walks."""
    assert (
        found(
            box,
            """
            local shared = {}
            local function opened()
              local environment = box.environment()
              local hidden = {dump = real.string.dump, file = io.stdout}
              environment.planted = {deep = setmetatable({}, {__index = hidden})}
              environment.give = function() return shared end
              return environment
            end
            local one, other = walk(opened(), true), walk(opened(), true)
            return table.concat({one[real.string.dump], one[io.stdout], one[shared], other[shared]}, ", ")
            """,
        )
        == "_ENV.planted.deep.dump, _ENV.planted.deep.file, _ENV.give(), _ENV.give()"
    )


def test_no_closure_keeps_anything_of_a_script(box: Box) -> None:
    """What functions of the library remember, beyond texts and numbers, is dropped with the run."""
    assert (
        found(
            box,
            """
            local script = box.load([[
              local meta = {__index = {}, __tostring = function() return '' end}
              local object = setmetatable({}, meta)
              tostring(object) string.format('%s', object) table.concat({1})
              table.sort({2, 1}, function() return object == meta end)
              pcall(error, object) coroutine.wrap(function() return object end)()
              return object, meta
            ]], "=own.lua")
            local kept = setmetatable({}, {__mode = "k"})
            do
              local object, meta = script(box.environment())
              kept[object], kept[meta], kept[raw_getmetatable(object)] = "object", "metatable", "copy"
            end
            collectgarbage()
            collectgarbage()
            local left = {}
            for _, name in pairs(kept) do left[#left + 1] = name end
            return table.concat(left, ", ")
            """,
        )
        == ""
    )
