-- The fields of a kind, from their descriptors: how each is read and written, by its type and its label.

local parts = ...
local errors, write, read = parts.codec_errors, parts.codec_write, parts.codec_read

local ipairs, string_format, string_match, string_pack = ipairs, string.format, string.match, string.pack
local refuse, shown = errors.refuse, errors.shown

local fields = {}

-- Types of values -------------------------------------------------------------------------------------------

local MIN32, MAX32, MAX_UINT32 = -1 << 31, (1 << 31) - 1, (1 << 32) - 1
local MIN64, MAX64 = math.mininteger, math.maxinteger
local GROUP, MESSAGE, ENUM = 10, 11, 14
local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
local BYTE_MEANS = {}
for _, meaning in ipairs {"int64", "sint64", "bool"} do
  BYTE_MEANS[meaning] = {}
  for byte = 0, 127 do
    BYTE_MEANS[meaning][byte] = read[meaning](byte)
  end
end

local function varint(meant, put, small, default)
  local reader = read.varint(small or BYTE_MEANS.int64, meant)
  return {wire = VARINT, read = reader, put = put, default = default or "0", zero = "\0"}
end

local function fixed(wire, format, put, default, meant)
  local size = wire == FIXED64 and 8 or 4
  local zero = string_pack("<i" .. size, 0)
  return {wire = wire, read = read.fixed(format, size, meant), put = put, default = default, zero = zero}
end

-- By the numbers of FieldDescriptorProto.Type. `default` is Lua text, and `zero` how it is sent.
local SCALARS = {
  [1] = fixed(FIXED64, "<d", write.double, "0.0"), -- double
  [2] = fixed(FIXED32, "<f", write.float, "0.0"), -- float
  [3] = varint(read.int64, write.varint_of(MIN64, MAX64)), -- int64
  [4] = varint(read.uint64, write.uint64), -- uint64
  [5] = varint(read.int32, write.varint_of(MIN32, MAX32)), -- int32
  [6] = fixed(FIXED64, "<i8", write.fixed64, "0", read.uint64), -- fixed64
  [7] = fixed(FIXED32, "<I4", write.fixed_of(0, MAX_UINT32, "<I4"), "0"), -- fixed32
  [8] = varint(read.bool, write.bool, BYTE_MEANS.bool, "false"), -- bool
  [9] = {wire = BYTES, read = read.string, put = write.string, default = '""', zero = ""}, -- string
  [12] = {wire = BYTES, read = read.bytes, put = write.bytes, default = '""', zero = ""}, -- bytes
  [13] = varint(read.uint32, write.varint_of(0, MAX_UINT32)), -- uint32
  [15] = fixed(FIXED32, "<i4", write.fixed_of(MIN32, MAX32, "<i4"), "0"), -- sfixed32
  [16] = fixed(FIXED64, "<i8", write.fixed_of(MIN64, MAX64, "<i8"), "0"), -- sfixed64
  [17] = varint(read.sint32, write.zigzag_of(MIN32, MAX32), BYTE_MEANS.sint64), -- sint32
  [18] = varint(read.sint64, write.zigzag_of(MIN64, MAX64), BYTE_MEANS.sint64), -- sint64
}

local function enumeration(enum)
  local small, first = {}, enum[1]
  for byte = 0, 127 do
    small[byte] = enum.names[byte]
  end
  local element = varint(read.enum(enum), write.enum(enum), small, string_format("%q", first))
  element.zero = write.varint(enum.numbers[first])
  return element
end

-- Fields ----------------------------------------------------------------------------------------------------

local REQUIRED, REPEATED = 2, 3
local MAX_NUMBER = (1 << 29) - 1

