"""What is wrong with a script, found without running it: all with its line, and nothing that is right."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.lua_host import library
from tests.lua_host.lua.box import Box

BOX = Box()
RULES = """
local _, parts, text, allow = ...
local problems, handles = parts.inspect.script(text, "own.lua", {
  allow = allow,
  mesh = {call = 1, fail = 1, handle = 1, log = 1, now = 1, stream = 1, uint64 = 1},
  log = {debug = 1, info = 1, warning = 1, error = 1},
  methods = {Do = {}, ["/t.Own/Do"] = {}, Watch = {}},
  grants = {
    other = {["/t.Other/Ask"] = {server_streaming = false}, ["/t.Other/Watch"] = {server_streaming = true}},
  },
})
local lines = {}
for _, problem in ipairs(problems) do lines[#lines + 1] = problem.line .. ": " .. problem.text end
return table.concat(lines, "\\n"), table.concat(handles, " ")
"""


def inspected(
    script: str, allow: Sequence[str] = ("string", "table.concat", "coroutine", "load"), *, box: Box = BOX
) -> tuple[list[str], str]:
    """Give the problems of a script as ``line: text``, and the methods that it names to mesh.handle."""
    listed = box.lua.table_from([entry.encode() for entry in allow])
    problems, handles = box.trusted(RULES, box.parts, script.encode(), listed)
    return problems.decode().splitlines(), handles.decode()


def problems(script: str) -> list[str]:
    return inspected(script)[0]


#: More letters than a short string of Lua's has.
LONG = "a_name_of_more_than_forty_letters_" + "a" * 20
REPLACED = "for the whole script: make it local, or call it something else"
ALLOW = "to allow in service.toml"
HAS = {module: f"{module} has " + ", ".join(sorted(names)) for module, names in library.MODULES.items()}
NO_DUMP = "string.dump is never there for a script"
NO_METHOD = "no method Doo in what this service serves: see serves in service.toml"
NO_WARN = "there is no mesh.log.warn: mesh.log has debug, error, info, warning"
NO_GRANT = "the manifest does not let this service call"
GRANT = ": name it under [calls] in service.toml"
#: Scripts, each with the one thing that is wrong with it.
WRONG = {
    # Syntax.
    "x =": "1: unexpected symbol near <eof>",
    "local x\n\nif x then": "3: 'end' expected near <eof>",
    "\n\nbreak": "3: break outside loop at line 3",
    "\x1bLua": "0: own.lua: a script has to be text, not bytecode",
    # Globals.
    "\nundefined()": "2: there is no global undefined",
    "local function f()\n  return function() return undefined.x end\nend": "2: there is no global undefined",
    "return 1 +\n  undefined": "2: there is no global undefined",
    "for i = 1, undefined do end": "1: there is no global undefined",
    "for x in undefined() do end": "1: there is no global undefined",
    "local t = {1, 2, undefined}": "1: there is no global undefined",
    "mesh.log.info(undefined)": "1: there is no global undefined",
    "local x x[undefined] = 1": "1: there is no global undefined",
    "return undefined .. 'x'": "1: there is no global undefined",
    "while true do undefined() end": "1: there is no global undefined",
    f"return {LONG}": f"1: there is no global {LONG}",
    "print(1)": "1: print is never there for a script: use mesh.log.info",
    "return os.time()": "1: os is never there for a script",
    "return require('x')": "1: require is never there for a script",
    "tostring = nil": f"1: this replaces tostring {REPLACED}",
    "function mesh() end": f"1: this replaces mesh {REPLACED}",
    # Modules.
    "return math.floor(1)": f'1: math.floor is not in allow: add "math.floor" or "math" {ALLOW}',
    "local m = math": '1: math is not in allow: add "math" to allow in service.toml',
    "return table.insert": f'1: table.insert is not in allow: add "table.insert" or "table" {ALLOW}',
    "return string.dump": f"1: {NO_DUMP}",
    "return coroutine.spawn": f"1: there is no coroutine.spawn: {HAS['coroutine']}",
    "local s = string\nreturn s.dump(s)": f"2: {NO_DUMP}",
    "local s <const> = string\nreturn s.dump": f"2: {NO_DUMP}",
    "local s = string\nreturn function()\n  return s.dump\nend": f"3: {NO_DUMP}",
    "local s = string\nreturn function()\n  return function() return s['dump'] end\nend": f"3: {NO_DUMP}",
    "local s = string for i = 1, 2 do s.dump() end": f"1: {NO_DUMP}",
    "local s = string while s do s.dump() end": f"1: {NO_DUMP}",
    "local s = string for k in pairs(s) do if k then s.dump() end end": f"1: {NO_DUMP}",
    "return ('x'):dump()": f"1: {NO_DUMP}",
    "local x = 'x' return x:nothing()": f"1: there is no string.nothing: {HAS['string']}",
    "string.trim = function() end": "1: string is frozen and cannot be changed",
    "function mesh.log.trace() end": "1: mesh.log is frozen and cannot be changed",
    # mesh.
    "mesh.cal()": "1: there is no mesh.cal: mesh has call, fail, handle, log, now, stream, uint64",
    "mesh.log.warn('x')": f"1: {NO_WARN}",
    "local log = mesh.log\nreturn function() log.warn('x') end": f"2: {NO_WARN}",
    "mesh.handle('Doo', function() end)": f"1: {NO_METHOD}",
    "local handle = mesh.handle\nhandle('Doo', function() end)": f"2: {NO_METHOD}",
    "mesh.call('other', '/t.Other/Aks', {})": f"1: {NO_GRANT} other /t.Other/Aks{GRANT}",
    "mesh.call('vault', '/t.Vault/Open', {})": f"1: {NO_GRANT} vault{GRANT}",
    "return mesh.call('vault', ..., {})": f"1: {NO_GRANT} vault{GRANT}",
    "for x in mesh.stream('other', '/t.Other/Aks', {}) do end": f"1: {NO_GRANT} other /t.Other/Aks{GRANT}",
    "mesh.call('other', '/t.Other/Watch', {})": "1: /t.Other/Watch streams replies: use mesh.stream",
    "mesh.stream('other', '/t.Other/Ask', {})": "1: /t.Other/Ask has one reply: use mesh.call",
    "local name = 'vault' mesh.call(name, '/t.Vault/Open', {})": f"1: {NO_GRANT} vault{GRANT}",
    "local name = 'vault'\nreturn function()\n  mesh.call(name, 'x', {})\nend": f"3: {NO_GRANT} vault{GRANT}",
    "mesh.call('vault', '/t.Vault/Open', {x = ... and 1 or 2})": f"1: {NO_GRANT} vault{GRANT}",
}


@pytest.mark.parametrize("script", WRONG)
def test_what_is_wrong_is_told_with_its_line(script: str) -> None:
    """It alone."""
    assert problems(script) == [WRONG[script]]


#: Scripts with nothing wrong, each with something that looks like it.
RIGHT = [
    "",
    "return ...",
    "-- undefined()",
    "return 'undefined()'",
    # Names of variables are not names of globals.
    "local undefined = 1 return undefined",
    "local print = function() end print()",
    "local function math() return {floor = 1} end return math().floor",
    "local os = {time = function() end} return function() return os.time() end",
    "return function(string) return string.dump end",
    "for print = 1, 2 do mesh.log.info(print .. '') end",
    "local string = {dump = 1} return string.dump",
    "local s = string s = {dump = 1} return s.dump",
    "local s = string local function set() s = {dump = 1} end return function() return s.dump end, set",
    "local s = string return function() s = {dump = 1} return s.dump end",
    "local s = string if ... then s = {dump = 1} end return s.dump",
    "local s = ... and string or {dump = 1} return s.dump",
    "local s = string for i = 1, 2 do if i == 2 then s.dump() end s = {dump = 1} end",
    "local s = string while ... do s = s.x or {} if s.dump then break end s = {dump = 1} end",
    "local s = string ::again:: if s.format == nil then return s.dump end s = {dump = 1} goto again",
    "local s = {dump = 1} for i = 1, ... do s = string end return s.dump",
    "local s = {dump = 1} for _ in ... do s = string end return s.dump",
    "do local a, b = string, string end local c, d if d == nil then return end return d.dump",
    "local s = string repeat local t = s s = {dump = 1} until t.dump",
    # Globals that the script defines, wherever.
    "x = 1 return x",
    "function f() return g() end function g() return f end return f()",
    "local function set() y = 1 end set() return y",
    "if ... then x = 1 end return x",
    "for _, name in ipairs({}) do x = name end return x.y.z",
    # Names that are only asked about.
    "if jit then jit.on() end",
    "if not setfenv then return end setfenv(1, {})",
    "return unpack or table.concat",
    "return undefined and undefined.x",
    "if undefined == nil then return end",
    "if type(undefined) == 'function' then undefined() end",
    "if string.trim then return string.trim('x') end",
    "local bit = bit32 or {} return bit",
    # Environments that are not what they seem.
    "local _ENV = {x = 1} return x",
    "local function f() local _ENV = {print = 1} return print end return f",
    "return function(_ENV) return anything + at.all end",
    "_ENV = {a = 1} return a, b",
    "_ENV.x = 1 return x, _ENV.y",
    "setmetatable(_ENV, {__index = function(_, name) return name end}) return anything",
    "for name in pairs(_ENV) do mesh.log.info(name) end return undefined",
    "load('x = 1')() return x",
    "local define = load define('x = 1')() return x",
    # Objects that are not modules.
    "local t = {} function t.dump() end return t.dump, t:dump()",
    "local t = {string = {dump = 1}} return t.string.dump",
    "return mesh.call('other', '/t.Other/Ask', {}).dump",
    "return ('x'):rep(2):upper()",
    "local s = ... return s:anything()",
    # Names that are not constant, or are granted.
    "mesh.handle('Do', function(request) return request end)",
    "mesh.handle('/t.Own/Do', function(request) return request end)",
    "mesh.handle(..., function() end)",
    "for _, name in ipairs {'Do', 'Watch'} do mesh.handle(name, function() end) end",
    "mesh.handle(('D' .. 'o'), function() end)",
    "local name = 'Doo' name = 'Do' mesh.handle(name, function() end)",
    "local name = 'Doo' if ... then name = 'Do' end mesh.handle(name, function() end)",
    "mesh.call('other', '/t.Other/Ask', {})",
    "for reply in mesh.stream('other', '/t.Other/Watch', {}) do mesh.log.info(reply.text) end",
    "mesh.call(..., '/t.Vault/Open', {})",
    "mesh.call('other', ..., {})",
    "mesh.call('other', ({...})[1], {})",
    "local function call(service, method) return mesh.call(service, method, {}) end return call('vault')",
    "local mesh = {call = function() end} mesh.call('vault', 'x')",
    # Code that nothing comes to.
    "do return end undefined()",
    "goto done undefined() ::done::",
]


@pytest.mark.parametrize("script", RIGHT)
def test_what_is_right_is_not_told(script: str) -> None:
    """Nothing is wrong with it."""
    assert problems(script) == []


def test_all_that_is_wrong_is_told() -> None:
    """In the order of the lines, and once for a line."""
    script = "undefined() other()\nreturn function()\n  undefined() undefined()\n  return math.abs\nend"
    assert problems(script) == [
        "1: there is no global other",
        "1: there is no global undefined",
        "3: there is no global undefined",
        '4: math.abs is not in allow: add "math.abs" or "math" to allow in service.toml',
    ]


def test_what_is_told_has_an_end() -> None:
    """However much a script makes of it: a hundred problems, of so many letters."""
    many = problems("\n".join(f"undefined{number}()" for number in range(500)))
    assert len(many) == 100
    (long,) = problems(f"mesh.handle('{'x' * 100000}', function() end)")
    assert len(long) < 400


def test_methods_that_are_handled() -> None:
    """As the script names them, once each, in the order of the script."""
    script = """
        mesh.handle("Watch", function() end)
        local handle = mesh.handle
        if ... then handle("Do", function() end) else handle("Do", function() end) end
        mesh.handle(..., function() end)
    """
    assert inspected(script) == ([], "Watch Do")


@pytest.mark.parametrize(
    ("allow", "script", "expected"),
    [
        (
            [],
            "return ('x'):upper()",
            ['1: string.upper is not in allow: add "string.upper" or "string" to allow in service.toml'],
        ),
        (["string.upper"], "return ('x'):upper()", []),
        (
            ["string.upper"],
            "return ('x').lower",
            ['1: string.lower is not in allow: add "string.lower" or "string" to allow in service.toml'],
        ),
        ([], "return load('x')", ['1: load is not in allow: add "load" to allow in service.toml']),
        (
            ["math"],
            "return math.pi, math.pow",
            [f"1: there is no math.pow: {HAS['math']}"],
        ),
        (["math"], "return math.randomseed", ["1: math.randomseed is never there for a script"]),
    ],
)
def test_it_is_what_this_service_is_allowed(allow: list[str], script: str, expected: list[str]) -> None:
    """By its own manifest."""
    assert inspected(script, allow)[0] == expected


def test_constants_by_the_thousand() -> None:
    """Names beyond those that an instruction can hold are found all the same, and so are their lines."""
    filler = "\n".join(f"local_{number} = 'constant {number}'" for number in range(70000))
    script = (
        f"{filler}\nundefined()\nstring.dump()\nmesh.handle('Doo', function() end)\nlocal_1 = string.no()"
    )
    found = inspected(script, box=Box(memory=512 * 1024 * 1024))[0]
    assert found[0] == "70001: there is no global undefined"
    assert found[1] == f"70002: {NO_DUMP}"
    assert found[2] == f"70003: {NO_METHOD}"
    assert found[3].startswith("70004: there is no string.no:")


def test_nothing_is_run() -> None:
    """Neither the script nor anything that it would load."""
    assert problems("while true do end") == []
    assert problems("error('run')") == []
    assert BOX.changes() == ""
