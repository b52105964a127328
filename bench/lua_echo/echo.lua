-- Gives back what it got.
mesh.handle("Echo", function(request)
  return {body = request.body, rows = request.rows}
end)
