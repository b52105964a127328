-- Reads what string.dump gives for Lua 5.4, debug information included, into tables.
--
--   function = {code, lines = by instruction, count of them; constants = strings (false: something else);
--               upvalues = {in_stack, index}; functions; locals = {first, last instruction after}, variables = their
--               count, in the order of registers of those that live at once}, all lists from 0
--
-- The format is that of ldump.c of 5.4.0 to 5.4.8: only ever Lua's own dump of a text, made in the same process.

local error, string_byte, string_sub, string_unpack = error, string.byte, string.sub, string.unpack

local HEADER = "\27Lua\x54\0\x19\x93\r\n\x1a\n\4\8\8"
-- The integer 0x5678 and the float 370.5, which tell the order of bytes.
local CHECKED = "=i8 d"
local NUMBER_TAGS = {[3] = 8, [19] = 8}
local SHORT, LONG = 4, 20
-- In place of a difference of lines: the line stands in a list of its own.
local ABSOLUTE = -128

-- A size: 7 bits a byte, the highest first; the last byte has the eighth bit set.
local function size_at(data, at)
  local value = 0
  while true do
    local byte = string_byte(data, at)
    at = at + 1
    value = value << 7 | byte & 0x7f
    if byte >= 0x80 then
      return value, at
    end
  end
end

local function text_at(data, at)
  local size, start = size_at(data, at)
  if size == 0 then
    return false, start
  end
  return string_sub(data, start, start + size - 2), start + size - 1
end

-- Gives a list from 0 of what `read` reads as often as a count at `at` says, and the place after it.
local function list_at(data, at, read)
  local count, items = nil, {}
  count, at = size_at(data, at)
  for index = 0, count - 1 do
    items[index], at = read(data, at)
  end
  return items, at, count
end

local function instruction_at(data, at)
  return string_unpack("=I4", data, at)
end

local function constant_at(data, at)
  local tag = string_byte(data, at)
  if tag == SHORT or tag == LONG then
    return text_at(data, at + 1)
  end
  return false, at + 1 + (NUMBER_TAGS[tag] or 0)
end

local function upvalue_at(data, at)
  local in_stack, index = string_byte(data, at, at + 1)
  return {in_stack = in_stack == 1, index = index}, at + 3
end

-- The line of an instruction that has one of its own. They come in the order of the instructions.
local function absolute_at(data, at)
  local _, place = size_at(data, at)
  return size_at(data, place)
end

local function local_at(data, at)
  local first, last, _
  _, at = text_at(data, at)
  first, at = size_at(data, at)
  last, at = size_at(data, at)
  return {first = first, last = last}, at
end

local function lines_at(data, at, line)
  local count, first, absolutes, lines, seen = nil, nil, nil, {}, 0
  count, first = size_at(data, at)
  absolutes, at = list_at(data, first + count, absolute_at)
  for index = 0, count - 1 do
    local difference = string_unpack("b", data, first + index)
    if difference == ABSOLUTE then
      line = absolutes[seen]
      seen = seen + 1
    else
      line = line + difference
    end
    lines[index] = line
  end
  return lines, at
end

local function function_at(data, at)
  local read, defined, count, _ = {}, nil, nil, nil
  _, at = text_at(data, at)
  defined, at = size_at(data, at)
  _, at = size_at(data, at)
  -- Parameters, whether there are more, size of the stack.
  at = at + 3
  read.code, at, count = list_at(data, at, instruction_at)
  read.count = count
  read.constants, at = list_at(data, at, constant_at)
  read.upvalues, at = list_at(data, at, upvalue_at)
  read.functions, at = list_at(data, at, function_at)
  read.lines, at = lines_at(data, at, defined)
  read.locals, at, read.variables = list_at(data, at, local_at)
  _, at = list_at(data, at, text_at)
  return read, at
end

-- Takes what string.dump gave, gives the function of a whole script.
return function(data)
  local integer, number = string_unpack(CHECKED, data, #HEADER + 1)
  if string_sub(data, 1, #HEADER) ~= HEADER or integer ~= 0x5678 or number ~= 370.5 then
    error("this Lua's bytecode is not that of 5.4", 0)
  end
  -- After it, the number of the script's upvalues.
  return (function_at(data, #HEADER + 16 + 2))
end
