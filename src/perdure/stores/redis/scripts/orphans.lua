-- Read what is still to be deleted, oldest first; a conversation only some time after it was given up.

local PAGE = 100
local WAS_USED = {
  ['given up'] = true, ['answered without the history'] = true, ['has what was deleted'] = true,
}
local listed, settled = {}, now - op.settled_seconds
local from, keys = 0, nil
repeat
  keys = redis.call('ZRANGE', K .. 'o:' .. op.upstream, from, from + PAGE - 1)
  for _, key in ipairs(keys) do
    local orphan = cjson.decode(redis.call('HGET', K .. 'od', key))
    local used = orphan.dialect == 'conversations' and WAS_USED[orphan.reason]
    local ready = not used or tonumber(orphan.created_at) <= settled
    if ready and #listed < op.limit then
      listed[#listed + 1] = { key, orphan.upstream, orphan.dialect, orphan.handle }
    end
  end
  from = from + PAGE
until #keys < PAGE or #listed == op.limit
return reply({ orphans = listed })
