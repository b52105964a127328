-- What the codec says when it cannot go on: where in the message, what is wrong, what there is instead.
--
-- Errors are strings of printable ASCII, however odd the values they tell of, and short if names are.

local parts = ...
local uint64 = parts.codec_uint64

local error, ipairs, tostring, type = error, ipairs, tostring, type
local math_type = math.type
local string_byte, string_format = string.byte, string.format
local string_gsub, string_sub = string.gsub, string.sub
local table_concat = table.concat
local bits_of = uint64.bits_of

local errors = {}

local MAX_SHOWN, MAX_STEPS = 40, 12
local KINDS = {
  ["nil"] = "nil", boolean = "a boolean", integer = "an integer", float = "a float", string = "a string",
  table = "a table", ["function"] = "a function", thread = "a coroutine", userdata = "a userdata",
}

errors.CUT_SHORT = "the bytes end too early"

local function kind_of(value)
  return bits_of[value] and "a uint64 value" or KINDS[math_type(value) or type(value)]
end

function errors.not_a(what, value)
  return "has to be " .. what .. ", not " .. kind_of(value)
end

function errors.too_deep(max_depth)
  return string_format("nested deeper than %d levels", max_depth)
end

function errors.not_utf8(place)
  return string_format("has to be UTF-8, and is not at byte %d: a field of type bytes takes anything", place)
end

local function escaped(character)
  return string_format("\\x%02x", string_byte(character))
end

-- Gives a value as a person may read it.
local function shown(value)
  if type(value) == "string" then
    local start = string_gsub(string_sub(value, 1, MAX_SHOWN), '[^ !#-[%]^-~]', escaped)
    return '"' .. start .. (#value > MAX_SHOWN and '..."' or '"')
  end
  local plain = math_type(value) or type(value) == "boolean" or bits_of[value]
  return plain and tostring(value) or kind_of(value)
end
errors.shown = shown

-- How many letters are to be changed, added or left out to get from one word to another (Levenshtein).
local function distance(from, to)
  local row = {}
  for j = 0, #to do
    row[j] = j
  end
  for i = 1, #from do
    local diagonal, left = row[0], i
    row[0] = i
    for j = 1, #to do
      local cost = string_byte(from, i) == string_byte(to, j) and diagonal or diagonal + 1
      diagonal = row[j]
      cost = diagonal < cost and diagonal + 1 or cost
      left = left < cost and left + 1 or cost
      row[j] = left
    end
  end
  return row[#to]
end

-- Gives the end of an error about a name that is not among `names`.
local function instead(wrong, names)
  local nearest, least = nil, 3
  for _, name in ipairs(names) do
    if type(wrong) == "string" and #wrong <= MAX_SHOWN and #name <= MAX_SHOWN then
      local far = distance(wrong, name)
      if far < least and far < #name then
        nearest, least = name, far
      end
    end
  end
  if nearest then
    return ": did you mean " .. nearest
  end
  local few = #names <= MAX_STEPS
  return #names == 0 and "" or
    ": there is " .. table_concat(names, ", ", 1, few and #names or MAX_STEPS) .. (few and "" or ", ...")
end
errors.instead = instead

function errors.no_field(kind, key)
  return "no field " .. shown(key) .. " in " .. kind.name .. instead(key, kind.names)
end

-- Where the work is: the field at each level (false if it is not worth a word), and the index or key in it
-- (nil if it has none). Written on the way down, and read only above the level that fails. at[0] is the name
-- of the outermost message. Keys may be long, so they are not left behind.
local at, keys = {}, {}
errors.at, errors.keys = at, keys

local function step(field, key)
  return key == nil and field or field .. "[" .. shown(key) .. "]"
end

-- Raises. `field` belongs to the message at level `depth`: its name, or an index in at[depth]; nil is the
-- message.
function errors.fail(depth, field, key, why)
  local path = {}
  for level = 1, depth - 1 do
    path[#path + 1] = at[level] and step(at[level], keys[level]) or nil
  end
  if math_type(field) then
    field, key = at[depth], field
  end
  path[#path + 1] = field and step(field, key)
  for level = 1, depth do
    keys[level] = nil
  end
  local half = MAX_STEPS // 2
  local text = #path <= MAX_STEPS and table_concat(path, ".") or
    table_concat(path, ".", 1, half) .. " ... " .. table_concat(path, ".", #path - half + 1)
  error((#path == 0 and at[0] or text) .. ": " .. why, 0)
end

-- Raises, for a file of descriptors that cannot be used.
function errors.refuse(file, text)
  local name = string_gsub(file.name or "a file without a name", "[^ -~]", escaped)
  error(name .. ": " .. text, 0)
end

return errors
