-- Pipelines of coroutines, iterators with state, varargs and gotos.
local function produce(...)
  local items = table.pack(...)
  return coroutine.wrap(function()
    for index = 1, items.n do
      coroutine.yield(items[index])
    end
  end)
end

local function filter(keep, source)
  return coroutine.wrap(function()
    for item in source do
      if not keep(item) then goto continue end
      coroutine.yield(item)
      ::continue::
    end
  end)
end

local function map(change, source)
  return function()
    local item = source()
    return item and change(item)
  end
end

local function fold(start, join, source)
  local sum = start
  for item in source do
    sum = join(sum, item)
  end
  return sum
end

local function range(first, last, step)
  return function(stop, at)
    at = at + (step or 1)
    if at <= stop then return at end
  end, last, first - (step or 1)
end

local total = 0
for outer in range(1, 3) do
  for inner in range(outer, 9, 3) do
    if inner == 8 then break end
    total = total + inner
  end
end

local thread = coroutine.create(function(one)
  local two = coroutine.yield(one + 1)
  local ok, caught = pcall(function() error({code = coroutine.yield(two + 1)}) end)
  return ok, caught.code
end)
local steps = {select(2, coroutine.resume(thread, 1)), select(2, coroutine.resume(thread, 10))}
local _, ok, code = coroutine.resume(thread, "late")
assert(steps[1] == 2 and steps[2] == 11 and ok == false and code == "late" and coroutine.status(thread) == "dead")

local even = filter(function(item) return item % 2 == 0 end, produce(1, 2, 3, 4, 5, 6))
local sum = fold(0, function(one, other) return one + other end, map(function(item) return item * item end, even))
return sum .. " " .. total .. " " .. select("#", nil, nil) .. " " .. (select(-1, "a", "b"))
-- gives 56 37 2 b
