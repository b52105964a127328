-- The worker's loop: loads a script, answers the host's requests with it, and gives it the table `mesh`.
--
-- It is handed one Python function, bytes to bytes, and the names and sources of all modules: `codec` (messages),
-- `sandbox` (what the script sees), `inspect` (what is wrong with it, unrun), and their parts. The frames are those
-- of protos/mesh/v1/lua.proto; the host is trusted here, and trusts nothing that is said here.
--
-- A script's functions run only inside `guarded`, so that whatever they raise becomes a reply. Nothing that one
-- call leaves behind is seen by the next, unless the manifest says `state = "kept"`.

local give = ...
local sources = {select(2, ...)}

local error, ipairs, load, next, pairs, pcall, rawget, select, setmetatable, tonumber, tostring, type, xpcall =
  error, ipairs, load, next, pairs, pcall, rawget, select, setmetatable, tonumber, tostring, type, xpcall
local math_type, math_tointeger, math_huge = math.type, math.tointeger, math.huge
local string_match, string_sub, string_unpack = string.match, string.sub, string.unpack
local traceback, utf8_len = debug.traceback, utf8.len

local host = python.as_function(give)
python, give = nil, nil

-- Every module, loaded when it is first asked for, and handed this table in which to find the others.
local parts = setmetatable({}, {
  __index = function(parts, name)
    for index = 1, #sources, 2 do
      if sources[index] == name then
        local chunk, wrong = load(sources[index + 1], "=mesh/" .. name .. ".lua", "t")
        parts[name] = chunk and chunk(parts) or error(wrong, 0)
        return rawget(parts, name)
      end
    end
    error("no module " .. name, 0)
  end,
})
local codec, sandbox, inspect = parts.codec, parts.sandbox, parts.inspect

-- Frames --------------------------------------------------------------------------------------------------

local FRAME_DEPTH = 8
local frames = codec.load(host("?"), {max_depth = FRAME_DEPTH}).messages
local to_worker, from_worker = frames["mesh.v1.HostFrame"], frames["mesh.v1.WorkerFrame"]

-- One way, as log lines and replies go.
local function tell(frame)
  host("!" .. from_worker.encode(frame))
end

-- A frame, and the wait for what the host says to it.
local function ask(frame)
  return to_worker.decode(host("?" .. from_worker.encode(frame)))
end

local function nanoseconds()
  return (string_unpack(">I8", host("")))
end

-- Failures: what mesh.fail says, and what came of a call ---------------------------------------------------

local CODES = {
  CANCELLED = 1, UNKNOWN = 2, INVALID_ARGUMENT = 3, DEADLINE_EXCEEDED = 4, NOT_FOUND = 5, ALREADY_EXISTS = 6,
  PERMISSION_DENIED = 7, RESOURCE_EXHAUSTED = 8, FAILED_PRECONDITION = 9, ABORTED = 10, OUT_OF_RANGE = 11,
  UNIMPLEMENTED = 12, INTERNAL = 13, UNAVAILABLE = 14, DATA_LOSS = 15, UNAUTHENTICATED = 16,
}
local CODE_NAMES = {}
for name, number in pairs(CODES) do
  CODE_NAMES[number] = name
end
local MAX_TEXT = 4096

-- Those of mesh.fail: only they become the status of the call.
local said = setmetatable({}, {__mode = "k"})
local failure_meta = {
  __metatable = false,
  __name = "failure",
  __tostring = function(failure)
    local code, message = rawget(failure, "code"), rawget(failure, "message")
    if type(code) ~= "string" or type(message) ~= "string" then
      return "failure"
    end
    return code .. ": " .. message
  end,
}

local function failure(code, message, reason)
  return setmetatable({code = code, message = message, reason = reason}, failure_meta)
end

local function failed(result)
  local came = result.failure
  return failure(CODE_NAMES[came.code] or "UNKNOWN", came.message, came.reason ~= "" and came.reason or nil)
end

