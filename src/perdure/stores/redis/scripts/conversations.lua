-- List the conversations that have a subject: there is no list of the others.

local found = {}
for _, id in ipairs(redis.call('HVALS', K .. 's')) do
  local c = conversation(id)
  if c and tonumber(id) > tonumber(op.after_conversation) and (not op.subject or c.subject == op.subject) then
    found[#found + 1] = c
  end
end
table.sort(found, function(one, other)
  return tonumber(one.id) < tonumber(other.id)
end)
local listed = {}
for n = 1, math.min(#found, op.limit) do
  local c = found[n]
  listed[n] = {
    c.id, c.subject, c.upstream, c.dialect, c.handle or cjson.null, c.state, c.last, c.created_at,
  }
end
return reply({ listed = listed })
