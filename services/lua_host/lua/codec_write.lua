-- Values to bytes.
--
--   put(out, n, tag, value, depth)   adds pieces to the list `out` after the n-th, and gives the number of
--                                    the last; or nil, and what is wrong with the value
--
-- The last piece of a scalar is its content. `depth` is the level of the message that the field belongs to.
-- Tables are read raw, and found by what is in them: what their metatables say counts for nothing.

local parts = ...
local uint64, errors = parts.codec_uint64, parts.codec_errors

local next, rawget, type = next, rawget, type
local math_huge, math_type = math.huge, math.type
local string_char, string_format = string.char, string.format
local string_pack, string_unpack = string.pack, string.unpack
local table_concat, utf8_len = table.concat, utf8.len
local bits_of = uint64.bits_of
local at, fail, instead, keys, not_a, shown, too_deep =
  errors.at, errors.fail, errors.instead, errors.keys, errors.not_a, errors.shown, errors.too_deep

local write = {}

-- Varints of one byte, by what they stand for.
local SMALL, SMALL_ZIGZAG, NONE = {}, {}, {}
for byte = 0, 127 do
  SMALL[byte] = string_char(byte)
  SMALL_ZIGZAG[byte >> 1 ~ -(byte & 1)] = SMALL[byte]
end

local function varint(value)
  local first, second = value & 0x7f | 0x80, value >> 7 & 0x7f | 0x80
  if value >= 0 and value < 1 << 14 then
    return SMALL[value] or string_char(first, value >> 7)
  elseif value >= 0 and value < 1 << 21 then
    return string_char(first, second, value >> 14)
  end
  return string_char(first, second, value >> 14 & 0x7f | 0x80) .. varint(value >> 21)
end
write.varint = varint

local function zigzag(value)
  return varint(value << 1 ~ -(value >> 63))
end

local function packing(format)
  return function(value)
    return string_pack(format, value)
  end
end

-- Scalars ---------------------------------------------------------------------------------------------------

local function integer_put(low, high, small, bytes)
  return function(out, n, tag, value)
    if math_type(value) ~= "integer" then
      return nil, not_a("an integer", value)
    elseif value < low or value > high then
      return nil, string_format("has to be an integer from %d to %d, not %d", low, high, value)
    end
    out[n + 1], out[n + 2] = tag, small[value] or bytes(value)
    return n + 2
  end
end

function write.varint_of(low, high)
  return integer_put(low, high, SMALL, varint)
end

function write.zigzag_of(low, high)
  return integer_put(low, high, SMALL_ZIGZAG, zigzag)
end

function write.fixed_of(low, high, format)
  return integer_put(low, high, NONE, packing(format))
end

local function unsigned64_put(small, bytes)
  return function(out, n, tag, value)
    local bits = bits_of[value] or value
    if math_type(bits) ~= "integer" then
      return nil, not_a("an integer or a uint64 value", value)
    elseif bits < 0 and bits == value then
      return nil, string_format("has to be an integer from 0 to %s, not %d", uint64.MAX, value)
    end
    out[n + 1], out[n + 2] = tag, small[bits] or bytes(bits)
    return n + 2
  end
end

write.uint64 = unsigned64_put(SMALL, varint)
write.fixed64 = unsigned64_put(NONE, packing("<i8"))

-- `limit`: the least number that rounds to infinity.
local function float_put(format, limit)
  return function(out, n, tag, value)
    local kind = math_type(value)
    if kind == nil then
      return nil, not_a("a number", value)
    elseif (value >= limit or value <= -limit) and value ~= math_huge and value ~= -math_huge then
      return nil, string_format("has to fit into a float of 32 bits, and %g does not", value)
    end
    local bytes = string_pack(format, value)
    if kind == "integer" and string_unpack(format, bytes) ~= value then
      local wrong = "has to be exact as a float, and %d is not: round it, or make it a float"
      return nil, string_format(wrong, value)
    end
    out[n + 1], out[n + 2] = tag, bytes
    return n + 2
  end
end

write.double = float_put("<d", math_huge)
write.float = float_put("<f", 0x1.ffffffp127)

local BOOLS = {[false] = "\0", [true] = "\1"}

function write.bool(out, n, tag, value)
  local bytes = BOOLS[value]
  if bytes == nil then
    return nil, not_a("a boolean", value)
  end
  out[n + 1], out[n + 2] = tag, bytes
  return n + 2
end

