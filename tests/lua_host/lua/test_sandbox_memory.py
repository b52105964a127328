"""Memory that runs out at any step of anything: the error can be caught, and what is shared stays whole."""

from __future__ import annotations

import pytest

from tests.lua_host.lua.box import Box

#: Code that keeps something, in what environments share or in the run; ``at`` is another number each time.
STEPS = {
    "a new metatable": "return setmetatable({}, {__index = {at}, __add = pairs, __metatable = 1})",
    "a metatable that changed": """
        local meta = {__index = {at}} local object = setmetatable({}, meta)
        meta.__add, meta.__sub, meta.__mul, meta.__index = pairs, pairs, pairs, pairs
        return setmetatable(object, meta)
    """,
    "patterns": "return {('text'):match('(' .. at .. '*)(.-)'), ('text'):gmatch('x' .. at)}",
    "formats": "return string.format(at .. ' %s %d', {}, at)",
    "joined lists": "return table.concat(setmetatable({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', at}, {}))",
    "sorted lists": "local list = setmetatable({5, 4, at, 2, 1}, {}) table.sort(list) return list",
    "lists with more in them": "local l = setmetatable({at}, {}) table.insert(l, 1, 'x') return l",
    "coroutines": "return coroutine.wrap(function() return at end)",
    "loaded code": """
        local run, wrong = load('x' .. at .. ' = {} return function() return x end')
        return run and run() or error(wrong, 0)
    """,
    "globals": "_ENV['x' .. at] = {}",
}
SWEEP = """
local observer, limit, step = ...
local run = observer.box.load(
  "local keep = {} local ok, wrong = pcall(function() for at = 1, 40 do keep[at] = (function() " .. step ..
  " end)() end end) return ok and 'done' or wrong", "=own.lua")
local function once()
  return run(observer.box.environment())
end
local function clean()
  observer.box.reset()
  collectgarbage()
  collectgarbage()
end
local ends, spare, done = {}, 0, 0
while done < 20 do
  clean()
  limit(spare)
  local ok, value = pcall(once)
  limit(1 << 30)
  local said = (ok and "caught: " or "not caught: ") .. tostring(value)
  ends[said] = (ends[said] or 0) + 1
  spare, done = spare + 16, ends["caught: done"] or 0
end
local texts = {}
for said, times in pairs(ends) do texts[#texts + 1] = (times < 20 and "hardly " or "") .. said end
table.sort(texts)
return table.concat(texts, "; ") .. "; then: " .. once()
"""


@pytest.mark.parametrize("step", STEPS)
def test_memory_runs_out_at_every_step(step: str) -> None:
    """Whether the script catches it or not: nothing that is shared changes, and then the same code works."""
    box = Box()

    def limit(spare: int) -> None:
        box.lua.set_max_memory(box.lua.get_memory_used() + spare)

    said: bytes = box.trusted(SWEEP, limit, STEPS[step].encode())
    assert said.decode().split("; ") == [
        "caught: done",
        "caught: not enough memory",
        "not caught: not enough memory",
        "then: done",
    ]
    assert box.changes() == ""


def test_an_error_of_memory_has_no_line() -> None:
    """So that the host can tell it from what a script says: also where a wrapper hands it on."""
    box = Box(memory=2 * 1024 * 1024, max_string=2**30)
    for bomb in (
        "return string.rep('x', 1 << 28)",
        "local t = {} for i = 1, 9 do t[i] = ('x'):rep(9999) end while true do t[1] = table.concat(t) end",
        "return (string.rep('x', 100000)):gsub('.', string.rep('y', 10000))",
        "local s = string.rep('x', 100000) while true do s = string.format('%s%s', s, s) end",
        "local s = string.rep('x', 100000) while true do s = string.pack('s4s4', s, s) end",
        "local t = {} while true do t[#t + 1] = setmetatable({}, {__index = t}) end",
    ):
        assert box.error(bomb) == "not enough memory"
    assert box.changes() == ""
