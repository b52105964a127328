"""What a script has: the core, and of the rest what is allowed; in an environment of its own for each run."""

from __future__ import annotations

import pytest
from lupa import lua54

from services.lua_host import library
from tests.lua_host.lua.box import ALL, Box


@pytest.fixture(scope="module")
def box() -> Box:
    return Box()


def names(box: Box) -> set[str]:
    """Give all that a script sees, members of modules by their path."""
    script = """
        local names = {}
        for name, value in pairs(_ENV) do
          names[#names + 1] = name
          if type(value) == "table" and name ~= "mesh" then
            for member in pairs(value) do names[#names + 1] = name .. "." .. member end
          end
        end
        local text = ""
        for _, name in ipairs(names) do text = text .. " " .. name end
        return text
    """
    return set(box.value(script).split())


CORE = library.CORE | {"mesh"}


@pytest.mark.parametrize(
    ("allow", "seen"),
    [
        ([], set()),
        (["table.concat"], {"table", "table.concat"}),
        (["utf8"], {"utf8", *(f"utf8.{name}" for name in library.MODULES["utf8"])}),
        (["string.rep", "string.sub", "load"], {"string", "string.rep", "string.sub", "load"}),
        (["pairs"], set()),
        (
            [*library.MODULES, *library.FUNCTIONS],
            {
                *library.MODULES,
                *library.FUNCTIONS,
                *(f"{module}.{name}" for module, members in library.MODULES.items() for name in members),
            },
        ),
    ],
)
def test_the_core_and_what_is_allowed(allow: list[str], seen: set[str]) -> None:
    """That, ``mesh``, and nothing else."""
    assert names(Box(allow)) == CORE | seen


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        *((entry, f"allow: {entry} is never allowed") for entry in sorted(library.NEVER)),
        *((entry, f"allow: {entry} is never allowed") for entry in ("os.time", "io.open", "debug.getinfo")),
        *(
            (entry, f"allow: there is no {entry} in Lua's library")
            for entry in ("strings", "string.", ".rep", "")
        ),
        *(
            (entry, f"allow: there is no {entry} in Lua's library")
            for entry in ("string.foo", "table.concat.x", "*")
        ),
    ],
)
def test_what_cannot_be_allowed(entry: str, why: str) -> None:
    """Is named when the box is made, and there is no box."""
    with pytest.raises(lua54.LuaError) as raised:
        Box(["string", entry])
    assert str(raised.value).splitlines()[0] == why


def test_the_host_s_list_is_the_sandbox_s(box: Box) -> None:
    """What the host takes in a manifest is what a worker takes."""
    listed: bytes = box.trusted(
        """
        local _, parts = ...
        local allowed, lines = parts.sandbox.allowed, {}
        local function add(kind, names)
          for name in pairs(names) do lines[#lines + 1] = kind .. " " .. name end
        end
        add("core", allowed.core) add("functions", allowed.functions) add("never", allowed.never)
        for module, members in pairs(allowed.modules) do add(module, members) end
        return table.concat(lines, "\\n")
        """,
        box.parts,
    )
    host = {"core": library.CORE, "functions": library.FUNCTIONS, "never": library.NEVER, **library.MODULES}
    assert set(listed.decode().splitlines()) == {
        f"{kind} {name}" for kind, all_ in host.items() for name in all_
    }


@pytest.mark.parametrize(
    ("allow", "script", "expected"),
    [
        (["string.upper"], "return ('x'):upper()", (True, "X")),
        (
            ["string.upper"],
            "return ('x'):lower()",
            (False, "own.lua:1: attempt to call a nil value (method 'lower')"),
        ),
        ([], "return ('x'):upper()", (False, "own.lua:1: attempt to call a nil value (method 'upper')")),
        ([], "return '10' + 1", (True, "11")),
        ([], "return #'four' .. 'x'", (True, "4x")),
    ],
)
def test_strings_have_the_methods_that_are_allowed(
    allow: list[str], script: str, expected: tuple[bool, str]
) -> None:
    """And the arithmetic that they always have."""
    assert Box(allow).run(script) == expected


