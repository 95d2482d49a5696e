-- Write down that a create is about to be sent.

redis.call('HSET', K .. 'id', op.intent, op.upstream)
redis.call('ZADD', K .. 'i', text(now), op.intent)
redis.call('ZADD', K .. 'i:' .. op.upstream, text(now), op.intent)
return reply({})
