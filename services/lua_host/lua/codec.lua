-- Protobuf for Lua: a FileDescriptorSet to a schema, whose messages go to bytes and back as tables.
--
--   codec.load(bytes, {max_depth = n})     gives a schema:
--     schema.messages["pkg.Msg"]           {name, encode(table) -> bytes, decode(bytes) -> table}
--     schema.services["pkg.Svc"]["Method"] {name = "/pkg.Svc/Method", input, output,
--                                           client_streaming, server_streaming}
--   codec.uint64(text | integer)           gives a number for fields of type uint64 and fixed64
--   codec.is_uint64(value)                 is it one above 2^63 - 1?
--
-- Nothing changes in silence: what a field cannot hold exactly is an error that names it. A message decodes
-- to what Python's protobuf sees in the same bytes, and encodes to the bytes that it would write, but for the
-- order of maps. Stricter than that: strings of proto2 are UTF-8 too, required fields are required in bytes
-- as well, no number is 0. Absent is nil, also where proto2 has a default. The first message is level 1 of
-- max_depth; messages, entries of maps and unknown groups in it add one each.
--
-- Not here: groups and extensions as fields, editions; these are refused at load. Unknown fields are dropped.
--
-- Its parts are the other codec_*: values (uint64), both ways of the wire (write, read), what a message's
-- fields and messages are made of (fields, messages), and errors. Once loaded they use no global and no
-- method of strings. Memory may run out at any step: what outlives a call is whole at each.

local parts = ...
local uint64, errors, fields, messages =
  parts.codec_uint64, parts.codec_errors, parts.codec_fields, parts.codec_messages

local error, ipairs, math_type, next, string_gmatch, string_match, string_sub, table_sort, tonumber =
  error, ipairs, math.type, next, string.gmatch, string.match, string.sub, table.sort, tonumber
local refuse, shown = errors.refuse, errors.shown

local codec = {uint64 = uint64.of, is_uint64 = uint64.is}

-- Declarations ----------------------------------------------------------------------------------------------

local function named(file, proto)
  local name = proto.name
  return string_match(name or "", "^[%a_][%w_]*$") or refuse(file, shown(name) .. " is no name")
end

-- Options may be extended: that is how they are made.
local function check_extensions(file, extensions)
  for _, extension in ipairs(extensions) do
    local extended = extension.extendee or ""
    if not string_match(extended, "^%.google%.protobuf%.") then
      refuse(file, "extensions are not supported: " .. shown(extension.name) .. " of " .. shown(extended))
    end
  end
end