-- Text that can be said: no longer than that, and UTF-8, with a question mark for each byte that is not.
local function cut(text)
  local rest, kept = #text > MAX_TEXT and string_sub(text, 1, MAX_TEXT) or text, ""
  local length, bad = utf8_len(rest)
  while not length do
    kept = kept .. string_sub(rest, 1, bad - 1) .. "?"
    rest = string_sub(rest, bad + 1)
    length, bad = utf8_len(rest)
  end
  return kept .. rest
end

local function text_of(what, value, level)
  if type(value) ~= "string" then
    error(what .. " has to be a string, not " .. type(value), level + 1)
  end
  return value
end

-- The call in progress -------------------------------------------------------------------------------------

-- nil between calls. Its identity tells a function that was kept from an earlier call that its time is over.
local current = nil
-- Handlers by full method name, while the script loads and after.
local handlers = {}
local loading = false

local served, grants = {}, {}
-- Bytes of the largest message. The host ends a worker that sends a larger one.
local max_message = 0

local function in_call(what, level)
  if current == nil then
    error(what .. " works only while a call is being answered", level + 1)
  end
  return current
end

-- A message as bytes; or nil and what is wrong with it.
local function encode(type_of, value)
  local ok, payload = pcall(type_of.encode, value)
  if not ok then
    return nil, payload
  elseif #payload > max_message then
    return nil, #payload .. " bytes, and " .. max_message .. " are the limit (message)"
  end
  return payload
end

-- mesh.* ---------------------------------------------------------------------------------------------------

local api, log = {}, {}

function api.handle(method, handler)
  if not loading then
    error("mesh.handle works only while the script loads", 2)
  end
  local known = served[text_of("the method", method, 2)]
  if known == nil then
    error("no method " .. cut(method) .. " in what this service serves: see serves in service.toml", 2)
  end
  if type(handler) ~= "function" then
    error("the handler of " .. known.name .. " has to be a function, not " .. type(handler), 2)
  end
  if handlers[known.name] ~= nil then
    error(known.name .. " has a handler already", 2)
  end
  handlers[known.name] = handler
end

function api.fail(code, message)
  text_of("the code", code, 2)
  if CODES[code] == nil then
    error("no status " .. cut(code) .. ": use one of gRPC's, such as NOT_FOUND", 2)
  end
  local raised = failure(code, cut(text_of("the message", message, 2)))
  said[raised] = {code = CODES[code], message = raised.message}
  error(raised, 0)
end

function api.uint64(value)
  return codec.uint64(value)
end

function api.now()
  local call = in_call("mesh.now", 2)
  return call.now_ms + (nanoseconds() - call.began) // 1000000
end

for name, level in pairs {debug = "LEVEL_DEBUG", info = "LEVEL_INFO", warning = "LEVEL_WARNING", error = "LEVEL_ERROR"} do
  log[name] = function(text)
    tell {log = {level = level, text = cut(text_of("a log line", text, 2))}}
  end
end

