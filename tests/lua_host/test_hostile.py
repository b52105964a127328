"""Scripts by an enemy, in a real jail: each ends contained, and the next call is fine.

``own`` runs with everything allowed that can be; a trick is the body of a handler.
"""
# ruff: noqa: E501  a trick is a line

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio

from mesh.core.names import FullMethod
from services.lua_host.outside import OutgoingCall
from services.lua_host.rehearsal import Outcome, Stage, rehearse
from tests.lua_host.stage import Elsewhere, warm, write_service

DO = FullMethod("/t.Own/Do")
_C = grpc.StatusCode
SCRIPT = """
local tricks = {{}}
tricks.nothing = function() return "nothing" end
tricks.it = function(request, context)
{body}
end
mesh.handle("Do", function(request, context)
  return {{text = tostring(tricks[request.text](request, context))}}
end)
"""

#: Computing for ever, whatever catches errors: only the process can be ended.
ENDLESS = {
    "a loop": "while true do end",
    "a loop under pcall": "while true do pcall(function() while true do end end) end",
    "error handlers that loop": "xpcall(error, function() while true do end end)",
    "handlers of handlers": "local function h() xpcall(error, h) while true do end end xpcall(error, h)",
    "coroutines that swallow": "while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end",
    "a tail call": "local function f() return f() end return f()",
    "a goto": "::again:: goto again",
    "a pattern": "return (string.rep('a', 20000)):find(string.rep('.-', 9) .. 'b')",
    "a pattern with captures": "return (string.rep('a', 30000)):match('(.-)(.-)(.-)(.-)b')",
    "gsub over and over": "local s = string.rep('a', 100000) while true do s = s:gsub('a', 'a') end",
    "tostring that loops": "return tostring(setmetatable({}, {__tostring = function() while true do end end}))",
    "an index that loops": "local t = setmetatable({}, {}) getmetatable(t).__index = function() end "
    "local u = setmetatable({}, {__index = function() while true do end end}) return u.x",
    "a comparison that loops": "local t = {} for i = 1, 100 do t[i] = i end "
    "table.sort(t, function() while true do end end)",
    "a length that lies": "return table.concat(setmetatable({}, {__len = function() return math.maxinteger end, "
    "__index = function() return '' end})) .. tostring(table.remove(setmetatable({}, {__len = function() "
    "return math.maxinteger end}), 1)) .. (function() while true do end end)()",
    "log lines": "while true do mesh.log.info('x') end",
    "calls": "while true do pcall(mesh.call, 'other', '/t.Other/Ask', {}) end",
    "calls that are not granted": "while true do pcall(mesh.call, 'vault', '/t.Vault/Open', {}) end",
    "failures": "while true do pcall(mesh.fail, 'ABORTED', 'x') end",
}
#: Taking all there is. Either the script is told, or its worker ends; nobody else notices.
GREEDY = {
    "a string": "return string.rep('x', 1 << 40)",
    "a string made of strings": "local s = 'x' while true do s = s .. s end",
    "a table": "local t = {} while true do t[#t + 1] = {} end",
    "a table, under pcall": "local t = {} while true do pcall(function() t[#t + 1] = string.rep('x', 100000) .. #t end) end",
    "concat": "local t = {} for i = 1, 1000 do t[i] = string.rep('x', 100000) end return table.concat(t)",
    "gsub": "return (string.rep('x', 100000)):gsub('.', string.rep('y', 100000))",
    "format": "local s = string.rep('x', 1000000) while true do s = string.format('%s%s', s, s) end",
    "pack": "local s = string.rep('x', 1000000) while true do s = string.pack('s4s4', s, s) end",
    "a deep recursion": "local function f() return 1 + f() end return f()",
    "deep recursion in C": "local function f() return pcall(f) end return f()",
    "nested coroutines": "local function f() return coroutine.wrap(f)() end return f()",
    "many coroutines": "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    "unpack": "return table.unpack({}, 1, 1e8)",
    "deep tables to encode": "local t = {} for i = 1, 1e6 do t = {notes = {t}} end "
    "return mesh.call('other', '/t.Other/Ask', t)",
    "cyclic tables to encode": "local t = {} t.notes = {t} return mesh.call('other', '/t.Other/Ask', t)",
    "deep source": "return load('return ' .. string.rep('(', 100000) .. string.rep(')', 100000))()",
    "a long concatenation": "return load('return ' .. string.rep('a .. ', 100000) .. 'a')()",
    "an error in errors": "return select(2, xpcall(error, function() error(string.rep('x', 1e6)) end))",
    "metatables without end": "local t = {} for i = 1, 1e6 do t = setmetatable({}, {__index = t}) end return t.x",
}
#: Things that must not be had. The trick gives what it got; "none" is what it should get.
LOOT = {
    "io": "return io or 'none'",
    "os": "return os or 'none'",
    "debug": "return debug or 'none'",
    "package": "return package or 'none'",
    "require": "return require or 'none'",
    "dofile": "return dofile or loadfile or 'none'",
    "collectgarbage": "return collectgarbage or 'none'",
    "python": "return python or 'none'",
    "the real globals": "return _G and _G.python or 'none'",
    "string.dump": "return string.dump or ('').dump or 'none'",
    "the seed of chance": "return math.randomseed or 'none'",
    "bytecode": "return load('\\27Lua\\x54\\0\\25\\147\\13\\10\\26\\10') or 'none'",
    "bytecode in pieces": "local n = 0 return select(2, pcall(load, function() n = n + 1 return n == 1 and '\\27Lua' or nil end)) "
    "and 'none' or 'none'",
    "the metatable of strings": "return getmetatable('') or 'none'",
    "strings' methods changed": "local ok = pcall(function() getmetatable('').__index.upper = nil end) "
    "return ok and 'changed' or 'none'",
    "a library changed": "local ok = pcall(function() string.format = 1 end) return ok and 'changed' or 'none'",
    "a library changed raw": "pcall(rawset, string, 'format', 1) return type(string.format) == 'function' and 'none'",
    "mesh changed": "local ok = pcall(function() mesh.call = print end) return ok and 'changed' or 'none'",
    "mesh.log changed raw": "pcall(rawset, mesh.log, 'info', 1) return type(mesh.log.info) == 'function' and 'none'",
    "a metatable for a library": "local ok = pcall(setmetatable, string, {}) return ok and 'changed' or 'none'",
    "an address of a table": "return tostring({}):find('0x') or 'none'",
    "an address of a function": "return tostring(pairs):find('0x') or 'none'",
    "an address by format": "local ok, s = pcall(string.format, '%p', {}) return ok and s or 'none'",
    "an address by %s": "return string.format('%s', {}):find('0x') or 'none'",
    "a finalizer": "local ok = pcall(setmetatable, {}, {__gc = function() end}) return ok and 'taken' or 'none'",
    "a closer": "local ok = pcall(setmetatable, {}, {__close = function() end}) return ok and 'taken' or 'none'",
    "a closer added late": "local ran = 'none' local m = {} local t = setmetatable({}, m) "
    "m.__close = function() ran = 'ran' end pcall(function() for _ in next, {}, nil, t do end end) return ran",
    "a metatable of a message": "return getmetatable(request) or 'none'",
}