-- `types` has everything declared, by its name with a dot before it as types refer to it, and as a list.
local function declare(types, file, scope, proto, what)
  local name = scope .. named(file, proto)
  if types[name] then
    refuse(file, string_sub(name, 2) .. " is defined twice")
  end
  what.name, what.file = string_sub(name, 2), file
  types[name], types[#types + 1] = what, what
  return name .. "."
end

local function declare_enum(types, file, scope, proto)
  local enum = {is_enum = true, names = {}, numbers = {}, closed = file.syntax ~= "proto3"}
  for index, value in ipairs(proto.value) do
    local name, number = named(file, value), value.number or 0
    enum[index], enum.numbers[name] = name, number
    enum.names[number] = enum.names[number] or name
  end
  if #enum == 0 then
    refuse(file, shown(proto.name) .. " has no values")
  end
  declare(types, file, scope, proto, enum)
end

-- What a kind begins with, empty: see codec_messages.
local PARTS = "names puts tags zeros readers fields known taken defaults required children"

local function declare_message(types, file, scope, proto)
  local kind = {proto = proto, is_enum = false, is_entry = proto.options and proto.options.map_entry or false}
  for part in string_gmatch(PARTS, "%a+") do
    kind[part] = {}
  end
  local inner = declare(types, file, scope, proto, kind)
  check_extensions(file, proto.extension)
  for _, enum in ipairs(proto.enum_type) do
    declare_enum(types, file, inner, enum)
  end
  for _, nested in ipairs(proto.nested_type) do
    declare_message(types, file, inner, nested)
  end
end

local function scope_of(file)
  local package = file.package or ""
  return package == "" and "." or "." .. package .. "."
end

local function declare_file(types, file)
  file.syntax = file.syntax or "proto2"
  if file.syntax ~= "proto2" and file.syntax ~= "proto3" then
    refuse(file, "syntax " .. shown(file.syntax) .. " is not supported: use proto2 or proto3")
  end
  if not string_match(file.package or "", "^[%w_.]*$") then
    refuse(file, shown(file.package) .. " is no package")
  end
  check_extensions(file, file.extension)
  for _, enum in ipairs(file.enum_type) do
    declare_enum(types, file, scope_of(file), enum)
  end
  for _, message in ipairs(file.message_type) do
    declare_message(types, file, scope_of(file), message)
  end
end

-- Schemas ---------------------------------------------------------------------------------------------------

local function by_number(one, other)
  return (one.number or 0) < (other.number or 0)
end

-- Is this what a map needs? Keys are anything but floats and messages.
local function is_entry(kind)
  local key, value = kind.proto.field[1], kind.proto.field[2]
  return #kind.names == 2 and key.name == "key" and value.name == "value" and #kind.required == 0 and
    key.type > 2 and not kind.children.key
end

local function add_fields(types, kind, max_depth)
  table_sort(kind.proto.field, by_number)
  for _, field in ipairs(kind.proto.field) do
    fields.add(types, kind, field, max_depth)
  end
  if kind.is_entry and not is_entry(kind) then
    refuse(kind.file, kind.name .. " is no entry of a map")
  end
end

-- Marks the kinds in which there are required fields, at any depth.
local function mark_demanding(kinds)
  local changed
  repeat
    changed = false
    for _, kind in ipairs(kinds) do
      local demanding = #kind.required > 0
      for _, child in next, kind.children do
        demanding = demanding or child.kind.demanding
      end
      changed = changed or demanding ~= kind.demanding
      kind.demanding = demanding
    end
  until not changed
end

local function method_of(schema, file, service, method)
  local name = "/" .. service .. "/" .. named(file, method)
  local function message(type_name)
    return schema.messages[string_sub(type_name or "", 2)] or
      refuse(file, name .. " has a type that no file defines: " .. shown(type_name))
  end
  return {
    name = name,
    input = message(method.input_type),
    output = message(method.output_type),
    client_streaming = method.client_streaming or false,
    server_streaming = method.server_streaming or false,
  }
end

local function schema_of(files, kinds)
  local schema = {messages = {}, services = {}}
  for _, kind in ipairs(kinds) do
    if not kind.is_entry then
      schema.messages[kind.name] = messages.public(kind)
    end
    kind.proto, kind.file, kind.taken = nil, nil, nil
  end
  for _, file in ipairs(files) do
    for _, service in ipairs(file.service) do
      local name, methods = string_sub(scope_of(file), 2) .. named(file, service), {}
      for _, method in ipairs(service.method) do
        methods[method.name] = method_of(schema, file, name, method)
      end
      schema.services[name] = methods
    end
  end
  return schema
end

local function build(files, max_depth)
  local types, kinds = {}, {}
  for _, file in ipairs(files) do
    declare_file(types, file)
  end
  for _, what in ipairs(types) do
    if not what.is_enum then
      kinds[#kinds + 1] = what
      add_fields(types, what, max_depth)
    end
  end
  mark_demanding(kinds)
  for _, kind in ipairs(kinds) do
    messages.finish(kind, max_depth)
  end
  return schema_of(files, kinds)
end

-- Descriptors of descriptors: as much of google/protobuf/descriptor.proto as is read here. Its enums are read
-- as numbers, so that an unknown one is seen.
local DESCRIPTORS = [[
  message FileDescriptorSet { repeated FileDescriptorProto file = 1; }
  message FileDescriptorProto {
    optional string name = 1; optional string package = 2; optional string syntax = 12;
    repeated DescriptorProto message_type = 4; repeated EnumDescriptorProto enum_type = 5;
    repeated ServiceDescriptorProto service = 6; repeated FieldDescriptorProto extension = 7;
  }
  message DescriptorProto {
    optional string name = 1; optional MessageOptions options = 7; repeated FieldDescriptorProto field = 2;
    repeated FieldDescriptorProto extension = 6; repeated DescriptorProto nested_type = 3;
    repeated EnumDescriptorProto enum_type = 4; repeated OneofDescriptorProto oneof_decl = 8;
  }
  message FieldDescriptorProto {
    optional string name = 1; optional string extendee = 2; optional int32 number = 3;
    optional int32 label = 4; optional int32 type = 5; optional string type_name = 6;
    optional FieldOptions options = 8; optional int32 oneof_index = 9;
  }
  message OneofDescriptorProto { optional string name = 1; }
  message MessageOptions { optional bool map_entry = 7; }
  message FieldOptions { optional bool packed = 2; }
  message EnumDescriptorProto { optional string name = 1; repeated EnumValueDescriptorProto value = 2; }
  message EnumValueDescriptorProto { optional string name = 1; optional int32 number = 2; }
  message ServiceDescriptorProto { optional string name = 1; repeated MethodDescriptorProto method = 2; }
  message MethodDescriptorProto {
    optional string name = 1; optional string input_type = 2; optional string output_type = 3;
    optional bool client_streaming = 5; optional bool server_streaming = 6;
  }
]]
local TYPES = {int32 = 5, bool = 8, string = 9}
local MAX_NESTED_TYPES = 100

local function file_of(text)
  local file = {package = "google.protobuf", message_type = {}, enum_type = {}, service = {}, extension = {}}
  for name, body in string_gmatch(text, "message (%w+) (%b{})") do
    local message = {name = name, field = {}}
    for part in string_gmatch("nested_type enum_type extension oneof_decl", "[%a_]+") do
      message[part] = {}
    end
    for label, kind, field, number in string_gmatch(body, "(%a+) (%w+) ([%w_]+) = (%d+);") do
      message.field[#message.field + 1] = {
        name = field, number = tonumber(number), label = label == "repeated" and 3 or 1,
        type = TYPES[kind] or 11, type_name = ".google.protobuf." .. kind,
      }
    end
    file.message_type[#file.message_type + 1] = message
  end
  return file
end

local own = build({file_of(DESCRIPTORS)}, MAX_NESTED_TYPES)
local descriptors = own.messages["google.protobuf.FileDescriptorSet"]

function codec.load(bytes, options)
  local max_depth = options.max_depth
  if math_type(max_depth) ~= "integer" or max_depth < 1 then
    error("max_depth has to be an integer above 0", 2)
  end
  return build(descriptors.decode(bytes).file, max_depth)
end

return codec
