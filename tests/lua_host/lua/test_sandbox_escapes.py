"""Ways out of Lua sandboxes that worked elsewhere, with everything allowed: nothing is had or changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lua_host.lua.box import Box

#: Each gives "none" where there is nothing to be had.
LOOT = {
    # Names of the real library, by every way to a table that might have them.
    "names": """
        for _, name in ipairs {"_G", "io", "os", "debug", "package", "require", "dofile", "loadfile",
            "collectgarbage", "print", "warn", "python", "arg", "module", "loadstring", "setfenv", "getfenv",
            "newproxy", "unpack"} do
          if _ENV[name] ~= nil or rawget(_ENV, name) ~= nil then return name end
        end
        return "none"
    """,
    "dump": "return string.dump or ('').dump or rawget(string, 'dump') or 'none'",
    "the seed": "return math.randomseed or 'none'",
    "globals of loaded code": "return load('return io or os or debug or _G or python')() or 'none'",
    "globals of a loaded function's callers": """
        local function up() return load('return _ENV')() end
        return up() == _ENV and 'none' or 'another environment'
    """,
    # Bytecode.
    "bytecode": r"return load('\27Lua\x54\0\x19\x93\r\n\x1a\n\4\8\8') or 'none'",
    "bytecode as binary": r"return load('\27Lua', 'x', 'b') or load('\27Lua', 'x', 'bt') or 'none'",
    "bytecode in pieces": r"""
        local pieces, at = {'\27', 'Lua'}, 0
        local ok, loaded = pcall(load, function() at = at + 1 return pieces[at] end)
        return ok and loaded or 'none'
    """,
    "bytecode by an object that is text when asked": r"""
        local text = setmetatable({}, {__tostring = function() return '\27Lua' end, __name = 'string'})
        local ok, loaded = pcall(load, text)
        return ok and loaded or 'none'
    """,
    # The metatable of strings.
    "the metatable of strings": "return getmetatable('') or 'none'",
    "its index": """
        local ok, index = pcall(function() return getmetatable('').__index end)
        return ok and index or 'none'
    """,
    "another metatable for strings": "return pcall(setmetatable, '', {}) and 'set' or 'none'",
    "a method for strings": """
        pcall(function() ('').pwned = 1 end) pcall(rawset, '', 'pwned', 1) pcall(rawset, string, 'pwned', 1)
        return ('').pwned or string.pwned or 'none'
    """,
    "arithmetic that strings do not have": """
        local own = setmetatable({}, {__add = function(_, right) right.pwned = 1 return right end})
        return pcall(function() return ('a') + own end) and ('').pwned or 'none'
    """,
    # Libraries.
    "a library written to": "pcall(function() string.format = 1 end) return string.format == 1 or 'none'",
    "a library written to raw": "pcall(rawset, math, 'floor', 1) return math.floor == 1 or 'none'",
    "a new name in a library": "pcall(function() math.pwned = 1 end) return math.pwned or 'none'",
    "a library's metatable": "return pcall(setmetatable, math, {}) and 'set' or getmetatable(math) or 'none'",
    "a library's backing, by pairs": """
        local _, given = pairs(string)
        return given == string and next(given) == nil and 'none' or 'another table'
    """,
    "a library's backing, by next": "return next(string) or next(mesh) or 'none'",
    "a library filled by table.insert": """
        pcall(table.insert, math, 1, 'x') pcall(table.insert, math, 'x')
        return math[1] or rawget(math, 1) or 'none'
    """,
    "a library filled by table.move": """
        pcall(table.move, {'x', 'y'}, 1, 2, 1, mesh) return mesh[1] or rawlen(mesh) > 0 or 'none'
    """,
    "a library filled by table.sort": "pcall(table.sort, utf8) return rawlen(utf8) > 0 or 'none'",
    "a library emptied by table.remove": """
        pcall(table.remove, math, 'pi') pcall(table.remove, math)
        return math.pi and 'none' or 'removed'
    """,
    "a library as metatable": """
        setmetatable({}, string) pcall(function() string.__index = 1 end)
        return string.__index or 'none'
    """,
    "a function's metatable": "return pcall(setmetatable, type, {}) and 1 or getmetatable(type) or 'none'",
    "a number's metatable": "return getmetatable(1) or getmetatable(true) or getmetatable(nil) or 'none'",
    "a coroutine's metatable": "return getmetatable(coroutine.create(pairs)) or 'none'",
    # What runs later, or elsewhere.
    "__gc": "return pcall(setmetatable, {}, {__gc = function() end}) and 'taken' or 'none'",
    "__gc that is no function": "return pcall(setmetatable, {}, {__gc = true}) and 'taken' or 'none'",
    "__gc added, and set again": """
        local meta = {} local object = setmetatable({}, meta) meta.__gc = function() end
        return pcall(setmetatable, object, meta) and 'taken' or 'none'
    """,
    "__gc added late": """
        local ran = 'none' local meta = {} local object = setmetatable({}, meta)
        meta.__gc = function() ran = 'ran' end
        object = nil
        for i = 1, 1e4 do local garbage = {{}, {}, {}} end
        return ran
    """,
    "__gc from an index": """
        local meta = setmetatable({}, {__index = function() return function() end end})
        setmetatable({}, meta)
        return rawget(meta, '__gc') and 'taken' or 'none'
    """,
    "__close": "return pcall(setmetatable, {}, {__close = function() end}) and 'taken' or 'none'",
    "__close added late": """
        local ran = 'none' local meta = {} local object = setmetatable({}, meta)
        meta.__close = function() ran = 'ran' end
        pcall(function() local x <close> = object end)
        return ran
    """,
    "__close in a for": """
        local ran = 'none' local meta = {} local object = setmetatable({}, meta)
        meta.__close = function() ran = 'ran' end
        pcall(function() for _ in next, {}, nil, object do end end)
        return ran
    """,
    "__close by getmetatable": """
        local ran = 'none' local object = setmetatable({}, {})
        getmetatable(object).__close = function() ran = 'ran' end
        pcall(function() local x <close> = object end)
        return ran
    """,
    "__close in a coroutine that is closed": """
        local ran = 'none' local meta = {} local object = setmetatable({}, meta)
        meta.__close = function() ran = 'ran' end
        local thread = coroutine.create(function() local x <close> = object coroutine.yield() end)
        coroutine.resume(thread) coroutine.close(thread)
        return ran
    """,
    "__close of a metatable that changes while it is read": """
        local ran, meta = 'none', {}
        setmetatable(meta, {__index = function(own, event)
          rawset(own, '__close', function() ran = 'ran' end)
        end})
        local object = setmetatable({}, meta)
        pcall(function() local x <close> = object end)
        return ran
    """,
    # Protection.
    "a protected metatable replaced": """
        local object = setmetatable({}, {__metatable = 'mine'})
        return pcall(setmetatable, object, {}) and 'set' or getmetatable(object) == 'mine' and 'none'
    """,
    "protection by false": "return getmetatable(setmetatable({}, {__metatable = false})) or 'none'",
    "the copy of a metatable": """
        local meta = {__index = {}} local object = setmetatable({}, meta)
        return getmetatable(object) == meta and 'none' or 'another table'
    """,
    "the copy, seen by the events": """
        local seen = {}
        local function see(...) for _, value in ipairs {...} do seen[value] = true end return 1 end
        local meta = {__index = see, __newindex = see, __call = see, __len = see, __concat = see, __add = see,
          __tostring = function(...) see(...) return '' end,
          __pairs = function(...) see(...) return next, {} end}
        local object = setmetatable({}, meta)
        local _ = object.x, object(), #object, object .. 'x', object + 1, tostring(object)
        object.y = 1
        for _ in pairs(object) do end
        seen[object] = nil
        for value in next, seen do if type(value) == 'table' then return 'a table' end end
        return 'none'
    """,
    # Addresses.
    "addresses by tostring": r"""
        for _, value in ipairs {{}, pairs, function() end, coroutine.create(pairs), string, mesh,
            setmetatable({}, {}), setmetatable({}, {__name = 'x'}), coroutine.running(), ('x'):gmatch('x')} do
          local text = tostring(value)
          if text:find('%x%x%x%x%x%x') or text:find('0x') then return text end
        end
        return 'none'
    """,
    "addresses by format": r"""
        local values = {{}, pairs, coroutine.running(), string, setmetatable({}, {__name = 'n'}), 'text'}
        for _, form in ipairs {'%s', '%10s', '%-20.30s', '%p', '%20p', '%-20p', '%%%p', '%s%p', '%q', '%x'} do
          for _, value in ipairs(values) do
            local ok, text = pcall(string.format, form, value, value)
            if text:find('0x') or text:find('%x%x%x%x%x%x%x%x') then return form .. ' ' .. text end
          end
        end
        return 'none'
    """,
    "addresses in errors": r"""
        local object = setmetatable({}, {__name = 'n'})
        local texts = {}
        for _, try in ipairs {
          function() return object + 1 end, function() return object.x.y end,
          function() return object() end, function() return object < object end,
          function() return object .. '' end, function() return #pairs end,
          function() for i = object, 2 do end end, function() string.rep(object) end,
          function() ('').rep(pairs, 1) end, function() math.floor(object) end,
          function() setmetatable(object, 1) end, function() table.concat {object} end,
        } do
          texts[#texts + 1] = select(2, pcall(try))
        end
        local text = table.concat(texts)
        return text:find('0x') and text or 'none'
    """,
    # Python.
    "attributes of Python": """
        for _, value in ipairs {mesh.call, mesh.log.info, pairs, error} do
          for _, name in ipairs {'__class__', '__globals__', '__self__', '__init__', '__getattribute__'} do
            local ok, got = pcall(function() return value[name] end)
            if ok and got ~= nil then return name end
          end
        end
        return 'none'
    """,
    "iterators of Python": """
        for _, value in ipairs {mesh, mesh.log, mesh.call} do
          local ok, got = pcall(function() for item in value do return item end end)
          if ok and got ~= nil then return 'an iterator' end
        end
        return 'none'
    """,
    "Python by name": "return python or _ENV['python'] or mesh.python or string.python or 'none'",
}


@pytest.fixture(scope="module")
def made() -> Box:
    return Box()


@pytest.fixture
def box(made: Box) -> Iterator[Box]:
    yield made
    assert made.changes() == ""


@pytest.mark.parametrize("attack", LOOT)
def test_there_is_nothing_to_be_had(box: Box, attack: str) -> None:
    """The script finds nothing, and leaves all as it was."""
    assert box.value(LOOT[attack]) == "none"
