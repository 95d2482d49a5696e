-- Read what is still to be deleted, oldest first; a conversation only some time after it was given up.

local listed, settled = {}, now - op.settled_seconds
for _, key in ipairs(redis.call('ZRANGE', K .. 'o:' .. op.upstream, 0, -1)) do
  if #listed == op.limit then
    break
  end
  local orphan = cjson.decode(redis.call('HGET', K .. 'od', key))
  if orphan.dialect ~= 'conversations' or tonumber(orphan.created_at) <= settled then
    listed[#listed + 1] = { key, orphan.upstream, orphan.dialect, orphan.handle }
  end
end
return reply({ orphans = listed })
