-- Note a confirmed delete.

local key = string.format('%.0f', op.key)
local kept = redis.call('HGET', K .. 'od', key)
if kept then
  local orphan = cjson.decode(kept)
  redis.call('ZREM', K .. 'o', key)
  redis.call('ZREM', K .. 'o:' .. orphan.upstream, key)
  local name = handle_name(orphan.upstream, orphan.handle)
  if redis.call('HINCRBY', K .. 'oh', name, -1) <= 0 then
    redis.call('HDEL', K .. 'oh', name)
  end
  redis.call('HDEL', K .. 'od', key)
end
return reply({})