class Own:
    """A hostile service."""

    def __init__(self, stage: Stage, note: Any) -> None:
        self.stage, self.note = stage, note

    async def play(self, trick: str) -> Outcome:
        """Have it try something."""
        payload = self.note(text=trick).SerializeToString()
        return await asyncio.wait_for(self.stage.call(DO, payload), 20)

    async def text(self, trick: str) -> str:
        """Have it try something that works; give what it says."""
        outcome = await self.play(trick)
        assert outcome.code is _C.OK, outcome
        text: str = self.note.FromString(outcome.messages[0]).text
        return text

    async def is_fine(self) -> None:
        """Call it once more. How soon the answer is there is for the bench to measure."""
        assert await self.text("nothing") == "nothing"


Open: TypeAlias = Callable[..., Any]


def echo(call: OutgoingCall) -> list[bytes]:
    return [call.payload]


@pytest_asyncio.fixture
async def own(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_own(body: str, **limits: Any) -> Own:
            bundle = write_service(tmp_path, SCRIPT.format(body=body), **{"deadline": "300ms", **limits})
            stage = await stack.enter_async_context(rehearse(bundle, Elsewhere(echo)))
            await warm(stage)
            return Own(stage, bundle.protos.message("t.Note"))

        yield open_own


#: Those that a bound in the library may end before the deadline does.
BOUNDED = {"a pattern", "a pattern with captures", "a length that lies"}


@pytest.mark.parametrize("trick", ENDLESS)
async def test_what_computes_for_ever_is_ended_from_outside(own: Open, trick: str) -> None:
    """The caller has DEADLINE_EXCEEDED, whatever the script catches, and the next call an answer."""
    hostile = await own(ENDLESS[trick])
    ends = {_C.DEADLINE_EXCEEDED, _C.UNKNOWN} if trick in BOUNDED else {_C.DEADLINE_EXCEEDED}
    assert (await hostile.play("it")).code in ends
    await hostile.is_fine()


@pytest.mark.parametrize("trick", GREEDY)
async def test_what_takes_all_is_told_or_ended(own: Open, trick: str) -> None:
    """Its host is well, and so is its next call."""
    hostile = await own(GREEDY[trick], memory="16MiB", deadline="2s")
    assert (await hostile.play("it")).code in {
        _C.OK,
        _C.UNKNOWN,
        _C.RESOURCE_EXHAUSTED,
        _C.INTERNAL,
        _C.DEADLINE_EXCEEDED,
    }
    await hostile.is_fine()


@pytest.mark.parametrize("trick", LOOT)
async def test_what_must_not_be_had_is_not_had(own: Open, trick: str) -> None:
    """The script finds nothing."""
    hostile = await own(LOOT[trick])
    assert await hostile.text("it") == "none"


async def test_a_memory_bomb_is_said_to_be_one(own: Open) -> None:
    """RESOURCE_EXHAUSTED, and a new worker."""
    hostile = await own(
        "local t = {} while true do t[#t + 1] = string.rep('x', 10000) .. #t end", deadline="5s"
    )
    assert (await hostile.play("it")).code is _C.RESOURCE_EXHAUSTED
    await hostile.is_fine()


async def test_a_request_that_fills_the_memory_does_not_cost_what_is_kept(own: Open) -> None:
    """It is refused for want of memory; what the service had, it still has."""
    hostile = await own(
        """
        count = (count or 0) + 1
        local copies = {}
        for i, note in ipairs(request.notes) do copies[i] = string.rep("x", 100) .. i end
        return count
        """,
        memory="8MiB",
        deadline="5s",
        state="kept",
    )
    assert await hostile.text("it") == "1"
    many = hostile.note(text="it")
    for _ in range(60_000):
        many.notes.add()
    outcome = await hostile.stage.call(DO, many.SerializeToString())
    assert outcome.code in {_C.INVALID_ARGUMENT, _C.RESOURCE_EXHAUSTED}
    assert int(await hostile.text("it")) in {2, 3}


async def test_the_numbers_of_one_call_tell_nothing_of_another(own: Open) -> None:
    """Each run has a seed of its own, so what one has drawn does not show in what the next draws."""
    hostile = await own("math.random(0) return math.random(0)", workers=1)
    drawn = [await hostile.text("it") for _ in range(5)]
    assert len(set(drawn)) == 5


async def test_errors_of_the_mesh_show_no_address(own: Open) -> None:
    """Not even where a table or a function is what is wrong."""
    hostile = await own(
        """
        local said = ""
        for _, key in ipairs {{}, rawlen, function() end} do
          local ok, wrong = pcall(mesh.call, "other", "/t.Other/Ask", {}, {[key] = 1})
          said = said .. tostring(wrong)
        end
        return said
        """
    )
    assert "0x" not in await hostile.text("it")


async def test_attack_after_attack(own: Open) -> None:
    """Deadlines one after the other: each time the next call has its answer."""
    hostile = await own("while true do end", deadline="1s")
    for _ in range(6):
        assert (await hostile.play("it")).code is _C.DEADLINE_EXCEEDED
        await hostile.is_fine()
        await warm(hostile.stage)


async def test_one_call_does_not_poison_the_next(own: Open) -> None:
    """Whatever globals, libraries and metatables it writes to."""
    hostile = await own(
        """
        for name, value in pairs(_ENV or {}) do pcall(function() _ENV[name] = nil end) end
        pairs, ipairs, tostring, error, mesh, string, table = nil
        return "done"
        """
    )
    await hostile.play("it")
    assert await hostile.text("nothing") == "nothing"


async def test_numbers_at_the_edges_are_exact(own: Open) -> None:
    """2^53 and 2^63 and their neighbours, through request, script and reply."""
    hostile = await own("return string.format('%d %s', request.number, math.type(request.number))")
    for number in (2**53, 2**53 + 1, 2**63 - 1, -(2**63), -1, 0):
        payload = hostile.note(text="it", number=number).SerializeToString()
        outcome = await hostile.stage.call(DO, payload)
        assert hostile.note.FromString(outcome.messages[0]).text == f"{number} integer"
