-- Integers at their edges, bits, rounding, hashing and packing.
local max, min <const> = math.maxinteger, math.mininteger
assert(max + 1 == min and max // -1 == -max and min // -1 == min and 7 // 2 == 3 and -7 // 2 == -4 and -7 % 3 == 2)
assert(7 / 2 == 3.5 and 2 ^ 53 == 9007199254740992.0 and math.type(3.0) == "float" and math.type(3) == "integer")
assert(1 << 63 == min and -1 >> 1 == max and 5 & 3 == 1 and 5 | 3 == 7 and 5 ~ 3 == 6 and ~0 == -1)
assert(0x7fffffffffffffff == max and 0xffffffffffffffff == -1 and "0x10" + 0 == 16 and 1e308 * 10 == math.huge)
assert(math.tointeger("8") == 8 or math.tointeger(8.0) == 8)
assert(0.0 == -0.0 and 1 / 0.0 ~= 1 / -0.0 and math.ult(1, -1) and math.abs(min) == min)

local function crc(text)
  local value = 0xffffffff
  for index = 1, #text do
    value = value ~ string.byte(text, index)
    for _ = 1, 8 do
      value = value & 1 == 1 and value >> 1 ~ 0xedb88320 or value >> 1
    end
  end
  return ~value & 0xffffffff
end

local function round(value, places)
  local factor = 10 ^ (places or 0)
  return math.floor(value * factor + 0.5) / factor
end

local packed = string.pack(">I4 s2 z B d", 0xdeadbeef, "two", "zero", 255, 0.5)
local word, two, zero, byte, half = string.unpack(">I4 s2 z B d", packed)
assert(word == 0xdeadbeef and two == "two" and zero == "zero" and byte == 255 and half == 0.5)

local points = {}
for _, point in utf8.codes("aé€😀") do
  points[#points + 1] = ("U+%04X"):format(point)
end
for index = #points, 1, -2 do
  points[index] = points[index]:lower()
end
return string.format("%08x %g %s %d", crc("sealmesh"), round(2.345, 2), table.concat(points, " "), utf8.len("aé€😀"))
-- gives c13289a1 2.35 U+0061 u+00e9 U+20AC u+1f600 4
