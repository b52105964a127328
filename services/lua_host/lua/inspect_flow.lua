-- How Lua 5.4's bytecode flows: what an instruction writes, where it may go on, what a variable keeps.
--
-- Numbers and layout are those of lopcodes.h, 5.4.0 to 5.4.8. Instructions, registers and upvalues count from 0.

local ipairs, next, pairs = ipairs, next, pairs

local flow = {}

local OP = {
  MOVE = 0, LOADK = 3, LOADKX = 4, LFALSESKIP = 6, LOADNIL = 8, GETUPVAL = 9, SETUPVAL = 10, GETTABUP = 11,
  GETTABLE = 12, GETFIELD = 14, SETTABUP = 15, SETTABLE = 16, SETI = 17, SETFIELD = 18, SELF = 20, MMBIN = 46,
  MMBINI = 47, MMBINK = 48, NOT = 51, CONCAT = 53, CLOSE = 54, TBC = 55, JMP = 56, EQ = 57, LT = 58, LE = 59,
  EQK = 60, EQI = 61, LTI = 62, LEI = 63, GTI = 64, GEI = 65, TEST = 66, TESTSET = 67, CALL = 68, TAILCALL = 69,
  RETURN = 70, RETURN0 = 71, RETURN1 = 72, FORLOOP = 73, FORPREP = 74, TFORPREP = 75, TFORCALL = 76,
  TFORLOOP = 77, SETLIST = 78, CLOSURE = 79, VARARG = 80, VARARGPREP = 81, EXTRAARG = 82,
}
flow.OP = OP

-- How many registers from A on an instruction writes, where it is not one. 256: all, since those above are out of
-- use, or hold as many values as there are.
local WRITES = {[OP.SELF] = 2, [OP.FORLOOP] = 4, [OP.FORPREP] = 4, [OP.TFORLOOP] = 5}
for _, name in ipairs {
  "SETUPVAL", "SETTABUP", "SETTABLE", "SETI", "SETFIELD", "MMBIN", "MMBINI", "MMBINK", "CLOSE", "TBC", "JMP", "EQ",
  "LT", "LE", "EQK", "EQI", "LTI", "LEI", "GTI", "GEI", "TEST", "RETURN", "RETURN0", "RETURN1", "TFORPREP",
  "SETLIST", "VARARGPREP", "EXTRAARG",
} do
  WRITES[OP[name]] = 0
end
for _, name in ipairs {"CONCAT", "CALL", "TAILCALL", "TFORCALL", "VARARG"} do
  WRITES[OP[name]] = 256
end

-- Gives the opcode, A, B and C.
local function parts(code)
  return code & 0x7f, code >> 7 & 0xff, code >> 16 & 0xff, code >> 24 & 0xff
end
flow.parts = parts

-- Gives the first register that an instruction writes, and the one after the last.
local function written(code)
  local op, a, b = parts(code)
  local first = op == OP.TFORCALL and a + 4 or a
  return first, first + (op == OP.LOADNIL and b + 1 or WRITES[op] or 1)
end
flow.written = written

-- Where an instruction may go on other than at the next, if anywhere.
local function target(code, at)
  local op = code & 0x7f
  if op == OP.JMP then
    return at + 1 + (code >> 7) - 0xffffff
  elseif op == OP.FORLOOP or op == OP.TFORLOOP then
    return at + 1 - (code >> 15)
  elseif op == OP.FORPREP then
    return at + 2 + (code >> 15)
  elseif op == OP.TFORPREP then
    return at + 1 + (code >> 15)
  elseif op >= OP.EQ and op <= OP.TESTSET or op == OP.LFALSESKIP then
    return at + 2
  end
  return nil
end
flow.target = target

-- Whether an instruction may go on at the next. TFORPREP goes there by way of the end of its loop.
function flow.goes_on(code)
  local op = code & 0x7f
  return not (op == OP.JMP or op == OP.LFALSESKIP or op >= OP.RETURN and op <= OP.RETURN1)
end

-- The set with the registers from `first` to before `stop`, which is the same table if it has them.
local function with(registers, first, stop)
  local more = registers
  for register = first, stop <= 256 and stop - 1 or 255 do
    if more == registers and not registers[register] then
      more = {}
      for known in next, registers do
        more[known] = true
      end
    end
    more[register] = true
  end
  return more
end

-- The heads of loops, each with the registers that are written from there on.
local function heads_of(one)
  local heads, registers = {}, {}
  for at = 0, one.count - 1 do
    local to = target(one.code[at], at)
    if to and to <= at then
      heads[to] = true
    end
  end
  for at = one.count - 1, 0, -1 do
    registers = with(registers, written(one.code[at]))
    heads[at] = heads[at] and registers
  end
  return heads
end

-- Adds to a function and those within: `heads`; `assigned`, the upvalues that it or one within assigns to; `open`,
-- the registers that one within assigns to, which may change at any call.
function flow.survey(one)
  one.heads, one.assigned, one.open = heads_of(one), {}, {}
  for at = 0, one.count - 1 do
    local op, _, b = parts(one.code[at])
    if op == OP.SETUPVAL then
      one.assigned[b] = true
    end
  end
  for _, inner in pairs(one.functions) do
    flow.survey(inner)
    for index, upvalue in pairs(inner.upvalues) do
      if inner.assigned[index] then
        (upvalue.in_stack and one.open or one.assigned)[upvalue.index] = true
      end
    end
  end
end

-- The variable that has a register at an instruction.
local function variable_in(one, register, at)
  local place = 0
  for index = 0, one.variables - 1 do
    local variable = one.locals[index]
    if variable.first <= at and at < variable.last then
      if place == register then
        return variable
      end
      place = place + 1
    end
  end
  return nil
end

-- Whether the variable in a register at an instruction keeps, as long as it lives, what it was made with. (It is not
-- asked about open ones.)
function flow.is_constant(one, register, at)
  local variable = variable_in(one, register, at)
  for within = variable and variable.first or 0, variable and variable.last - 1 or -1 do
    local first, stop = written(one.code[within])
    if first <= register and register < stop then
      return false
    end
  end
  return variable ~= nil
end

return flow
