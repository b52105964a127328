-- A small JSON reader and writer, as services carry one along.
local json = {}

local escapes = {['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}

local function quote(text)
  return '"' .. text:gsub('[%c"\\]', function(character)
    return escapes[character] or ("\\u%04x"):format(character:byte())
  end) .. '"'
end

local function is_list(value)
  local count = 0
  for key in pairs(value) do
    if math.type(key) ~= "integer" then
      return false
    end
    count = count + 1
  end
  return count == #value
end

function json.write(value)
  local kind = type(value)
  if kind == "table" then
    local parts = {}
    if is_list(value) then
      for index, item in ipairs(value) do
        parts[index] = json.write(item)
      end
      return "[" .. table.concat(parts, ",") .. "]"
    end
    local names = {}
    for name in pairs(value) do
      names[#names + 1] = name
    end
    table.sort(names)
    for _, name in ipairs(names) do
      parts[#parts + 1] = quote(name) .. ":" .. json.write(value[name])
    end
    return "{" .. table.concat(parts, ",") .. "}"
  elseif kind == "string" then
    return quote(value)
  end
  return tostring(value)
end

local read

local function skip(text, at)
  return text:find("%S", at) or #text + 1
end

local readers = {
  ['"'] = function(text, at)
    local stop = at
    repeat
      stop = text:find('"', stop + 1, true) or error("unfinished text at " .. at)
    until text:sub(stop - 1, stop - 1) ~= "\\"
    return text:sub(at + 1, stop - 1):gsub("\\(.)", {n = "\n", t = "\t"}), stop + 1
  end,
  ["["] = function(text, at)
    local list = {}
    at = skip(text, at + 1)
    while text:sub(at, at) ~= "]" do
      list[#list + 1], at = read(text, at)
      at = skip(text, at)
      if text:sub(at, at) == "," then
        at = skip(text, at + 1)
      end
    end
    return list, at + 1
  end,
  ["{"] = function(text, at)
    local map = {}
    at = skip(text, at + 1)
    while text:sub(at, at) ~= "}" do
      local name, value
      name, at = read(text, at)
      at = skip(text, text:match("^%s*:()", at))
      value, at = read(text, at)
      map[name] = value
      at = skip(text, at)
      if text:sub(at, at) == "," then
        at = skip(text, at + 1)
      end
    end
    return map, at + 1
  end,
}

function read(text, at)
  at = skip(text, at)
  local reader = readers[text:sub(at, at)]
  if reader then
    local value, after = reader(text, at)
    if type(value) == "string" and math.type(after) ~= "integer" then
      error("no place")
    end
    return value, after
  end
  local number, after = text:match("^(-?%d+%.?%d*[eE]?[+-]?%d*)()", at)
  if number then
    return tonumber(number), after
  end
  for word, value in pairs({["true"] = true, ["false"] = false}) do
    if text:sub(at, at + #word - 1) == word then
      return value, at + #word
    end
  end
  error("nothing to read at " .. at, 0)
end

-- gsub gives a count, too, which a reader must not take for a place.
local of_text = readers['"']
readers['"'] = function(text, at)
  local results = table.pack(of_text(text, at))
  return results[1], results[results.n]
end

local value = read(' {"b": [1, 2.5, -3e2, true], "a": "x\\ny", "c": {"d": []}} ', 1)
return json.write(value)
-- gives {"a":"x\ny","b":[1,2.5,-300.0,true],"c":{"d":[]}}
