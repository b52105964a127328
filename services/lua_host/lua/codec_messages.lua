-- Messages: their fields to bytes and back, and what decoded ones look like from a script.
--
-- A kind is a type of messages:
--
--   name, file, proto       its full name, and what it is made from
--   is_entry                whether it is the key and value of a map
--   names                   of its fields, by rising number; beside it puts, tags, zeros: how to write each
--   readers, fields         by tag: how to read a field, and its name
--   known                   by name: true, or the name of the oneof that the field belongs to
--   defaults                Lua text of what a new message holds
--   required                names
--   children                by name: the fields that are messages, {kind, many}
--   demanding               whether there are required fields in it, at any depth
--   parse, read, new, put   made here from the above

local parts = ...
local errors, write, read = parts.codec_errors, parts.codec_write, parts.codec_read

local compile, error, ipairs, next, rawget, rawset, setmetatable, type =
  load, error, ipairs, next, rawget, rawset, setmetatable, type
local string_byte, table_concat = string.byte, table.concat
local at, fail, keys, no_field, not_a = errors.at, errors.fail, errors.keys, errors.no_field, errors.not_a
local is_plain = write.is_plain
local CUT_SHORT = errors.CUT_SHORT

local messages = {}

-- Reads fields up to `stop`, and tells whether there was one that is not known.
local function parser(kind, max_depth)
  local readers, short, fields, tag_at, past = kind.readers, {}, kind.fields, read.tag, read.past
  for tag, read_one in next, readers do
    short[tag] = tag < 0x80 and read_one or nil
  end
  return function(message, data, pos, stop, depth)
    local strange = false
    while pos <= stop do
      local tag, byte = string_byte(data, pos, pos + 1)
      local read_one = byte and short[tag]
      if read_one then
        pos = read_one(message, fields[tag], data, pos + 1, stop, depth, byte)
      else
        tag, pos = tag_at(data, pos, stop, depth)
        read_one = readers[tag]
        if read_one then
          byte = string_byte(data, pos) or fail(depth, fields[tag], nil, CUT_SHORT)
          pos = read_one(message, fields[tag], data, pos, stop, depth, byte)
        else
          pos, strange = past(data, pos, stop, depth, tag, max_depth - depth), true
        end
      end
    end
    if pos > stop + 1 then
      fail(depth, nil, nil, CUT_SHORT)
    end
    return strange
  end
end

-- Raises if two members of a oneof are there.
local function check_oneofs(kind, message, depth)
  local first = {}
  for _, name in ipairs(kind.names) do
    local oneof = kind.known[name]
    if oneof ~= true and rawget(message, name) ~= nil then
      if first[oneof] then
        local both = first[oneof] .. " and " .. name
        fail(depth, nil, nil, both .. " are both there, and of " .. oneof .. " there may be one")
      end
      first[oneof] = name
    end
  end
end

local function check_required(kind, message, depth)
  for _, name in ipairs(kind.required) do
    if rawget(message, name) == nil then
      fail(depth, name, nil, "is required, and not there")
    end
  end
end

-- Puts the fields in the order of their numbers, and gives the number of the last piece.
local function writer(kind)
  local known, names, puts, tags, zeros = kind.known, kind.names, kind.puts, kind.tags, kind.zeros
  local count, demands = #names, #kind.required > 0
  return function(message, out, n, depth)
    local left, members = 0, 0
    for key in next, message do
      local role = known[key]
      if role ~= true then
        members = members + (role and 1 or fail(depth, nil, nil, no_field(kind, key)))
      end
      left = left + 1
    end
    if members > 1 then
      check_oneofs(kind, message, depth)
    end
    if demands then
      check_required(kind, message, depth)
    end
    for index = 1, left > 0 and count or 0 do
      local value = rawget(message, names[index])
      if value ~= nil then
        local last, why = puts[index](out, n, tags[index], value, depth)
        if last == nil then
          fail(depth, names[index], nil, why)
        end
        -- A field without presence is not sent when it has its default value.
        n = out[last] == zeros[index] and n or last
        left = left - 1
        if left == 0 then
          break
        end
      end
    end
    return n
  end
end

-- Raises if a required field is missing anywhere. Only at the end, since parts of a message may come in any
-- order.
local function check_whole(kind, message, depth)
  check_required(kind, message, depth)
  for name, child in next, kind.children do
    local value = child.kind.demanding and rawget(message, name)
    local inner = value and child.kind.is_entry and child.kind.children.value.kind or child.kind
    at[depth], keys[depth] = name, nil
    if value and child.many then
      for key, element in next, value do
        keys[depth] = key
        check_whole(inner, element, depth + 1)
      end
    elseif value then
      check_whole(inner, value, depth + 1)
    end
  end
end

-- A field that is not there reads as nil, and a name that is no field is an error.
local function metatable(kind)
  local known = kind.known
  return {
    __metatable = false,
    __name = kind.name,
    __index = function(_, key)
      return not known[key] and error(no_field(kind, key), 2) or nil
    end,
    __newindex = function(message, key, value)
      rawset(message, known[key] and key or error(no_field(kind, key), 2), value)
    end,
  }
end

-- Makes the functions of a kind whose fields are all there.
function messages.finish(kind, max_depth)
  local parse, meta = parser(kind, max_depth), metatable(kind)
  -- Compiled, so that a new table has the right size at once.
  local new = compile("return {" .. table_concat(kind.defaults, ", ") .. "}", "=mesh/new", "t", {})
  kind.parse, kind.new, kind.put = parse, new, writer(kind)
  function kind.read(message, data, first, last, depth)
    local into = message or new()
    parse(into, data, first, last, depth)
    return message or setmetatable(into, meta)
  end
end

local SPARE_BYTES = 4096
-- A list for pieces, kept from one small message to the next: it need not grow each time. Nobody's while in
-- use.
local spare = nil

-- Gives a kind as it is used from outside.
function messages.public(kind)
  local message = {name = kind.name}
  function message.encode(value)
    at[0] = kind.name
    if not is_plain(value) then
      fail(1, nil, nil, not_a("a table", value))
    end
    local out = spare or {}
    spare = nil
    local bytes = table_concat(out, "", 1, kind.put(value, out, 0, 1))
    spare = #bytes <= SPARE_BYTES and out or nil
    return bytes
  end
  function message.decode(bytes)
    at[0] = kind.name
    if type(bytes) ~= "string" then
      fail(1, nil, nil, not_a("a string of bytes", bytes))
    end
    local value = kind.read(nil, bytes, 1, #bytes, 1)
    if kind.demanding then
      check_whole(kind, value, 1)
    end
    return value
  end
  return message
end

return messages