def test_globals_are_gone_with_the_run(box: Box) -> None:
    """Made, replaced or taken away: the next run has none of it."""
    box.run("made = 1 pairs = 2 string = nil _ENV.mesh = nil setmetatable(_ENV, {__index = {made = 3}})")
    assert names(box) == names(Box())
    assert box.value("return made") == "nil"


def test_a_chunk_runs_in_each_environment_anew(box: Box) -> None:
    """Its functions stay in the environment that they were made in, whatever runs later."""
    said = box.trusted(
        """
        local box = (...).box
        local run = box.load([[
          count = (count or 0) + 1
          return function() count = count + 1 return count end
        ]], "=own.lua")
        local one, other = box.environment(), box.environment()
        local first, second = run(one), run(other)
        first() first()
        return one.count .. " " .. other.count .. " " .. second() .. " " .. first() .. " " .. run(one)()
        """
    )
    assert said == b"3 1 2 4 6"


def test_a_chunk_gets_no_arguments(box: Box) -> None:
    """Least of all its environment."""
    assert box.value("return select('#', ...)") == "0"


LOADS = {
    "return load('x = 1 return x')()": "1",
    "load('x = 1')() return x": "1",
    "return load('return x', 'name', 't', {x = 2})()": "2",
    "return load('return x', 'name', 'bt', {x = 2})()": "2",
    "return pcall(load('return x', 'name', 't', nil))": "false",
    "return select(2, load('x ='))": '[string "x ="]:1: unexpected symbol near <eof>',
    "return select(2, load('x =', '=mine'))": "mine:1: unexpected symbol near <eof>",
    "return select(2, load('', 'x', 'b'))": "attempt to load a text chunk (mode is 'b')",
    r"return select(2, load('\27Lua'))": "load takes text, not bytecode",
    "return load('return ...')(7)": "7",
    "local x = 1 return load('return x')()": "nil",
    "return select(2, pcall(load('error(\"here\")', '=mine')))": "mine:1: here",
}


@pytest.mark.parametrize("script", LOADS)
def test_load_is_lua_s_for_text(box: Box, script: str) -> None:
    """In the script's own environment, or the one that is given."""
    assert box.value(script) == LOADS[script]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("\n\nload(pairs)", "own.lua:3: load takes text in one string here, not a function"),
        ("load()", "own.lua:1: load takes text in one string here, not a nil"),
        ("load('', {})", "own.lua:1: bad argument #2 to 'load' (string expected, got table)"),
        ("load('', '', {})", "own.lua:1: bad argument #3 to 'load' (string expected, got table)"),
    ],
)
def test_load_refuses_all_but_text(box: Box, script: str, expected: str) -> None:
    """At the script's line."""
    assert box.error(script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("x =", "own.lua:1: unexpected symbol near <eof>"),
        ("\x1bLua\x54\x00", "own.lua: a script has to be text, not bytecode"),
        ("goto nowhere", "own.lua:1: no visible label 'nowhere' for <goto> at line 1"),
    ],
)
def test_a_script_that_does_not_compile_says_where(box: Box, script: str, expected: str) -> None:
    """By name and line."""
    ok, text = box.run(script)
    assert not ok
    assert text.startswith(expected)


