-- The functions of `string` that could make, match or tell too much, bounded.

local parts = ...
local arguments, text_of = parts.sandbox_arguments, parts.sandbox_metatables.text_of

local error, pcall, select, tonumber, tostring, type = error, pcall, select, tonumber, tostring, type
local string_find, string_format, string_gmatch, string_gsub = string.find, string.format, string.gmatch, string.gsub
local string_match, string_pack, string_rep, table_unpack = string.match, string.pack, string.rep, table.unpack
local integer, misuse, outcome = arguments.integer, arguments.misuse, arguments.outcome

local MAX_PATTERN, MAX_REPEATS = 256, 16
-- Patterns and formats whose worth is remembered, this many of each.
local MAX_REMEMBERED = 256
-- What Lua shows an address of.
local HIDDEN = {["function"] = true, table = true, thread = true, userdata = true}

local function remembered(judge)
  local known, count = {}, 0
  return function(text)
    local worth = known[text]
    if worth == nil then
      worth = judge(text)
      if count == MAX_REMEMBERED then
        known, count = {}, 0
      end
      known[text] = worth
      count = count + 1
    end
    return worth
  end
end

-- How often a pattern repeats, or more. Escapes and sets become one letter, so that what stands in them is not
-- counted. After %b that could be fooled by what it balances, and everything counts.
local repeats = remembered(function(pattern)
  if not string_find(pattern, "%b", 1, true) then
    pattern = string_gsub(string_gsub(pattern, "%%.", "x"), "%[%^?.[^%]]*%]", "x")
  end
  return select(2, string_gsub(pattern, "[*+?-]", ""))
end)

-- Which arguments a format shows as tostring would; false if it shows addresses.
local function shown(form)
  local places, at = {}, 0
  for kind in string_gmatch(form, "%%[-+ #0-9.]*(.?)") do
    if kind == "p" then
      return false
    elseif kind ~= "%" then
      at = at + 1
      places[#places + 1] = kind == "s" and at or nil
    end
  end
  return places
end
local remembered_shown = remembered(shown)

-- Raises at the wrapper's caller. What is no text is for Lua's own function to refuse.
local function judge(text, pattern, max)
  if type(text) == "string" and #text > max then
    error("the text is longer than " .. max .. " bytes", 3)
  elseif type(pattern) ~= "string" then
    return
  elseif #pattern > MAX_PATTERN then
    error("the pattern is longer than " .. MAX_PATTERN .. " bytes", 3)
  elseif repeats(pattern) > MAX_REPEATS then
    error("the pattern has more than " .. MAX_REPEATS .. " repetitions", 3)
  end
end

local function matching(max)
  local bounded = {}

  function bounded.find(text, pattern, init, plain)
    judge(text, not plain and pattern, max)
    return outcome(pcall(string_find, text, pattern, init, plain))
  end

  function bounded.match(text, pattern, init)
    judge(text, pattern, max)
    return outcome(pcall(string_match, text, pattern, init))
  end

  function bounded.gmatch(text, pattern, init)
    judge(text, pattern, max)
    return outcome(pcall(string_gmatch, text, pattern, init))
  end

  function bounded.gsub(text, pattern, by, times)
    judge(text, pattern, max)
    if type(by) == "function" or type(by) == "table" then
      return string_gsub(text, pattern, by, times)
    end
    return outcome(pcall(string_gsub, text, pattern, by, times))
  end

  return bounded
end

local function is_text(value)
  return type(value) == "string" or type(value) == "number"
end

local function making(bounded, max)
  function bounded.rep(text, times, between)
    if not is_text(text) then
      misuse(1, "rep", "string", text)
    elseif between ~= nil and not is_text(between) then
      misuse(3, "rep", "string", between)
    end
    times = integer(times, 2, "rep")
    local gap = #tostring(between or "")
    local step = #tostring(text) + gap
    -- Lua would count to `times` over nothing.
    if step == 0 then
      return ""
    elseif times > (max + gap) // step then
      error("string.rep would make more than " .. max .. " bytes", 2)
    end
    return string_rep(text, times, between)
  end

  function bounded.pack(form, ...)
    local fixed = 0
    for size in string_gmatch(type(form) == "string" and form or "", "c(%d+)") do
      fixed = fixed + tonumber(size)
    end
    if fixed > max then
      error("string.pack would make more than " .. max .. " bytes", 2)
    end
    return outcome(pcall(string_pack, form, ...))
  end

  function bounded.format(form, ...)
    if type(form) ~= "string" then
      return outcome(pcall(string_format, form, ...))
    end
    local places, told = (#form <= MAX_PATTERN and remembered_shown or shown)(form), nil
    if not places then
      error("string.format tells no addresses: %p is not allowed here", 2)
    end
    for at = 1, #places do
      local place = places[at]
      if HIDDEN[type((select(place, ...)))] then
        told = told or {...}
        told[place] = text_of(told[place])
      end
    end
    if told then
      return outcome(pcall(string_format, form, table_unpack(told, 1, select("#", ...))))
    end
    return outcome(pcall(string_format, form, ...))
  end

  return bounded
end

-- Gives what replaces functions of `string`. `max`: bytes that are made, or searched, at once.
return function(max)
  return making(matching(max), max)
end
