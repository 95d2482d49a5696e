-- Count what is still to be deleted. A create that was begun a moment ago may yet be entered.

local of = op.upstream and ':' .. op.upstream or ''
return reply({
  orphans = redis.call('ZCARD', K .. 'o' .. of),
  creates = redis.call('ZCOUNT', K .. 'i' .. of, '-inf', '(' .. text(now - 600)),
})
