-- What is wrong with a script, without running it: found in the bytecode that it compiles to.
--
-- Each function is gone through once, instruction by instruction, with what is known of each register: that it holds
-- the environment, a library or a function of one, or a constant text. Where ways meet, what all agree on stays; at
-- the head of a loop, what is not written from there on. So what is said is so, and not all that is wrong is found.
-- What a script asks for anywhere ("if x then", "x or y", "type(x)") may be missing.

local parts = ...
local bytecode, flow, sandbox = parts.inspect_bytecode, parts.inspect_flow, parts.sandbox

local ipairs, load, next, pairs, setmetatable, tonumber, type =
  ipairs, load, next, pairs, setmetatable, tonumber, type
local string_byte, string_dump, string_find, string_match = string.byte, string.dump, string.find, string.match
local string_sub, table_concat, table_sort = string.sub, table.concat, table.sort
local OP, parts_of = flow.OP, flow.parts
local allowed = sandbox.allowed

-- What is known of values, as texts: ENVIRONMENT, "." and the path of a library or function (".string.format"), or
-- "=" and a constant text.
local ENVIRONMENT = "_ENV"

-- What is told of a script, which may be made to have a lot told of it.
local MAX_TEXT, MAX_PROBLEMS, MAX_HANDLES = 300, 100, 1000

local walker = {}