local function metadata_of(given, level)
  local entries = {}
  for key, value in next, given do
    text_of("a metadata key", key, level + 1)
    entries[#entries + 1] = {key = key, value = text_of("metadata " .. cut(key), value, level + 1)}
  end
  return entries
end

local function options_of(options, level)
  if options == nil then
    return {}, 0
  end
  if type(options) ~= "table" then
    error("options have to be a table, not " .. type(options), level + 1)
  end
  for key in next, options do
    if key ~= "timeout" and key ~= "metadata" then
      local name = type(key) == "string" and cut(key) or "that is a " .. type(key)
      error("no option " .. name .. ": use timeout, metadata", level + 1)
    end
  end
  local timeout, metadata = rawget(options, "timeout"), rawget(options, "metadata")
  if timeout ~= nil and not (math_type(timeout) and timeout > 0 and timeout < math_huge) then
    error("the timeout has to be a number of seconds above 0", level + 1)
  end
  if metadata ~= nil and type(metadata) ~= "table" then
    error("metadata has to be a table, not " .. type(metadata), level + 1)
  end
  local seconds = timeout or 0
  local milliseconds = seconds == 0 and 0 or seconds > 1e6 and 1000000000 or math_tointeger(seconds * 1000 // 1) or 0
  return metadata_of(metadata or {}, level + 1), seconds > 0 and milliseconds < 1 and 1 or milliseconds
end

-- Gives the method that is called and the frame that calls it, or raises.
local function calling(what, streaming, service, name, request, options)
  in_call(what, 3)
  text_of("the service", service, 3)
  text_of("the method", name, 3)
  local granted = grants[service]
  local method = granted and granted[name]
  if method == nil then
    error(failure("PERMISSION_DENIED", "the manifest does not let this service call " .. cut(service) .. " " .. cut(name) ..
      ": name it under [calls] in service.toml", "lua/NOT_GRANTED"), 0)
  end
  if method.server_streaming ~= streaming then
    error(name .. (streaming and " has one reply: use mesh.call" or " streams replies: use mesh.stream"), 3)
  end
  local metadata, timeout_ms = options_of(options, 3)
  local payload, wrong = encode(method.input, request)
  if payload == nil then
    error("request to " .. name .. ": " .. tostring(wrong), 3)
  end
  return method, {service = service, method = name, payload = payload, metadata = metadata, timeout_ms = timeout_ms}
end

function api.call(service, name, request, options)
  local method, call = calling("mesh.call", false, service, name, request, options)
  local result = ask({call = call}).result
  if result.failure then
    error(failed(result), 0)
  end
  return method.output.decode(result.payload)
end

function api.stream(service, name, request, options)
  local method, call = calling("mesh.stream", true, service, name, request, options)
  local mine = current
  mine.streams = mine.streams + 1
  call.stream = mine.streams
  local first, over = {call = call}, false
  -- Opened at the first step, so that a stream nobody reads costs nothing.
  return function()
    if over then
      return nil
    end
    if mine ~= current then
      error("the call that this stream belongs to is over", 2)
    end
    over = true
    local result = ask(first).result
    first = {next = {stream = call.stream}}
    if result.failure then
      error(failed(result), 0)
    end
    if result.done then
      return nil
    end
    over = false
    return method.output.decode(result.payload)
  end
end

api.log = sandbox.freeze(log, "mesh.log")
local mesh = sandbox.freeze(api, "mesh")

-- Running the script ---------------------------------------------------------------------------------------

local OUT_OF_MEMORY = "not enough memory"

local function describe(raised)
  if type(raised) == "string" then
    return raised
  end
  local ok, text = pcall(tostring, raised)
  return ok and type(text) == "string" and text or "an error that is a " .. type(raised)
end

-- What a method of strings that is missing is missing for.
local function hint(text)
  local method = string_match(text, "attempt to call a nil value %(method '(%a+)'%)$")
  local known = method and sandbox.allowed.modules.string[method]
  return known and text .. ': for strings it takes "string.' .. method .. '" in allow' or text
end

local function on_error(raised)
  if said[raised] or raised == OUT_OF_MEMORY then
    return raised
  end
  return traceback(hint(describe(raised)), 2)
end

-- Gives true and what the function returned, or false and the part of a reply that says what it raised.
local function guarded(run, ...)
  local ok, value = xpcall(run, on_error, ...)
  if ok then
    return true, value
  end
  if said[value] then
    return false, {failure = said[value]}
  end
  local text = type(value) == "string" and value or "the error could not be told"
  return false, {fault = {text = cut(text), out_of_memory = value == OUT_OF_MEMORY}}
end

local function context_of(request, mine)
  local metadata = {}
  for _, entry in ipairs(request.metadata) do
    local values = metadata[entry.key]
    if values == nil then
      metadata[entry.key] = {entry.value}
    else
      values[#values + 1] = entry.value
    end
  end
  return {
    caller = request.service,
    identity = request.identity,
    instance = request.instance,
    method = request.method,
    metadata = metadata,
    remaining = function()
      local left = mine.remaining_ms / 1000 - (nanoseconds() - mine.began) / 1e9
      return left > 0 and left or 0.0
    end,
  }
end

local function sender(method, mine)
  return function(message)
    if mine ~= current then
      error("the call that this sends to is over", 2)
    end
    local payload, wrong = encode(method.output, message)
    if payload == nil then
      error("reply of " .. method.name .. ": " .. tostring(wrong), 2)
    end
    local result = ask({item = {payload = payload}}).result
    if result.failure then
      error(failed(result), 0)
    end
  end
end

local function encoded(method, reply)
  local payload, wrong = encode(method.output, reply)
  if payload then
    return {payload = payload}
  end
  local text = "reply of " .. method.name .. ": " .. tostring(wrong)
  return {fault = {text = cut(text), out_of_memory = wrong == OUT_OF_MEMORY}}
end

local function received(method, request, mine)
  return method.input.decode(request.payload), context_of(request, mine)
end

local function answered(request)
  local method = served[request.method]
  local handler = method and handlers[method.name]
  if handler == nil then
    return {failure = {code = CODES.UNIMPLEMENTED, message = cut(request.method) .. " is not served here"}}
  end
  local mine = {now_ms = request.now_ms, remaining_ms = request.remaining_ms, began = nanoseconds(), streams = 0}
  local ok, message, context = pcall(received, method, request, mine)
  if not ok then
    local code = message == OUT_OF_MEMORY and CODES.RESOURCE_EXHAUSTED or CODES.INVALID_ARGUMENT
    return {failure = {code = code, message = cut(tostring(message))}}
  end
  current = mine
  local send = method.server_streaming and sender(method, mine) or nil
  local fine, value = guarded(handler, message, context, send)
  current = nil
  if not fine then
    return value
  end
  return method.server_streaming and {done = true} or encoded(method, value)
end

local function load_script(box, start)
  local script, wrong = box.load(start.script, "=" .. start.script_name)
  if script == nil then
    return nil, wrong
  end
  return function(seed)
    handlers, loading = {}, true
    box.reset(seed)
    local fine, why = guarded(script, box.environment())
    loading = false
    if fine then
      return nil
    end
    return why.fault and why.fault.text or why.failure.message
  end
end

local function report(text)
  local line = string_match(text, "^[^\n:]*:(%d+):")
  tell {report = {problems = {{line = line and tonumber(line) or 0, text = text}}}}
end

local function serve(box, start)
  local prepare, wrong = load_script(box, start)
  wrong = wrong or prepare(start.seed)
  if wrong then
    return report(wrong)
  end
  local names = {}
  for name in pairs(handlers) do
    names[#names + 1] = name
  end
  local frame = ask {ready = {handles = names}}
  while true do
    box.reset(frame.request.seed)
    local said_all = pcall(tell, {reply = answered(frame.request)})
    if not said_all then
      tell {reply = {fault = {text = OUT_OF_MEMORY, out_of_memory = true}}}
    end
    wrong = not start.kept and prepare(frame.request.next_seed)
    if wrong then
      return report(wrong)
    end
    frame = ask {ready = {}}
  end
end

-- Start ----------------------------------------------------------------------------------------------------

-- The manifest's names resolved: the methods served, by full and, where it is the only one, short name.
local function resolve(schema, start)
  local shared = {}
  for _, service in ipairs(start.serves) do
    for short, method in pairs(schema.services[service]) do
      served[method.name] = method
      shared[short] = shared[short] == nil and method or false
    end
  end
  for short, method in pairs(shared) do
    if method then
      served[short] = method
    end
  end
  local by_name = {}
  for _, methods in pairs(schema.services) do
    for _, method in pairs(methods) do
      by_name[method.name] = method
    end
  end
  for _, grant in ipairs(start.calls) do
    local granted = {}
    for _, name in ipairs(grant.methods) do
      granted[name] = by_name[name]
    end
    grants[grant.service] = granted
  end
end

local function main()
  local start = to_worker.decode(host("?")).start
  max_message = start.max_message
  resolve(codec.load(start.descriptors, {max_depth = start.max_depth}), start)
  local box = sandbox.new {allow = start.allow, max_string = start.max_message, globals = {mesh = mesh}}
  if not start.check_only then
    return serve(box, start)
  end
  local problems, handles = inspect.script(start.script, start.script_name, {
    allow = start.allow, mesh = api, log = log, methods = served, grants = grants,
  })
  tell {report = {problems = problems, handles = handles}}
end

main()
