-- Note a confirmed delete.

local key = string.format('%.0f', op.key)
local kept = redis.call('HGET', K .. 'od', key)
if kept then
  redis.call('ZREM', K .. 'o', key)
  redis.call('ZREM', K .. 'o:' .. cjson.decode(kept).upstream, key)
  redis.call('HDEL', K .. 'od', key)
end
return reply({})