function write.bytes(out, n, tag, value)
  if type(value) ~= "string" then
    return nil, not_a("a string", value)
  end
  out[n + 1], out[n + 2], out[n + 3] = tag, SMALL[#value] or varint(#value), value
  return n + 3
end

function write.string(out, n, tag, value)
  if type(value) ~= "string" then
    return nil, not_a("a string", value)
  end
  local valid, place = utf8_len(value)
  if not valid then
    return nil, errors.not_utf8(place)
  end
  out[n + 1], out[n + 2], out[n + 3] = tag, SMALL[#value] or varint(#value), value
  return n + 3
end

-- `enum`: a list of names, with `names` by number, `numbers` by name, `closed`.
function write.enum(enum)
  local encoded, put_number = {}, write.varint_of(-1 << 31, (1 << 31) - 1)
  for name, number in next, enum.numbers do
    encoded[name] = varint(number)
  end
  return function(out, n, tag, value)
    local bytes, kind = encoded[value], math_type(value)
    if bytes then
      out[n + 1], out[n + 2] = tag, bytes
      return n + 2
    elseif kind ~= "integer" and type(value) ~= "string" then
      return nil, not_a("a name of " .. enum.name, value)
    elseif kind == nil or enum.closed and not enum.names[value] then
      return nil, "no value " .. shown(value) .. " in " .. enum.name .. instead(value, enum)
    end
    return put_number(out, n, tag, value)
  end
end

-- Tables ----------------------------------------------------------------------------------------------------

-- May it be looked into? uint64 values are tables too.
local function is_plain(value)
  return type(value) == "table" and bits_of[value] == nil
end
write.is_plain = is_plain

-- Makes one piece of those from `first` to `last`, puts its length before it, and gives its number.
local function close(out, first, last)
  local bytes = table_concat(out, "", first, last)
  out[first - 1], out[first] = SMALL[#bytes] or varint(#bytes), bytes
  return first
end

-- `field`: nil where the caller writes down where the message is.
function write.message(kind, field, max_depth)
  return function(out, n, tag, value, depth)
    if not is_plain(value) then
      return nil, not_a("a table", value)
    elseif depth >= max_depth then
      return nil, too_deep(max_depth)
    end
    if field then
      at[depth], keys[depth] = field, nil
    end
    out[n + 1], out[n + 2] = tag, ""
    return close(out, n + 3, kind.put(value, out, n + 2, depth + 1))
  end
end

-- Gives the length of a table with the keys 1 to n and no others, or nil and what is wrong.
local function length(list)
  if not is_plain(list) then
    return nil, not_a("a list", list)
  end
  local count, in_order = 0, true
  for key in next, list do
    count = count + 1
    in_order = in_order and key == count
  end
  for index = 1, in_order and 0 or count do
    if rawget(list, index) == nil then
      local wrong = "has to be a list from 1 on, but of its %d elements none is at %d"
      return nil, string_format(wrong, count, index)
    end
  end
  return count
end

function write.list(put, field)
  return function(out, n, tag, list, depth)
    local count, wrong = length(list)
    if count == nil then
      return nil, wrong
    end
    at[depth] = field
    for index = 1, count do
      keys[depth] = index
      local last, why = put(out, n, tag, list[index], depth)
      n = last or fail(depth, field, index, why)
    end
    return n
  end
end

function write.packed(put, field)
  local put_list = write.list(put, field)
  return function(out, n, tag, list, depth)
    out[n + 1], out[n + 2] = tag, ""
    local last, why = put_list(out, n + 2, "", list, depth)
    if last == nil then
      return nil, why
    end
    return last == n + 2 and n or close(out, n + 3, last)
  end
end

function write.map(entry, field, max_depth)
  return function(out, n, tag, map, depth)
    if not is_plain(map) then
      return nil, not_a("a table", map)
    elseif depth >= max_depth and next(map) ~= nil then
      return nil, too_deep(max_depth)
    end
    local put_key, put_value, key_tag, value_tag = entry.puts[1], entry.puts[2], entry.tags[1], entry.tags[2]
    at[depth], at[depth + 1] = field, false
    for key, value in next, map do
      keys[depth] = key
      out[n + 1], out[n + 2] = tag, ""
      local last, why = put_key(out, n + 2, key_tag, key, depth + 1)
      last = last or fail(depth, field, key, "the key " .. why)
      last, why = put_value(out, last, value_tag, value, depth + 1)
      n = close(out, n + 3, last or fail(depth, field, key, why))
    end
    keys[depth] = nil
    return n
  end
end

return write
