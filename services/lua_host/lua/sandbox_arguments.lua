-- How a wrapper refuses what it is given: in the words of Lua's own library, at the script's line.

local error, tonumber, type = error, tonumber, type
local math_tointeger, math_type = math.tointeger, math.type

local arguments = {}

local OUT_OF_MEMORY = "not enough memory"

-- Ends a wrapper: `return outcome(pcall(of_lua, ...))`. An error that Lua's functions raise has the line of their
-- caller; under pcall it has none, and gets that of the wrapper's caller. Only for functions that run no code of
-- the script's, since what a script raises is not to be touched.
function arguments.outcome(ok, first, ...)
  if ok then
    return first, ...
  end
  error(first, first == OUT_OF_MEMORY and 0 or 2)
end

-- These are called by the wrapper itself, and raise at its caller.

function arguments.misuse(number, name, wanted, value)
  local why = wanted .. " expected, got " .. type(value)
  error("bad argument #" .. number .. " to '" .. name .. "' (" .. why .. ")", 3)
end

-- The integer that Lua's functions would take the value for.
function arguments.integer(value, number, name)
  local whole = math_type(value) == "integer" and value or math_tointeger(tonumber(value))
  if whole == nil then
    local got = "number expected, got " .. type(value)
    local why = math_type(value) and "number has no integer representation" or got
    error("bad argument #" .. number .. " to '" .. name .. "' (" .. why .. ")", 3)
  end
  return whole
end

return arguments
