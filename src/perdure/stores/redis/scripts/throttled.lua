-- Read for how long an upstream still wants to be left alone.

local ends = redis.call('HGET', K .. 'q', op.upstream)
return reply({ seconds = text(math.max(0, ends and tonumber(ends) - now or 0)) })
