-- Put older history in front of the log, at positions that run downwards.

local c = conversation(op.conversation)
if not c then
  return reply({})
end
local fresh = {}
for _, item in ipairs(op.items) do
  local id = item[2] or ''
  if id == '' or not (has_id(c, id) or has_id(c, buried(id))) then
    fresh[#fresh + 1] = item
  end
end
local first = math.min(c.first, 1)
for n, item in ipairs(fresh) do
  enter(c, first - n, nil, item, false)
end
-- A shared replica that lacks this may have what nobody has read yet, so it is only doubtful.
local lacks = c.rebuilt_with and c.rebuilt_with < c.adopted + #fresh
if lacks and c.state == 'live' and c.dialect ~= 'responses' then
  change(c, { doubt = '1' })
end
local adopting = op.given_up and 9e15 or now + op.lease_seconds
change(c, { first = first - #fresh, adopted = c.adopted + #fresh, adopting = op.done and NONE or adopting })
return reply({})
