-- Classes with one parent, mixins, properties and operators.
local Object = {}
Object.__index = Object

function Object:extend(name)
  local class = {}
  for event, value in pairs(self) do
    if type(event) == "string" and event:find("^__") then
      class[event] = value
    end
  end
  class.__index, class.__name, class.super = class, name, self
  return setmetatable(class, {__index = self, __call = function(_, ...)
    local object = setmetatable({}, class)
    if object.new then
      object:new(...)
    end
    return object
  end})
end

function Object:is(class)
  local meta = getmetatable(self)
  while meta do
    if meta == class then
      return true
    end
    meta = rawget(meta, "super")
  end
  return false
end

local Money = Object:extend("Money")
function Money:new(cents) self.cents = cents end
function Money.__add(one, other) return Money(one.cents + other.cents) end
function Money.__mul(one, factor) return Money(one.cents * factor) end
function Money.__eq(one, other) return one.cents == other.cents end
function Money.__lt(one, other) return one.cents < other.cents end
function Money.__le(one, other) return one.cents <= other.cents end
function Money.__unm(one) return Money(-one.cents) end
function Money.__concat(one, other) return tostring(one) .. tostring(other) end
function Money:__tostring() return string.format("%d.%02d", self.cents // 100, self.cents % 100) end

local Tip = Money:extend("Tip")
function Tip:new(cents) Tip.super.new(self, cents // 10) end

local frozen = setmetatable({}, {
  __index = {tax = 19}, __newindex = function(_, key) error("no " .. key, 0) end, __metatable = false,
  __len = function() return 1 end,
})

assert(Money(5) == Money(5) and Money(5) < Money(6) and Money(5) <= Money(5) and not (Money(1) == Money(2)))
assert(Tip(100):is(Money) and Tip(100):is(Object) and not Money(1):is(Tip))
assert(select(2, pcall(function() frozen.x = 1 end)) == "no x" and frozen.tax == 19 and #frozen == 1)
return Money(150) + Money(25) * 2 .. " " .. tostring(Tip(250)) .. " " .. tostring(-Money(100))
-- gives 2.00 0.25 -1.00
