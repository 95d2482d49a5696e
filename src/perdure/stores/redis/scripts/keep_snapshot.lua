-- Keep a summary, unless what it was made from has changed.

local c = conversation(op.conversation)
if not c then
  return reply({})
end
local new, stand = op.snapshot, 0
local id, through = c.id, new.through
while id do
  local here = conversation(id)
  if not here then
    break
  end
  stand = stand + visible_before(here, through + 1)
  through = math.min(through, here.origin_position or through)
  id = here.origin
end
if stand == new.items then
  redis.call('HSET', c.key .. ':s', new.through,
    cjson.encode({ new.items, new.maker, text(now) }) .. '\n' .. ARGV[new.text])
end
return reply({})
