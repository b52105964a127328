"""A Lua state with the sandbox in it, for tests: scripts are run, and what they leave is seen.

What trusted code knows (metatables, upvalues, the real library) is in ``OBSERVER``, which no script reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lupa import lua54

import services.lua_host

LUA: Final = Path(services.lua_host.__file__).parent / "lua"
#: Everything that a script may be allowed.
ALL: Final = ("string", "table", "math", "utf8", "coroutine", "load")
MAX_STRING: Final = 65536

LOADER = """
local sources = {...}
return setmetatable({}, {__index = function(parts, name)
  for index = 1, #sources, 2 do
    if sources[index] == name then
      parts[name] = assert(load(sources[index + 1], "=mesh/" .. name .. ".lua", "t"))(parts)
      return rawget(parts, name)
    end
  end
end})
"""

OBSERVER = """
local parts, max_string, allow = ...
local getmetatable, next, pcall, rawequal, tostring, type =
  debug.getmetatable, next, pcall, rawequal, tostring, type
local real = {}
for _, module in ipairs {"string", "table", "math", "utf8", "coroutine"} do
  real[module] = _G[module]
end

local mesh = parts.sandbox.freeze({
  log = parts.sandbox.freeze({info = function() end}, "mesh.log"),
  call = function(value) return value end,
}, "mesh")
local box = parts.sandbox.new {
  allow = allow, max_string = max_string, globals = {mesh = mesh},
}

local observer = {real = real, box = box}

-- true and what the script returned, or false and its error, as text.
function observer.run(text)
  local chunk, wrong = box.load(text, "=own.lua")
  if not chunk then
    return false, wrong
  end
  box.reset(1)
  local ok, value = pcall(chunk, box.environment())
  if type(value) == "table" or type(value) == "function" then
    value = "a " .. type(value)
  end
  return ok, tostring(value)
end

-- Every function, value and metatable that environments share, by path: what no script may change.
function observer.shared()
  local seen, environment = {}, box.environment()
  local function note(path, value)
    seen[path] = value
    local meta = type(value) == "table" and getmetatable(value)
    if meta then
      seen[path .. " raw"] = next(value) == nil
      seen[path .. " meta"] = meta
      for event, member in next, meta do
        seen[path .. " " .. event] = member
      end
      for name, member in next, meta.__index do
        note(path .. "." .. name, member)
      end
    end
  end
  for name, value in next, environment do
    note(name, name ~= "load" and value or "")
  end
  local strings = getmetatable("")
  for event, member in next, strings do
    seen["strings " .. event] = member
  end
  for name, member in next, strings.__index do
    seen["strings." .. name] = member
  end
  for _, value in next, {0, true, print, coroutine.create(print)} do
    seen["meta of a " .. type(value)] = getmetatable(value) == nil
  end
  return seen
end

-- What differs between two of these, as text.
function observer.changes(before)
  local after, changes = observer.shared(), {}
  for path, value in next, before do
    if not rawequal(value, after[path]) then
      changes[#changes + 1] = path
    end
  end
  for path in next, after do
    if before[path] == nil then
      changes[#changes + 1] = path
    end
  end
  return table.concat(changes, ", ")
end

return observer
"""


class Box:
    """One Lua state, one box."""

    def __init__(
        self, allow: Sequence[str] = ALL, *, max_string: int = MAX_STRING, memory: int = 32 * 1024 * 1024
    ) -> None:
        """Load the sandbox and make a box with an allow-list, in a state with so many bytes."""
        self.lua = lua54.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            attribute_handlers=(_deny, _deny),
            max_memory=memory,
        )
        sources = [
            part for path in sorted(LUA.glob("*.lua")) for part in (path.stem.encode(), path.read_bytes())
        ]
        self.parts = self.lua.execute(LOADER.encode(), *sources)
        listed = self.lua.table_from([name.encode() for name in allow])
        self.observer: Any = self.lua.execute(OBSERVER.encode(), self.parts, max_string, listed)
        self._shared = self.of("shared")()

    def of(self, name: str) -> Any:
        """Give a function of the observer."""
        return self.observer[name.encode()]

    def trusted(self, text: str, *values: object) -> Any:
        """Run trusted code, with ``...`` the observer and values."""
        return self.lua.execute(text.encode(), self.observer, *values)

    def run(self, script: str) -> tuple[bool, str]:
        """Run a script in a fresh environment; give whether it ended well, and its value or error as text."""
        ok, text = self.of("run")(script.encode())
        return bool(ok), text.decode(errors="backslashreplace")

    def value(self, script: str) -> str:
        """Run a script that ends well; give its value as text."""
        ok, text = self.run(script)
        assert ok, text
        return text

    def error(self, script: str) -> str:
        """Run a script that ends with an error; give it as text."""
        ok, text = self.run(script)
        assert not ok, text
        return text

    def changes(self) -> str:
        """Tell what scripts have changed of what environments share: nothing, one hopes."""
        changes: bytes = self.of("changes")(self._shared)
        return changes.decode()


def _deny(*_: object) -> None:
    raise AttributeError("nothing of Python's has attributes for Lua")