-- Gives what the type of a field's values is to it: an element of SCALARS, or one like it.
local function element_of(types, kind, field, max_depth)
  local where, other = kind.name .. "." .. field.name, types[field.type_name or ""]
  if field.type == GROUP then
    refuse(kind.file, where .. " is a group, and groups are not supported: use a message")
  elseif field.type ~= MESSAGE and field.type ~= ENUM then
    return SCALARS[field.type] or refuse(kind.file, where .. " has a type that is not known")
  elseif other == nil or other.is_enum ~= (field.type == ENUM) then
    local missing = shown(field.type_name)
    refuse(kind.file, where .. " has a type that no file defines: " .. missing .. ", is an import missing?")
  elseif field.type == ENUM then
    other.element = other.element or enumeration(other)
    return other.element
  end
  local single = field.label ~= REPEATED and not kind.is_entry
  return {
    wire = BYTES, kind = other,
    read = read.message(other, field.name, max_depth),
    put = write.message(other, single and field.name or nil, max_depth),
  }
end

-- The names of the other members of a field's oneof. None for `optional` in proto3, which is a oneof by
-- itself.
local function others_of(kind, field)
  local others = {}
  for _, other in ipairs(kind.proto.field) do
    if field.oneof_index and other.oneof_index == field.oneof_index and other ~= field then
      others[#others + 1] = other.name
    end
  end
  return others
end

-- Gives how to read a field that is not repeated, how to write it, and the text of its default, if it has one
-- instead of being absent.
local function one(kind, field, element)
  local others = others_of(kind, field)
  if #others > 0 then
    return read.member(element.read, others), element.put
  elseif kind.is_entry then
    return field.type == ENUM and read.entry_value(element.read) or element.read, element.put, element.default
  end
  local implicit = kind.file.syntax == "proto3" and not field.oneof_index
  return element.read, element.put, implicit and element.default or nil
end

-- Likewise for one that is; and whether it is written packed.
local function many(kind, field, element, max_depth)
  if element.kind and element.kind.is_entry then
    return read.map(element.kind, max_depth), write.map(element.kind, field.name, max_depth), "{}"
  end
  local packed = field.options and field.options.packed
  if packed == nil then
    packed = kind.file.syntax == "proto3"
  end
  packed = packed and element.wire ~= BYTES
  local put = (packed and write.packed or write.list)(element.put, field.name)
  return read.list(element.read), put, "{}", packed
end

local function add_readers(kind, field, element, reader)
  local number = field.number << 3
  kind.readers[number | element.wire], kind.fields[number | element.wire] = reader, field.name
  if field.label == REPEATED and element.wire ~= BYTES then
    kind.readers[number | BYTES], kind.fields[number | BYTES] = read.packed(element.read), field.name
  end
end

local function check(kind, field)
  local name, number = field.name, field.number or 0
  if not string_match(name or "", "^[%a_][%w_]*$") then
    refuse(kind.file, kind.name .. " has a field with a bad name: " .. shown(name))
  elseif kind.known[name] or number < 1 or number > MAX_NUMBER or kind.taken[number] then
    refuse(kind.file, kind.name .. "." .. name .. " has a bad number, or is there twice")
  end
  kind.taken[number] = true
end

-- Adds a field to a kind. `types`: every kind and enum, by name with a dot before it.
function fields.add(types, kind, field, max_depth)
  check(kind, field)
  local name, element = field.name, element_of(types, kind, field, max_depth)
  local repeated, place = field.label == REPEATED, #kind.names + 1
  local reader, put, default, packed = (repeated and many or one)(kind, field, element, max_depth)
  add_readers(kind, field, element, reader)
  kind.names[place], kind.puts[place] = name, put
  kind.tags[place] = write.varint(field.number << 3 | (packed and BYTES or element.wire))
  kind.zeros[place] = default and not repeated and element.zero or false
  kind.defaults[#kind.defaults + 1] = default and string_format("[%q] = %s", name, default)
  local oneof = #others_of(kind, field) > 0 and kind.proto.oneof_decl[field.oneof_index + 1]
  kind.known[name] = oneof and oneof.name or true
  kind.required[#kind.required + 1] = field.label == REQUIRED and name or nil
  if element.kind then
    kind.children[name] = {kind = element.kind, many = repeated}
  end
end

return fields
