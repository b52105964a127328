"""Metatables in the sandbox: as in Lua, but that Lua looks at a copy, which only setmetatable renews."""

from __future__ import annotations

import pytest

from tests.lua_host.lua.box import Box

OPERATORS = {
    "__add": "o + 1",
    "__sub": "o - 1",
    "__mul": "o * 1",
    "__div": "o / 1",
    "__mod": "o % 1",
    "__pow": "o ^ 1",
    "__unm": "-o",
    "__idiv": "o // 1",
    "__band": "o & 1",
    "__bor": "o | 1",
    "__bxor": "o ~ 1",
    "__bnot": "~o",
    "__shl": "o << 1",
    "__shr": "o >> 1",
    "__concat": "o .. 1",
    "__len": "#o",
    "__index": "o.x",
    "__call": "o()",
    "__tostring": "tostring(o)",
}


@pytest.fixture(scope="module")
def box() -> Box:
    return Box()


@pytest.mark.parametrize("event", OPERATORS)
@pytest.mark.parametrize("derived", ["", "setmetatable(meta, {__index = function() error('asked') end})"])
def test_events_work(box: Box, event: str, derived: str) -> None:
    """Each does what it does in Lua, also where the metatable has one itself, which is not asked."""
    script = f"""
        local meta = {{{event} = function() return "mine" end}} {derived}
        local o = setmetatable({{}}, meta)
        return {OPERATORS[event]}
    """
    assert box.value(script) == "mine"


@pytest.mark.parametrize("comparison", ["o == p", "o < p", "o <= p", "not (o ~= p)"])
def test_comparisons_work(box: Box, comparison: str) -> None:
    """With the events of the metatable that both share."""
    script = f"""
        local yes = function() return true end
        local meta = {{__eq = yes, __lt = yes, __le = yes}}
        local o, p = setmetatable({{}}, meta), setmetatable({{}}, meta)
        return {comparison}
    """
    assert box.value(script) == "true"


CLASSES = """
    local Animal = {} Animal.__index = Animal
    function Animal.new(name) return setmetatable({name = name}, Animal) end
    function Animal:speak() return self.name .. " " .. self:sound() end
    local Dog = setmetatable({}, {__index = Animal, __call = function(class, name)
      return setmetatable({name = name}, class) end}) Dog.__index = Dog
    function Dog:sound() return "barks" end
    Dog.__tostring = function(self) return "dog " .. self.name end
    local rex = Dog("rex")
"""
ORDINARY = {
    "inheritance": (CLASSES + "return rex:speak()", "rex barks"),
    "tostring of a class": (CLASSES + "return tostring(rex)", "dog rex"),
    "format of an object": (CLASSES + "return string.format('%s!', rex)", "dog rex!"),
    "the class of an object": (CLASSES + "return getmetatable(rex) == Dog", "true"),
    "methods added later": (CLASSES + "function Dog:sit() return 'sits' end return rex:sit()", "sits"),
    "defaults": (
        "return setmetatable({}, {__index = function(t, k) rawset(t, k, k .. k) return rawget(t, k) end}).ab",
        "abab",
    ),
    "read-only": (
        """
        local t = setmetatable({}, {__newindex = function() error('no', 2) end})
        return select(2, pcall(function() t.x = 1 end))
        """,
        "own.lua:3: no",
    ),
    "__metatable": ("return getmetatable(setmetatable({}, {__metatable = 'closed'}))", "closed"),
    "__pairs": (
        """
        local o = setmetatable({}, {__pairs = function() return next, {only = 1} end})
        for key in pairs(o) do return key end
        """,
        "only",
    ),
    "__name in errors": (
        "return select(2, pcall(function() return setmetatable({}, {__name = 'Price'}) + 1 end))",
        "own.lua:1: attempt to perform arithmetic on a Price value",
    ),
    "__name by tostring": ("return tostring(setmetatable({}, {__name = 'Price'}))", "Price"),
    "weak keys": ("return getmetatable(setmetatable({}, {__mode = 'k'})).__mode", "k"),
    "taking it away": (
        "local t = setmetatable({}, {__index = {x = 1}}) setmetatable(t, nil) return getmetatable(t) or t.x",
        "nil",
    ),
    "setting another": (
        "local t = setmetatable({}, {__index = {x = 1}}) return setmetatable(t, {__index = {x = 2}}).x",
        "2",
    ),
    "the table itself": ("local t = {} t.__index = t return setmetatable(t, t) == t", "true"),
    "__tostring that may yield": (
        """
        local o = setmetatable({}, {__tostring = function() return coroutine.yield('asked') end})
        local thread = coroutine.wrap(function() return tostring(o) end)
        return thread() .. thread('told')
        """,
        "askedtold",
    ),
    "a callable as __tostring": (
        """
        local call = setmetatable({}, {__call = function() return 'called' end})
        return tostring(setmetatable({}, {__tostring = call}))
        """,
        "called",
    ),
}


@pytest.mark.parametrize("what", ORDINARY)
def test_what_scripts_do_with_metatables(box: Box, what: str) -> None:
    """It comes out as in Lua."""
    script, expected = ORDINARY[what]
    assert box.value(script) == expected


