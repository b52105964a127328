-- Takes all that it can get, in one of four ways.
local ways = {
  function() while true do end end,
  function() local hoard = {} while true do hoard[#hoard + 1] = string.rep("x", 10000) .. #hoard end end,
  function() while true do mesh.log.info("x") end end,
  function() while true do pcall(mesh.call, "nobody", "/bench.Echo/Echo", {}) end end,
}
local way = 0

mesh.handle("Echo", function(request)
  if #request.body == 0 then return {} end
  way = #request.body % #ways
  ways[way + 1]()
end)
