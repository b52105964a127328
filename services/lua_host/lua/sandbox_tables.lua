-- The functions of `table` that would loop in C for as long as a table says it is long, bounded.
--
-- A table says so by `__len`, or by well-chosen keys. Where there is a metatable the work is done here, in Lua, on
-- one length and one reading of each element, so nothing can change between check and use.

local parts = ...
local arguments = parts.sandbox_arguments

local error, select, tostring, type = error, select, tostring, type
local debug_getmetatable, math_maxinteger, math_type = debug.getmetatable, math.maxinteger, math.type
local table_concat, table_insert, table_move = table.concat, table.insert, table.move
local table_remove, table_sort = table.remove, table.sort
local integer, misuse = arguments.integer, arguments.misuse

-- Elements that are moved, sorted or joined at once.
local MAX_ELEMENTS = 1 << 24

-- These raise at the wrapper's caller.

local function length(list)
  local size = #list
  if math_type(size) ~= "integer" then
    error("object length is not an integer", 3)
  end
  return size
end

local function bound(first, last, what)
  -- As floats, since the difference of integers may wrap around.
  if last - (first + 0.0) >= MAX_ELEMENTS then
    error("table." .. what .. " would go over more than " .. MAX_ELEMENTS .. " elements", 3)
  end
end

local function out_of_bounds(name)
  error("bad argument #2 to '" .. name .. "' (position out of bounds)", 3)
end

local tables = {}

function tables.insert(list, ...)
  if type(list) ~= "table" then
    misuse(1, "insert", "table", list)
  end
  local last, count = length(list) + 1, select("#", ...)
  if count == 1 then
    list[last] = ...
    return
  elseif count ~= 2 then
    error("wrong number of arguments to 'insert'", 2)
  end
  local position, value = ...
  position = integer(position, 2, "insert")
  if position < 1 or position > last then
    out_of_bounds("insert")
  end
  bound(position, last, "insert")
  if not debug_getmetatable(list) then
    return table_insert(list, position, value)
  end
  for at = last, position + 1, -1 do
    list[at] = list[at - 1]
  end
  list[position] = value
end

function tables.remove(list, position)
  if type(list) ~= "table" then
    misuse(1, "remove", "table", list)
  end
  local size = length(list)
  position = position == nil and size or integer(position, 2, "remove")
  if position ~= size and (position < 1 or position - 1 > size) then
    out_of_bounds("remove")
  end
  bound(position, size, "remove")
  if not debug_getmetatable(list) then
    return table_remove(list, position)
  end
  local removed = list[position]
  for at = position, size - 1 do
    list[at] = list[at + 1]
  end
  list[position < size and size or position] = nil
  return removed
end

function tables.move(from, first, last, to, into)
  if type(from) ~= "table" then
    misuse(1, "move", "table", from)
  elseif into ~= nil and type(into) ~= "table" then
    misuse(5, "move", "table", into)
  end
  first, last, to = integer(first, 2, "move"), integer(last, 3, "move"), integer(to, 4, "move")
  bound(first, last, "move")
  if last >= first and to > math_maxinteger - (last - first) then
    error("bad argument #4 to 'move' (destination wrap around)", 2)
  end
  return table_move(from, first, last, to, into or from)
end

function tables.sort(list, before)
  if type(list) ~= "table" then
    misuse(1, "sort", "table", list)
  elseif before ~= nil and type(before) ~= "function" then
    misuse(2, "sort", "function", before)
  end
  local size = length(list)
  bound(1, size, "sort")
  if not debug_getmetatable(list) then
    return table_sort(list, before)
  end
  local copy = {}
  for at = 1, size do
    copy[at] = list[at]
  end
  table_sort(copy, before)
  for at = 1, size do
    list[at] = copy[at]
  end
end

-- The most bytes that a value makes in a text; nil if it makes none.
local function bytes_of(value)
  return type(value) == "string" and #value or type(value) == "number" and #tostring(value) or nil
end

local function joining(max)
  return function(list, between, first, last)
    if type(list) ~= "table" then
      misuse(1, "concat", "table", list)
    end
    local gap = between == nil and 0 or bytes_of(between) or misuse(2, "concat", "string", between)
    first = first == nil and 1 or integer(first, 3, "concat")
    last = last == nil and length(list) or integer(last, 4, "concat")
    bound(first, last, "concat")
    local copy, count, total = debug_getmetatable(list) and {} or nil, 0, -gap
    for at = first, last do
      local value = list[at]
      local bytes = bytes_of(value)
      if not bytes then
        error("invalid value (at index " .. at .. ") in table for 'concat'", 2)
      end
      total = total + bytes + gap
      if total > max then
        error("table.concat would make more than " .. max .. " bytes", 2)
      end
      count = count + 1
      if copy then
        copy[count] = value
      end
    end
    if copy then
      return table_concat(copy, between, 1, count)
    end
    return table_concat(list, between, first, last)
  end
end

-- Gives what replaces functions of `table`. `max`: bytes that are made at once.
return function(max)
  return {
    concat = joining(max),
    insert = tables.insert, move = tables.move, remove = tables.remove, sort = tables.sort,
  }
end