def test_later_events_are_seen_once_it_is_set_again(box: Box) -> None:
    """By all tables that have it; until then by none."""
    script = """
        local meta = {}
        local old = setmetatable({}, meta)
        meta.__index = function() return "seen" end
        local before = tostring(old.x)
        local new = setmetatable({}, meta)
        return before .. " " .. tostring(new.x) .. " " .. tostring(old.x)
    """
    assert box.value(script) == "nil seen seen"


def test_events_taken_away_are_gone_once_it_is_set_again(box: Box) -> None:
    """As in Lua."""
    script = """
        local meta = {__index = {x = 1}, __metatable = false}
        setmetatable({}, meta)
        meta.__index, meta.__metatable = nil, nil
        local t = setmetatable({}, meta)
        return t.x == nil and getmetatable(t) == meta
    """
    assert box.value(script) == "true"


def test_equal_is_not_the_same(box: Box) -> None:
    """A table of events that claims to be equal to the one before is taken for what it is."""
    script = """
        local function event(value) return setmetatable({}, {__eq = function() return true end,
          __index = function() return value end, __call = function() return value end}) end
        local meta = {__index = event(1), __call = event(1)}
        local t = setmetatable({}, meta)
        meta.__call = event(2)
        setmetatable(t, meta)
        local call = t()
        meta.__index = event(3)
        setmetatable(t, meta)
        return call .. t.x
    """
    assert box.value(script) == "23"


def test_a_metatable_is_read_raw(box: Box) -> None:
    """Whether it is set for the first time or again, what it inherits is not asked for."""
    script = """
        local meta = setmetatable({}, {__index = function() error("asked") end})
        meta.__add = function() return 1 end
        local one, other = setmetatable({}, meta), setmetatable({}, meta)
        meta.__add = function() return 2 end
        setmetatable(one, meta)
        return one + other
    """
    assert box.value(script) == "2"


REFUSED = {
    "setmetatable()": "own.lua:1: bad argument #1 to 'setmetatable' (table expected, got nil)",
    "setmetatable(1, {})": "own.lua:1: bad argument #1 to 'setmetatable' (table expected, got number)",
    "setmetatable({}, 1)": "own.lua:1: bad argument #2 to 'setmetatable' (nil or table expected, got number)",
    "setmetatable({}, {__gc = 1})": "own.lua:1: a metatable may not have __gc or __close here",
    "setmetatable({}, {__close = 1})": "own.lua:1: a metatable may not have __gc or __close here",
    "setmetatable(string, {})": "own.lua:1: cannot change a protected metatable",
    "setmetatable(setmetatable({}, {__metatable = 1}))": "own.lua:1: cannot change a protected metatable",
    "rawset(mesh, 'call', 1)": "own.lua:1: rawset cannot change a table of the host's",
    "rawset(1, 2, 3)": "own.lua:1: bad argument #1 to 'rawset' (table expected, got number)",
    "mesh.log.info = nil": "own.lua:1: mesh.log is frozen: mesh.log.info cannot be set",
    "string.format = nil": "own.lua:1: string is frozen: string.format cannot be set",
    "mesh[{}] = 1": "own.lua:1: mesh is frozen: it cannot be set",
    "tostring()": "own.lua:1: bad argument #1 to 'tostring' (value expected)",
    "tostring(setmetatable({}, {__tostring = next}))": "own.lua:1: '__tostring' must return a string",
    "local x <close> = setmetatable({}, {})": "own.lua:1: variable 'x' got a non-closable value",
}


@pytest.mark.parametrize("script", REFUSED)
def test_what_is_refused_says_where(box: Box, script: str) -> None:
    """With the script's line, in Lua's words where it is Lua's rule."""
    assert box.error(script) == REFUSED[script]


def test_frozen_tables_read_like_tables(box: Box) -> None:
    """By name, by pairs, and as text by their name."""
    script = """
        local names = {}
        for name, value in pairs(mesh) do names[#names + 1] = name .. "=" .. type(value) end
        table.sort(names)
        return table.concat(names, " ") .. " " .. tostring(mesh) .. " " .. string.format("%s", mesh.log)
          .. " " .. tostring(mesh.nothing) .. " " .. #mesh
    """
    assert box.value(script) == "call=function log=table mesh mesh.log nil 0"


def test_freeze_takes_a_copy(box: Box) -> None:
    """What is put into the table afterwards is not in the frozen one."""
    given = box.trusted(
        """
        local observer, parts = ...
        local source = {one = 1}
        local frozen = parts.sandbox.freeze(source, "it")
        source.one, source.two = 2, 2
        return frozen.one == 1 and frozen.two == nil
        """,
        box.parts,
    )
    assert given is True


def test_freeze_takes_no_open_table(box: Box) -> None:
    """A table in a frozen one has to be frozen before it."""
    said = box.trusted(
        "local _, parts = ... return select(2, pcall(parts.sandbox.freeze, {inner = {}}, 'it'))", box.parts
    )
    assert said == b"it.inner is a table that is not frozen"
