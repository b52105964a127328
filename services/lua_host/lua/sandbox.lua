-- What a script sees: a fresh environment for each run, and in it nothing that leads out or outlives the run.
--
-- What replaces functions of Lua's is in sandbox_metatables, sandbox_strings and sandbox_tables. Time, memory and the
-- process are the host's, messages the codec's, the table `mesh` main's. One box per Lua state: strings have one
-- metatable.
--
-- * No table that two runs share is within a script's reach: what they share stands behind `freeze`.
-- * A script's code never runs between a check and the use of what was checked. While it runs wrappers hold locals
--   only, so it may lie, raise, yield or never come back. What is kept is written last, whole.
-- * Text is all that is compiled. No function is given that would read or write bytecode.

local parts = ...
local arguments, metatables = parts.sandbox_arguments, parts.sandbox_metatables
local strings, tables = parts.sandbox_strings, parts.sandbox_tables

local error, ipairs, load, next, pairs, pcall, select, type = error, ipairs, load, next, pairs, pcall, select, type
local debug_getmetatable, debug_upvaluejoin = debug.getmetatable, debug.upvaluejoin
local math_randomseed = math.randomseed
local string_byte, string_find, string_gmatch, string_gsub = string.byte, string.find, string.gmatch, string.gsub
local string_match = string.match
local coroutine_create, coroutine_wrap = coroutine.create, coroutine.wrap
local misuse, outcome = arguments.misuse, arguments.outcome

local MAX_COROUTINES = 1000
-- First byte of bytecode.
local ESCAPE = 27

-- What is there always, what can be allowed, and what never is, by name -----------------------------------------

local CORE = "_VERSION assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select "
  .. "setmetatable tonumber tostring type xpcall"
local FUNCTIONS = "load"
local MODULES = {
  coroutine = "close create isyieldable resume running status wrap yield",
  math = "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf pi rad "
    .. "random sin sqrt tan tointeger type ult",
  string = "byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper",
  table = "concat insert move pack remove sort unpack",
  utf8 = "char charpattern codepoint codes len offset",
}
local NEVER = "_G collectgarbage debug dofile io loadfile math.randomseed os package print python require "
  .. "string.dump warn"

local function set(names)
  local members = {}
  for name in string_gmatch(names, "%S+") do
    members[name] = true
  end
  return members
end

-- `allowed` is for whoever tells of it: sets of names, `modules` by module.
local allowed = {core = set(CORE), functions = set(FUNCTIONS), modules = {}, never = set(NEVER)}
local of_lua = {}
for name in pairs(allowed.core) do
  of_lua[name] = _G[name]
end
for name, members in pairs(MODULES) do
  allowed.modules[name] = set(members)
  of_lua[name] = _G[name]
end

-- What an entry of the allow-list stands for: a module and one of its names, or one name alone.
local function resolved(entry)
  if allowed.core[entry] or allowed.functions[entry] or allowed.modules[entry] then
    return entry, nil
  end
  local module, name = string_match(entry, "^([^.]*)%.([^.]*)$")
  if module and allowed.modules[module] and allowed.modules[module][name] then
    return module, name
  elseif allowed.never[entry] or module and allowed.never[module] then
    error("allow: " .. entry .. " is never allowed", 0)
  end
  error("allow: there is no " .. entry .. " in Lua's library", 0)
end

local sandbox = {allowed = allowed, freeze = metatables.freeze}

-- What an allow-list grants beyond the core: sets of names, functions and by module. Raises on a name that cannot be.
function sandbox.granted(allow)
  local granted = {functions = {}, modules = {}}
  for _, entry in ipairs(allow) do
    local first, name = resolved(entry)
    if allowed.functions[first] then
      granted.functions[first] = true
    end
    for member in next, name and {[name] = true} or allowed.modules[first] or {} do
      granted.modules[first] = granted.modules[first] or {}
      granted.modules[first][member] = true
    end
  end
  return granted
end

-- The box ---------------------------------------------------------------------------------------------------------

