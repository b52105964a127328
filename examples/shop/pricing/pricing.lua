-- What things cost: the list price, and a fifth more where fewer than ten are left.

local PRICES = {mug = 900, poster = 1500, piano = 900000}
local FEW, SURCHARGE = 10, 5

local function left(item)
  for level in mesh.stream("inventory", "/shop.v1.Inventory/Levels", {}) do
    if level.item == item then
      return level.left
    end
  end
  return 0
end

mesh.handle("Price", function(request, context)
  local price = PRICES[request.item]
  if not price then
    mesh.fail("NOT_FOUND", string.format("the shop has no %q", request.item))
  end
  local cents, scarce = price * request.quantity, left(request.item) < FEW
  if scarce then
    cents = cents + cents // SURCHARGE
  end
  mesh.log.info(string.format("%s asked for %d of %s", context.caller, request.quantity, request.item))
  return {cents = cents, scarce = scarce}
end)
