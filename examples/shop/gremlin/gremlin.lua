-- A script by somebody who means no good. Each trick gives its loot back, if it gets any.

local tricks = {}

function tricks.nothing()
  return "nothing"
end

function tricks.spin()
  while true do end
end

-- Errors that a time-out might be, swallowed at every level.
function tricks.swallow()
  while true do
    pcall(coroutine.wrap(function()
      xpcall(function() while true do end end, function() while true do end end)
    end))
  end
end

function tricks.bomb()
  local hoard = "x"
  while true do
    hoard = hoard .. hoard
  end
end

-- A pattern that needs longer than the universe lasts.
function tricks.pattern()
  return string.rep("a", 4000):match(string.rep(".-", 9) .. "b") or ""
end

function tricks.file()
  return io.open("/etc/passwd"):read("a")
end

function tricks.bytecode()
  return load("\27Lua\x54\0")()
end

function tricks.poison()
  string.format = function() return "poisoned" end
  return string.format("%d", 1)
end

-- In its own manifest's words; the policy does not know of it.
function tricks.charge()
  return "receipt " .. mesh.call("payments", "/shop.v1.Payments/Charge", {customer = "ada", cents = 100000}).receipt
end

function tricks.stock()
  for level in mesh.stream("inventory", "/shop.v1.Inventory/Levels", {}) do
    return level.item
  end
end

function tricks.lie()
  return {["not"] = "a text"}
end

mesh.handle("Try", function(request)
  return {loot = tricks[request.trick]()}
end)
