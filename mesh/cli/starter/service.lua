-- Greets whoever calls.

mesh.handle("Hello", function(request, context)
  if request.name == "" then
    mesh.fail("INVALID_ARGUMENT", "name is empty: say whom to greet")
  end
  mesh.log.info(context.caller .. " has " .. request.name .. " greeted")
  return {text = "hello " .. request.name .. ", from " .. context.caller}
end)
