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
-- A replica that was rebuilt before older history was known is to be replaced. A shared one may have
-- what nobody has read yet, so it is only doubtful.
if #fresh > 0 and c.generation > 0 and c.state == 'live' then
  if c.dialect == 'responses' then
    mark(c.upstream, c.handle, 'lost')
  else
    change(c, { doubt = '1', partial = '1' })
  end
end
local adopting = op.given_up and 9e15 or now + op.lease_seconds
change(c, { first = first - #fresh, adopting = op.done and NONE or adopting })
return reply({})
