-- Templates that compile to Lua, with environments of their own; and globals that a script shares with itself.
settings = {currency = "EUR", places = 2}
greeting = greeting or "hello"

function compile(template)
  local code = {"local out = {}"}
  local at = 1
  while true do
    local first, last, kind, inner = template:find("{([{%%])(.-)[%%}]}", at)
    code[#code + 1] = ("out[#out + 1] = %q"):format(template:sub(at, (first or 0) - 1))
    if not first then break end
    code[#code + 1] = kind == "{" and "out[#out + 1] = tostring(" .. inner .. ")" or inner
    at = last + 1
  end
  code[#code + 1] = "return join(out)"
  return table.concat(code, "\n")
end

local function render(template, values)
  local run, wrong = load(compile(template), "=template", "t", setmetatable({join = table.concat}, {
    __index = function(_, name) return values[name] or ({tostring = tostring, ipairs = ipairs})[name] end,
  }))
  return run and run() or error(wrong, 0)
end

local function with(environment)
  local _ENV <const> = environment
  amount = amount + 1
  return amount
end

local cache = setmetatable({}, {__mode = "k"})
local function memoize(compute)
  cache[compute] = cache[compute] or {}
  return function(key)
    local known = cache[compute]
    if known[key] == nil then known[key] = compute(key) end
    return known[key]
  end
end

local calls = 0
local double = memoize(function(key) calls = calls + 1 return key * 2 end)
assert(double(2) == 4 and double(2) == 4 and calls == 1 and with({amount = 1}) == 2)
local text = render("{{greeting}}: {% for _, item in ipairs(items) do %}<{{item}}>{% end %}", {
  greeting = greeting, items = {1, 2, "x"},
})
return text .. " " .. settings.currency
-- gives hello: <1><2><x> EUR