function walker:say(at, text)
  local line, problems, said = self.one.lines[at], self.shared.problems, self.shared.said
  if #text > MAX_TEXT then
    text = string_sub(text, 1, MAX_TEXT) .. "..."
  end
  local key = line .. ":" .. text
  if not said[key] and #problems < MAX_PROBLEMS then
    said[key] = true
    problems[#problems + 1] = {line = line, text = text}
  end
end

-- Whether the script asks, here or elsewhere, if there is such a thing: an instruction puts it into a register.
function walker:is_asked(path, register, at)
  local asked = self.shared.asked
  local op, a, b = parts_of(self.one.code[at + 1])
  if (op == OP.TEST or op == OP.EQK or op == OP.EQ) and a == register
    or (op == OP.TESTSET or op == OP.NOT) and b == register
    or op == OP.CALL and b == 2 and a == register - 1 and self.known[a] == ".type" then
    asked[path] = true
  end
  return asked[path]
end

local function advice(path)
  local module, name = string_match(path, "^([^.]*)%.?(.*)$")
  local members = allowed.modules[module]
  if allowed.never[path] or allowed.never[module] then
    return path .. " is never there for a script" .. (path == "print" and ": use mesh.log.info" or "")
  elseif name == "" and (members or allowed.functions[module]) then
    return path .. ' is not in allow: add "' .. path .. '" to allow in service.toml'
  elseif members and members[name] then
    return path .. ' is not in allow: add "' .. path .. '" or "' .. module .. '" to allow in service.toml'
  end
  return nil
end

local function instead(path, names)
  local list = {}
  for name in next, names do
    list[#list + 1] = name
  end
  table_sort(list)
  return #list > 0 and ": " .. path .. " has " .. table_concat(list, ", ") or ""
end

function walker:global(name, register, at)
  local shared = self.shared
  shared.loads = shared.loads or name == "load" and shared.globals.load
  if shared.globals[name] then
    return not shared.defined[name] and "." .. name or nil
  elseif shared.defined[name] or self:is_asked(name, register, at) then
    return nil
  end
  if not shared.lenient then
    local op, _, b, c = parts_of(self.one.code[at + 1])
    local member = op == OP.GETFIELD and b == register and allowed.modules[name] and self.one.constants[c]
    self:say(at, advice(member and name .. "." .. member or name) or "there is no global " .. name)
  end
  return nil
end

-- Gives what is known of base[name].
function walker:read(base, name, register, at)
  if base == ENVIRONMENT and name then
    return self:global(name, register, at)
  end
  local path = base and string_match(base, "^%.(.*)$") or base and "string"
  local members = self.shared.modules[path]
  if not members or not name then
    return nil
  elseif members[name] then
    return "." .. path .. "." .. name
  end
  local full = path .. "." .. name
  if not self:is_asked(full, register, at) then
    self:say(at, advice(full) or "there is no " .. full .. instead(path, members))
  end
  return nil
end

function walker:write(base, name, at)
  if base == ENVIRONMENT and name then
    self.shared.defined[name] = true
    if self.shared.globals[name] then
      self:say(at, "this replaces " .. name .. " for the whole script: make it local, or call it something else")
    end
  elseif base and self.shared.modules[string_sub(base, 2)] and string_byte(base) == 46 then
    self:say(at, string_sub(base, 2) .. " is frozen and cannot be changed")
  end
end

-- What a register holds, if it is a constant text.
function walker:text(register)
  local known = self.known[register]
  return known and string_match(known, "^=(.*)$")
end

function walker:call(first, count, at)
  local called = self.known[first]
  local one = count ~= 1 and self:text(first + 1)
  local two = (count == 0 or count > 2) and self:text(first + 2)
  if called == ".mesh.handle" and one then
    self:handles(one, at)
  elseif (called == ".mesh.call" or called == ".mesh.stream") and one then
    self:calls(one, two, called == ".mesh.stream", at)
  end
end

function walker:handles(name, at)
  local shared = self.shared
  if not shared.handled[name] and #name <= MAX_TEXT and #shared.handles < MAX_HANDLES then
    shared.handled[name] = true
    shared.handles[#shared.handles + 1] = name
  end
  if not shared.methods[name] then
    self:say(at, "no method " .. name .. " in what this service serves: see serves in service.toml")
  end
end

function walker:calls(service, name, streams, at)
  local granted = self.shared.grants[service]
  local method = granted and name and granted[name]
  if not granted or name and not method then
    self:say(at, "the manifest does not let this service call " .. service .. (granted and " " .. name or "")
      .. ": name it under [calls] in service.toml")
  elseif type(method) == "table" and method.server_streaming == not streams then
    self:say(at, name .. (streams and " has one reply: use mesh.call" or " streams replies: use mesh.stream"))
  end
end

-- Gives what is known of the one register that an instruction writes, after having looked at what it does.
local look = {}

look[OP.MOVE] = function(self, _, b)
  return self.known[b]
end

look[OP.LOADK] = function(self, _, _, _, at)
  local text = self.one.constants[self.one.code[at] >> 15]
  return text and "=" .. text
end

look[OP.LOADKX] = function(self, _, _, _, at)
  local text = self.one.constants[self.one.code[at + 1] >> 7]
  return text and "=" .. text
end

look[OP.GETUPVAL] = function(self, _, b)
  return self.outer[b]
end

look[OP.GETTABUP] = function(self, a, b, c, at)
  return self:read(self.outer[b], self.one.constants[c], a, at)
end

look[OP.GETTABLE] = function(self, a, b, c, at)
  return self:read(self.known[b], self:text(c), a, at)
end

look[OP.GETFIELD] = function(self, a, b, c, at)
  return self:read(self.known[b], self.one.constants[c], a, at)
end

look[OP.SELF] = function(self, a, b, c, at)
  local constant = self.one.code[at] >> 15 & 1 == 1
  return self:read(self.known[b], constant and self.one.constants[c] or self:text(c), a, at)
end

look[OP.SETTABUP] = function(self, a, b, _, at)
  self:write(self.outer[a], self.one.constants[b], at)
end

look[OP.SETTABLE] = function(self, a, b, _, at)
  self:write(self.known[a], self:text(b), at)
end

look[OP.SETFIELD] = function(self, a, b, _, at)
  self:write(self.known[a], self.one.constants[b], at)
end

look[OP.CALL] = function(self, a, b, _, at)
  self:call(a, b, at)
end
look[OP.TAILCALL] = look[OP.CALL]

-- Ways: what comes to an instruction from the one before and from those that jump to it.

local function keep_common(known, other)
  for register, value in next, known do
    if other[register] ~= value then
      known[register] = nil
    end
  end
end

-- Gives whether anything comes to it.
function walker:arrive(at, goes)
  local coming, head = self.coming[at], self.one.heads[at]
  self.coming[at] = nil
  if not goes then
    self.known = coming or {}
  elseif coming then
    keep_common(self.known, coming)
  end
  for register in next, head or {} do
    self.known[register] = nil
  end
  return goes or coming or head
end

function walker:leave(to)
  local coming = self.coming[to]
  if coming then
    return keep_common(coming, self.known)
  end
  coming = {}
  for register, value in next, self.known do
    coming[register] = value
  end
  self.coming[to] = coming
end

function walker:forget(first, stop)
  if stop == first + 1 then
    self.known[first] = nil
    return
  end
  for register in next, self.known do
    if first <= register and register < stop then
      self.known[register] = nil
    end
  end
end

local walk

function walker:enter(inner, at)
  local outer = {}
  for index, upvalue in pairs(inner.upvalues) do
    local place = upvalue.index
    if not upvalue.in_stack then
      outer[index] = self.outer[place]
    elseif self.known[place] and flow.is_constant(self.one, place, at) then
      outer[index] = self.known[place]
    end
  end
  walk(self.shared, inner, outer)
end

function walker:step(at)
  local code = self.one.code[at]
  local op, a, b, c = parts_of(code)
  local known = look[op] and look[op](self, a, b, c, at)
  if op == OP.CLOSURE then
    self:enter(self.one.functions[code >> 15], at)
  end
  self:forget(flow.written(code))
  self.known[a] = not self.one.open[a] and known or self.known[a]
  local to = flow.target(code, at)
  if to and to > at then
    self:leave(to)
  end
  return flow.goes_on(code)
end

function walk(shared, one, outer)
  local self = {shared = shared, one = one, outer = outer, known = {}, coming = {}}
  setmetatable(self, {__index = walker})
  local goes = true
  for at = 0, one.count - 1 do
    goes = self:arrive(at, goes) and self:step(at)
  end
end

local function members_of(functions)
  local members = {}
  for name in next, functions do
    members[name] = true
  end
  return members
end

-- What there is by the rules: sets of names, and those that were found to be defined or asked about.
local function world(rules)
  local granted = sandbox.granted(rules.allow)
  local globals, modules = members_of(allowed.core), {}
  for _, names in ipairs {granted.functions, granted.modules, {mesh = true}} do
    for name in next, names do
      globals[name] = true
    end
  end
  for name, members in next, granted.modules do
    modules[name] = members
  end
  modules.string = modules.string or {}
  modules.mesh, modules["mesh.log"] = members_of(rules.mesh), members_of(rules.log)
  return {
    globals = globals, modules = modules, methods = rules.methods, grants = rules.grants,
    defined = {}, asked = {}, handled = {}, handles = {}, said = {}, problems = {},
  }
end

local function by_line(one, other)
  return one.line < other.line or one.line == other.line and one.text < other.text
end

local inspect = {}

-- Gives a list of {line, text}, from the first line on, and the names that mesh.handle is called with. `rules`:
-- allow, as in the manifest; mesh and log, tables with the names in them; methods, those that can be handled by
-- each of their names; grants, methods by service and name.
function inspect.script(text, name, rules)
  local main, wrong = load(text, "=script", "t", {})
  if not main then
    local line, what = string_match(wrong, "^script:(%d+): (.*)$")
    return {{line = tonumber(line) or 0, text = what or name .. ": a script has to be text, not bytecode"}}, {}
  end
  local script, shared = bytecode(string_dump(main)), world(rules)
  flow.survey(script)
  local outer = {[0] = not script.assigned[0] and ENVIRONMENT or nil}
  walk(shared, script, outer)
  -- Once more, now that it is known what the script defines and asks. Code that it loads, or that has _ENV in hand,
  -- may define what it likes.
  shared.lenient = shared.loads or string_find(text, "_ENV", 1, true)
  shared.handled, shared.handles, shared.said, shared.problems = {}, {}, {}, {}
  walk(shared, script, outer)
  table_sort(shared.problems, by_line)
  return shared.problems, shared.handles
end

return inspect
