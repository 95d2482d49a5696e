-- Read what is still to be deleted, oldest first.

local listed = {}
for n, key in ipairs(redis.call('ZRANGE', K .. 'o:' .. op.upstream, 0, op.limit - 1)) do
  local orphan = cjson.decode(redis.call('HGET', K .. 'od', key))
  listed[n] = { key, orphan.upstream, orphan.dialect, orphan.handle }
end
return reply({ orphans = listed })
