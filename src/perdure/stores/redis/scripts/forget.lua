-- Erase a subject's conversation and every branch that hangs on it; live replicas become orphans.

local root = of_subject(op.subject)
local family = { root }
local n = 1
while family[n] do
  for _, id in ipairs(redis.call('SMEMBERS', family[n].key .. ':b')) do
    family[#family + 1] = conversation(id)
  end
  n = n + 1
end
local items, turns, milestones, snapshots, orphans = 0, 0, 0, 0, {}
for _, c in ipairs(family) do
  local names = redis.call('SMEMBERS', c.key .. ':h')
  table.sort(names)
  for _, name in ipairs(names) do
    local h = redis.call('HMGET', K .. name, 'state', 'kind', 'upstream', 'handle')
    local dialect = DIALECT_OF[h[2]]
    if h[1] ~= 'retired' and dialect and not is_orphan(h[3], h[4]) then
      enter_orphan(c.id, h[3], dialect, h[4], 'forgotten')
    end
  end
  items = items + redis.call('HLEN', c.key .. ':x')
  turns = turns + c.seq
  milestones = milestones + redis.call('LLEN', c.key .. ':m')
  snapshots = snapshots + redis.call('HLEN', c.key .. ':s')
  erase(c)
end
-- Those among them that were to be deleted before.
local of_family = {}
for _, c in ipairs(family) do
  of_family[c.id] = true
end
for _, key in ipairs(redis.call('ZRANGE', K .. 'o', 0, -1)) do
  local orphan = cjson.decode(redis.call('HGET', K .. 'od', key))
  if of_family[orphan.conversation] then
    orphans[#orphans + 1] = { key, orphan.upstream, orphan.dialect, orphan.handle }
  end
end
return reply({
  conversations = #family, items = items, turns = turns, milestones = milestones,
  snapshots = snapshots, orphans = orphans,
})
