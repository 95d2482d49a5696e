-- Note until when an upstream wants to be left alone; the later end counts.

local ends = now + op.seconds
local before = redis.call('HGET', K .. 'q', op.upstream)
if not before or tonumber(before) < ends then
  redis.call('HSET', K .. 'q', op.upstream, text(ends))
end
return reply({})
