-- Bytes to values.
--
--   read(into, name, data, pos, stop, depth, byte)   puts the value at `pos`, whose first byte is `byte`,
--                                                    into into[name], and gives the position after it
--
-- `stop` is the position of the last byte of the message, and `depth` its level. A read may go over `stop`,
-- never out of `data`: whoever has set the stop finds the position behind it, and fails. What was there
-- before is replaced or merged, as protobuf does. `name` is an index where the value goes into a list.
--
-- Everything is as Python's protobuf (upb) reads it, to the corners: varints of up to 10 bytes whose highest
-- bits may be lost, lengths and tags of up to 5, groups that count as levels, entries of maps dropped for an
-- unknown field.

local parts = ...
local uint64, errors = parts.codec_uint64, parts.codec_errors

local string_byte, string_sub, string_unpack = string.byte, string.sub, string.unpack
local utf8_len = utf8.len
local at, fail, keys, too_deep = errors.at, errors.fail, errors.keys, errors.too_deep
local CUT_SHORT = errors.CUT_SHORT

local read = {}

-- Gives the number and the position after it.
local function varint_at(data, pos, byte, depth, name)
  local value, shift = byte & 0x7f, 0
  while byte >= 0x80 do
    pos, shift = pos + 1, shift + 7
    byte = string_byte(data, pos) or fail(depth, name, nil, CUT_SHORT)
    if shift > 63 then
      fail(depth, name, nil, "a varint has more than 10 bytes")
    end
    value = value | (byte & 0x7f) << shift
  end
  return value, pos + 1
end

-- Gives the first and the last position of what has its length before it.
local function span(data, pos, stop, depth, name, byte)
  local size, first = byte, pos + 1
  if byte >= 0x80 then
    size, first = varint_at(data, pos, byte, depth, name)
    if first - pos > 5 then
      fail(depth, name, nil, "a length has more than 5 bytes")
    end
  end
  if size > stop - first + 1 then
    fail(depth, name, nil, CUT_SHORT)
  end
  return first, first + size - 1
end

-- Fields that are not known ---------------------------------------------------------------------------------

-- Gives the number of a field with its wire type in the lowest three bits, and the position after it.
function read.tag(data, pos, stop, depth)
  local byte = pos <= stop and string_byte(data, pos) or fail(depth, nil, nil, CUT_SHORT)
  local tag, after = varint_at(data, pos, byte, depth)
  if after - pos > 5 or tag < 8 or tag >= 1 << 32 then
    fail(depth, nil, nil, "a field has a number that is not from 1 to 536870911")
  end
  return tag, after
end

-- Gives the position after a field. `room`: how many more levels there may be.
function read.past(data, pos, stop, depth, tag, room)
  local wire = tag & 7
  if wire == 1 then
    return pos + 8
  elseif wire == 5 then
    return pos + 4
  elseif wire == 3 then
    return read.past_group(data, pos, stop, depth, tag, room)
  elseif wire ~= 0 and wire ~= 2 then
    fail(depth, nil, nil, wire == 4 and "a group ends that has not begun" or "there is no wire type " .. wire)
  end
  local byte = string_byte(data, pos) or fail(depth, nil, nil, CUT_SHORT)
  if wire == 0 then
    local _, after = varint_at(data, pos, byte, depth)
    return after
  end
  local _, last = span(data, pos, stop, depth, nil, byte)
  return last + 1
end

function read.past_group(data, pos, stop, depth, tag, room)
  if room < 1 then
    fail(depth, nil, nil, "unknown groups are nested too deep")
  end
  while true do
    local inner
    inner, pos = read.tag(data, pos, stop, depth)
    if inner == tag + 1 then
      return pos
    end
    pos = read.past(data, pos, stop, depth, inner, room - 1)
  end
end

-- Scalars ---------------------------------------------------------------------------------------------------

-- `small`: what varints of one byte stand for; `meant` gives what others do: nil is nothing to be kept.
function read.varint(small, meant)
  return function(into, name, data, pos, _, depth, byte)
    local value = small[byte]
    if value == nil then
      value, pos = varint_at(data, pos, byte, depth, name)
      value = meant(value)
      if value ~= nil then
        into[name] = value
      end
      return pos
    end
    into[name] = value
    return pos + 1
  end