local function coroutines(counted)
  local function bounded(name, make)
    return function(body)
      if type(body) ~= "function" then
        misuse(1, name, "function", body)
      elseif counted.coroutines >= MAX_COROUTINES then
        error("more than " .. MAX_COROUTINES .. " coroutines in one call", 2)
      end
      counted.coroutines = counted.coroutines + 1
      return make(body)
    end
  end
  return {create = bounded("create", coroutine_create), wrap = bounded("wrap", coroutine_wrap)}
end

-- Lua's load, for text in one piece. What it gives runs in `environment` unless another is given.
local function loader(environment)
  return function(text, name, mode, ...)
    if type(text) ~= "string" then
      error("load takes text in one string here, not a " .. type(text), 2)
    elseif mode ~= nil and type(mode) ~= "string" then
      misuse(3, "load", "string", mode)
    elseif string_byte(text) == ESCAPE then
      return nil, "load takes text, not bytecode"
    elseif mode and not string_find(mode, "t", 1, true) then
      return nil, "attempt to load a text chunk (mode is '" .. mode .. "')"
    end
    local chosen = environment
    if select("#", ...) > 0 then
      chosen = ...
    end
    return outcome(pcall(load, text, name, "t", chosen))
  end
end

-- A variable of its own, to be shared by upvaluejoin.
local function variable(value)
  return function()
    return value
  end
end

-- Takes `=name` and text. Gives a function that runs it in an environment, as often as wanted; or nil and why not.
local function compile(text, name)
  if string_byte(text) == ESCAPE then
    return nil, string_gsub(name, "^=", "") .. ": a script has to be text, not bytecode"
  end
  local chunk, wrong = load(text, name, "t", {})
  if not chunk then
    return nil, wrong
  end
  -- The only upvalue of a chunk is its environment. It gets a new variable for each run, so what an earlier run left
  -- behind keeps the old one; and neither is text compiled again nor bytecode loaded.
  return function(environment)
    debug_upvaluejoin(chunk, 1, variable(environment), 1)
    return chunk()
  end
end

-- The functions of the modules: ours, where there is one, or Lua's.
local function libraries(modules, ours)
  local filled = {}
  for module, members in next, modules do
    filled[module] = {}
    for name in next, members do
      filled[module][name] = ours[module] and ours[module][name] or of_lua[module][name]
    end
  end
  return filled
end

-- What is the same in all environments.
local function shared(filled, globals)
  local names = {}
  for name in next, allowed.core do
    names[name] = metatables[name] or of_lua[name]
  end
  for name, members in next, filled do
    names[name] = metatables.freeze(members, name)
  end
  for name, value in next, globals do
    names[name] = value
  end
  return names
end

-- Methods of strings are what `string` is allowed to be; arithmetic stays as it is.
local function give_methods(members)
  local methods = {}
  for name, member in next, members do
    methods[name] = member
  end
  local strings_meta = debug_getmetatable("")
  strings_meta.__index, strings_meta.__metatable = methods, false
end

-- Takes {allow = names, max_string = bytes, globals = frozen tables and functions by name}; raises on a name that
-- cannot be allowed.
function sandbox.new(options)
  local max, counted = options.max_string, {coroutines = 0}
  local ours = {coroutine = coroutines(counted), string = strings(max), table = tables(max)}
  local granted = sandbox.granted(options.allow)
  local filled, loads = libraries(granted.modules, ours), granted.functions.load
  -- For its check: what is in there is shared, too.
  metatables.freeze(options.globals, "globals")
  local names = shared(filled, options.globals)
  give_methods(filled.string or {})

  local box = {load = compile}

  function box.environment()
    local environment = {}
    for name, value in next, names do
      environment[name] = value
    end
    if loads then
      environment.load = loader(environment)
    end
    return environment
  end

  -- Before each run: what is counted is counted per run. `seed` is for math.random: the numbers of one run would tell
  -- the next what it did, and Lua's own seed is an address that they give away.
  function box.reset(seed)
    counted.coroutines = 0
    math_randomseed(seed or 0)
  end

  box.reset()
  return box
end

return sandbox
