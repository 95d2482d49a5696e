-- List the conversations that have a subject: there is no list of the others.

local ids = {}
if op.subject then
  ids = { redis.call('HGET', K .. 's', op.subject) or nil }
else
  local after = '(' .. single_member({ id = op.after_conversation })
  for n, member in ipairs(redis.call('ZRANGEBYLEX', K .. 'sl', after, '+', 'LIMIT', 0, op.limit)) do
    ids[n] = string.gsub(member, '^0+', '')
  end
end
local listed = {}
for _, id in ipairs(ids) do
  local c = conversation(id)
  if c and tonumber(id) > tonumber(op.after_conversation) then
    listed[#listed + 1] = {
      c.id, c.subject, c.upstream, c.dialect, c.handle or cjson.null, c.state, c.last, c.created_at,
    }
  end
end
return reply({ listed = listed })