#: Misuse of what is replaced, and of what is Lua's own, in the third line.
MISUSE = {
    "string.rep({}, 1)": "own.lua:3: bad argument #1 to 'rep' (string expected, got table)",
    "string.rep('x', 1.5)": "own.lua:3: bad argument #2 to 'rep' (number has no integer representation)",
    "('x'):rep()": "own.lua:3: bad argument #2 to 'rep' (number expected, got nil)",
    "('x'):match('[')": "own.lua:3: malformed pattern (missing ']')",
    "('x'):find({})": "own.lua:3: bad argument #2 to 'string.find' (string expected, got table)",
    "string.format('%d', 'x')": "own.lua:3: bad argument #2 to 'string.format' (number expected, got string)",
    "string.format('%d')": "own.lua:3: bad argument #2 to 'string.format' (no value)",
    "string.format('%y', 1)": "own.lua:3: invalid conversion '%y' to 'format'",
    "table.insert({}, 3, 1)": "own.lua:3: bad argument #2 to 'insert' (position out of bounds)",
    "table.insert({}, 1, 1, 1)": "own.lua:3: wrong number of arguments to 'insert'",
    "table.remove({}, 3)": "own.lua:3: bad argument #2 to 'remove' (position out of bounds)",
    "table.concat({1, {}, 3})": "own.lua:3: invalid value (at index 2) in table for 'concat'",
    "table.sort({}, 1)": "own.lua:3: bad argument #2 to 'sort' (function expected, got number)",
    "table.insert(nil, 1)": "own.lua:3: bad argument #1 to 'insert' (table expected, got nil)",
    "coroutine.wrap(1)": "own.lua:3: bad argument #1 to 'wrap' (function expected, got number)",
    "math.floor({})": "own.lua:3: bad argument #1 to 'floor' (number expected, got table)",
    "error('mine')": "own.lua:3: mine",
    "error('mine', 0)": "mine",
}


@pytest.mark.parametrize("misuse", MISUSE)
def test_errors_tell_the_script_s_line(box: Box, misuse: str) -> None:
    """Not that of a wrapper."""
    assert box.error(f"local x\n\n{misuse}") == MISUSE[misuse]


def test_errors_of_callbacks_are_not_touched(box: Box) -> None:
    """What a script raises within a function of the library is what it catches."""
    script = """
        local mine = {}
        local function raise() error(mine) end
        local object = setmetatable({}, {
          __index = raise, __len = raise, __tostring = raise, __newindex = raise,
        })
        for name, try in pairs {
          gsub = function() ("x"):gsub("x", raise) end, sort = function() table.sort({1, 2}, raise) end,
          tostring = function() tostring(object) end, format = function() string.format("%s", object) end,
          concat = function() table.concat(object) end, insert = function() table.insert(object, 1) end,
          table = function() ("x"):gsub("x", object) end, move = function() table.move(object, 1, 2, 3) end,
        } do
          if select(2, pcall(try)) ~= mine then return name end
        end
        return "all"
    """
    assert box.value(script) == "all"


def numbers(box: Box, seed: int | None, taken: int = 0) -> str:
    """Give the first numbers of a run with a seed, which then takes more of them."""
    said: bytes = box.trusted(
        """
        local box, seed, taken = (...).box, select(2, ...)
        local run = box.load([[
          local first = math.random(0) .. " " .. math.random(0)
          return first, function(more) for _ = 1, more do math.random() end end
        ]], "=own.lua")
        if seed then box.reset(seed) end
        local first, take = run(box.environment())
        take(taken)
        return first
        """,
        seed,
        taken,
    )
    return said.decode()


def test_chance_begins_anew_with_each_run() -> None:
    """Its numbers are those of the run's seed, whatever an earlier run took of them."""
    box = Box()
    first = numbers(box, 7)
    assert numbers(box, 7, taken=5) == first
    assert numbers(box, 8) != first
    assert numbers(box, 7) == first == numbers(Box(), 7)


def test_chance_does_not_tell_an_address() -> None:
    """Nobody meets the seed that Lua makes of one, not even a run that was given none."""
    assert numbers(Box(), None) == numbers(Box(), None)


def test_an_environment_is_cheap() -> None:
    """It is made without compiling, and takes no memory that stays."""
    box = Box(ALL)
    before = box.lua.get_memory_used()
    box.trusted(
        """
        local box = (...).box
        local run = box.load("x = function() return x end", "=own.lua")
        for _ = 1, 20000 do run(box.environment()) end
        collectgarbage() collectgarbage()
        """
    )
    assert box.lua.get_memory_used() < before + 16384