end

function read.fixed(format, size, meant)
  return function(into, name, data, pos, stop, depth)
    if pos + size > stop + 1 then
      fail(depth, name, nil, CUT_SHORT)
    end
    local value = string_unpack(format, data, pos)
    into[name] = meant and meant(value) or value
    return pos + size
  end
end

function read.bytes(into, name, data, pos, stop, depth, byte)
  local first, last = span(data, pos, stop, depth, name, byte)
  into[name] = string_sub(data, first, last)
  return last + 1
end

function read.string(into, name, data, pos, stop, depth, byte)
  local first, last = span(data, pos, stop, depth, name, byte)
  local text = string_sub(data, first, last)
  local valid, place = utf8_len(text)
  if not valid then
    fail(depth, name, nil, errors.not_utf8(place))
  end
  into[name] = text
  return last + 1
end

-- What integers stand for -----------------------------------------------------------------------------------

function read.int64(value)
  return value
end

function read.int32(value)
  value = value & 0xffffffff
  return value < 1 << 31 and value or value - (1 << 32)
end

function read.uint32(value)
  return value & 0xffffffff
end

read.uint64 = uint64.of_bits

function read.sint64(value)
  return value >> 1 ~ -(value & 1)
end

function read.sint32(value)
  return read.sint64(value & 0xffffffff)
end

function read.bool(value)
  return value ~= 0
end

function read.enum(enum)
  local names, closed = enum.names, enum.closed
  return function(value)
    local number = read.int32(value)
    return names[number] or not closed and number or nil
  end
end

-- Tables ----------------------------------------------------------------------------------------------------

function read.message(kind, field, max_depth)
  return function(into, name, data, pos, stop, depth, byte)
    local first, last = span(data, pos, stop, depth, name, byte)
    if depth >= max_depth then
      fail(depth, name, nil, too_deep(max_depth))
    end
    at[depth], keys[depth] = field, name ~= field and name or nil
    into[name] = kind.read(into[name], data, first, last, depth + 1)
    return last + 1
  end
end

function read.list(read_one)
  return function(into, name, data, pos, stop, depth, byte)
    local list = into[name]
    at[depth] = name
    return read_one(list, #list + 1, data, pos, stop, depth, byte)
  end
end

function read.packed(read_one)
  return function(into, name, data, pos, stop, depth, byte)
    local list, first, last = into[name], span(data, pos, stop, depth, name, byte)
    local index = #list + 1
    at[depth] = name
    while first <= last do
      first = read_one(list, index, data, first, last, depth, string_byte(data, first))
      index = list[index] == nil and index or index + 1
    end
    return first == last + 1 and first or fail(depth, name, nil, CUT_SHORT)
  end
end

-- A member of a oneof takes the place of the others.
function read.member(read_one, others)
  return function(into, name, data, pos, stop, depth, byte)
    local after = read_one(into, name, data, pos, stop, depth, byte)
    if into[name] ~= nil then
      for index = 1, #others do
        into[others[index]] = nil
      end
    end
    return after
  end
end

-- The value of an entry: `strange` is set where one was dropped.
function read.entry_value(read_one)
  return function(into, name, data, pos, stop, depth, byte)
    local before = into[name]
    into[name] = nil
    local after = read_one(into, name, data, pos, stop, depth, byte)
    if into[name] == nil then
      into[name], into.strange = before, true
    end
    return after
  end
end

function read.map(entry, max_depth)
  return function(into, name, data, pos, stop, depth, byte)
    local first, last = span(data, pos, stop, depth, name, byte)
    if depth >= max_depth then
      fail(depth, name, nil, too_deep(max_depth))
    end
    at[depth], keys[depth] = name, nil
    local found = entry.new()
    local strange = entry.parse(found, data, first, last, depth + 1) or found.strange
    if not strange then
      local value = found.value
      if value == nil then
        value = entry.children.value.kind.read(nil, "", 1, 0, depth + 2)
      end
      into[name][found.key] = value
    end
    return last + 1
  end
end

return read
