-- Numbers of 64 bits without a sign: integers up to 2^63 - 1, and above them values of a type of their own.
--
-- There is one value for a number, so it is a key of tables like any other, and equal to itself alone. It can
-- be compared and printed; whatever else is done with it is an error. Its number is kept outside of it, where
-- nobody who holds it can reach.

local error, setmetatable, type = error, setmetatable, type
local math_type = math.type
local string_byte, string_format, string_match = string.byte, string.format, string.match

local uint64 = {}

uint64.MAX = "18446744073709551615"

-- From a value to the integer of the same bits, which is negative.
local bits_of = setmetatable({}, {__mode = "k"})
local value_of = setmetatable({}, {__mode = "v"})
uint64.bits_of = bits_of

local function refused()
  error("a uint64 value can be compared, printed and put into messages, and nothing else", 2)
end

-- Two integers that compare as the operands do.
local function comparable(one, other)
  local mine, its = bits_of[one], bits_of[other]
  if mine and its then
    return mine, its
  elseif math_type(mine and other or one) ~= "integer" then
    error("a uint64 value compares with integers and uint64 values, and with nothing else", 3)
  end
  return mine and 1 or 0, its and 1 or 0
end

local meta = {
  __metatable = false,
  __name = "uint64",
  __index = refused,
  __newindex = refused,
  __len = refused,
  __pairs = refused,
  __lt = function(one, other)
    local mine, its = comparable(one, other)
    return mine < its
  end,
  __le = function(one, other)
    local mine, its = comparable(one, other)
    return mine <= its
  end,
  __tostring = function(value)
    local bits = bits_of[value]
    local tens = (bits >> 1) // 5
    return string_format("%d%d", tens, bits - tens * 10)
  end,
}

-- Gives the number that has the bits of an integer.
function uint64.of_bits(bits)
  if bits >= 0 then
    return bits
  end
  local value = value_of[bits]
  if value == nil then
    value = setmetatable({}, meta)
    -- In this order: memory may run out between the two, and a value that is found has to have its bits.
    bits_of[value] = bits
    value_of[bits] = value
  end
  return value
end

-- Gives the number that a text of digits or an integer stands for. Raises at the caller for anything else.
function uint64.of(value)
  if bits_of[value] or math_type(value) == "integer" and value >= 0 then
    return value
  end
  local digits = type(value) == "string" and #value <= #uint64.MAX and string_match(value, "^%d+$")
  if not digits or #digits == #uint64.MAX and digits > uint64.MAX then
    error("uint64 takes an integer from 0, or a text of digits up to " .. uint64.MAX, 2)
  end
  local bits = 0
  for place = 1, #digits do
    bits = bits * 10 + string_byte(digits, place) - 48
  end
  return uint64.of_bits(bits)
end

-- Is it one of the values above 2^63 - 1? They are tables that nothing may be done to, not even raw.
function uint64.is(value)
  return bits_of[value] ~= nil
end

return uint64
