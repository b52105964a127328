-- Metatables that hide nothing and change nothing: copies of a script's, and proxies before what is shared.
--
-- * The metatable that Lua looks at is never one that a script holds, but a copy of the events listed here, made
--   when it is set. So `__gc` and `__close` have no way in, at first or later.
-- * Whoever asks for a metatable gets the script's own table, its `__metatable`, or false. Never a copy.
-- * A table with any other metatable is the host's. Neither rawset nor setmetatable touches it.

local parts = ...
local misuse = parts.sandbox_arguments.misuse

local error, getmetatable, load, next, rawequal, rawget, rawset, select, setmetatable, tostring, type =
  error, getmetatable, load, next, rawequal, rawget, rawset, select, setmetatable, tostring, type
local debug_getmetatable, debug_setmetatable = debug.getmetatable, debug.setmetatable
local string_gsub, table_concat = string.gsub, table.concat

local metatables = {}

local EVENTS = {
  "__index", "__newindex", "__call", "__eq", "__lt", "__le", "__len", "__concat", "__tostring", "__name",
  "__pairs", "__mode", "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm", "__idiv", "__band", "__bor",
  "__bxor", "__bnot", "__shl", "__shr",
}
-- Keys of the copies. OPEN: true where a script may set another metatable, false where `__metatable` forbids it.
-- SHIELD: the `__metatable` of the script's. PLAIN: whether no event but the first two is a table.
local OPEN, SHIELD, PLAIN = {}, {}, {}
-- The copy of each metatable of the script's: one for all tables that have it, brought up to date for all of them
-- whenever it is set again.
local copies = setmetatable({}, {__mode = "k"})

-- A function that tells whether all events are the same. Written out, since scripts make objects often.
local function comparison(reading)
  local terms = string_gsub(table_concat(EVENTS, " and "), "__%a+", reading .. " == copy.%0")
  local text = "local rawget = ... return function(given, copy) return " .. terms .. " end"
  return load(text, "=mesh/sandbox_metatables.lua", "t", {})(rawget)
end
local same, same_raw = comparison("given.%0"), comparison('rawget(given, "%0")')

-- Runs nothing of the script's: == asks it only about two tables that differ, and an index only a metatable's.
local function is_same(given, copy)
  if not (copy[PLAIN] and rawequal(rawget(given, "__metatable"), copy[SHIELD])
      and rawequal(rawget(given, "__index"), copy.__index)
      and rawequal(rawget(given, "__newindex"), copy.__newindex)) then
    return false
  end
  return (debug_getmetatable(given) and same_raw or same)(given, copy)
end

-- Memory may run out at any step: until the last one the copy does not pass for the same.
local function bring_up_to_date(copy, given)
  local plain = true
  copy[PLAIN] = false
  for at = 1, #EVENTS do
    local event = EVENTS[at]
    local value = rawget(given, event)
    copy[event] = value
    plain = plain and (at <= 2 or type(value) ~= "table")
  end
  local shield = rawget(given, "__metatable")
  copy[SHIELD], copy[OPEN] = shield, shield == nil
  -- What getmetatable gives.
  if shield == nil then
    shield = given
  end
  copy.__metatable = shield
  copy[PLAIN] = plain
end

local function copy_of(given)
  local copy = copies[given]
  if copy == nil then
    copy = {}
    bring_up_to_date(copy, given)
    copies[given] = copy
  elseif not is_same(given, copy) then
    bring_up_to_date(copy, given)
  end
  return copy
end

function metatables.setmetatable(target, given)
  if type(target) ~= "table" then
    misuse(1, "setmetatable", "table", target)
  elseif given ~= nil and type(given) ~= "table" then
    misuse(2, "setmetatable", "nil or table", given)
  end
  local current = debug_getmetatable(target)
  if current and not rawget(current, OPEN) then
    error("cannot change a protected metatable", 2)
  elseif given == nil then
    return debug_setmetatable(target, nil)
  elseif rawget(given, "__gc") ~= nil or rawget(given, "__close") ~= nil then
    error("a metatable may not have __gc or __close here", 2)
  end
  return debug_setmetatable(target, copy_of(given))
end

function metatables.rawset(target, key, value)
  if type(target) ~= "table" then
    misuse(1, "rawset", "table", target)
  end
  local current = debug_getmetatable(target)
  if current and rawget(current, OPEN) == nil then
    error("rawset cannot change a table of the host's", 2)
  end
  return rawset(target, key, value)
end

-- As tostring, without addresses: they are a map for whoever breaks the interpreter. Raises at its caller's caller.
local function text_of(value)
  local kind = type(value)
  if kind == "function" or kind == "thread" or kind == "userdata" then
    return kind
  elseif kind ~= "table" then
    return tostring(value)
  end
  local current = debug_getmetatable(value)
  local told = current and rawget(current, "__tostring")
  if told then
    local said = told(value)
    if type(said) ~= "string" and type(said) ~= "number" then
      error("'__tostring' must return a string", 3)
    end
    return tostring(said)
  end
  local name = current and rawget(current, "__name")
  return type(name) == "string" and name or kind
end
metatables.text_of = text_of

function metatables.tostring(...)
  if select("#", ...) == 0 then
    error("bad argument #1 to 'tostring' (value expected)", 2)
  end
  local text = text_of((...))
  return text
end

local function refusal(name)
  return function(_, key)
    local what = type(key) == "string" and #key <= 64 and name .. "." .. key or "it"
    error(name .. " is frozen: " .. what .. " cannot be set", 2)
  end
end

-- A table that reads as `source` does at this moment and takes no writes. Tables in `source` have to be frozen.
function metatables.freeze(source, name)
  local backing = {}
  for key, value in next, source do
    if type(value) == "table" and getmetatable(value) ~= false then
      error(name .. "." .. tostring(key) .. " is a table that is not frozen", 2)
    end
    backing[key] = value
  end
  local function step(_, key)
    return next(backing, key)
  end
  return setmetatable({}, {
    __index = backing,
    __newindex = refusal(name),
    __metatable = false,
    __name = name,
    __pairs = function(frozen)
      return step, frozen, nil
    end,
  })
end

return metatables
