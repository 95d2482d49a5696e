-- Read one rebuild.

local kept = redis.call('HGET', K .. 'c:' .. op.conversation .. ':v', op.generation)
return reply({}, { kept or nil })
