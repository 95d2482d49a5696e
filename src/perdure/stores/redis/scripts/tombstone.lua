-- Mark one item as deleted; a replica that has it under an id of its own is given up.

local c = conversation(op.conversation)
-- Note a deleted id in a hidden place in front of the log, once.
local function bury()
  local id = buried(op.provider_id)
  if not has_id(c, id) then
    local position = math.min(c.first, 1) - 1
    put_meta(c, position, {
      tokens = 0, withdrawn = false, deleted = true, at = string.format('%.6f', now), id = id,
    })
    enter_id(c, position, id)
    change(c, { first = position })
  end
end

local known = false
if c then
  for _, position in ipairs(positions_of(c, op.provider_id)) do
    local meta = meta_of(redis.call('HGET', c.key .. ':i', position))
    if not meta.deleted then
      known = true
      delete_item(c, position, meta)
      delete_elsewhere(c, position, meta)
    end
  end
end
if not c then
  return reply({ result = 'unknown' })
end
history_shrinks(c) -- also where the log does not have it: it is deleted at the provider
if not known and not op.gone then
  if has_id(c, op.provider_id) then
    return reply({ result = 'before' })
  end
  if c.adopting then -- a page that was read before may bring it yet
    bury()
  end
  return reply({ result = 'unknown' })
end
drop_snapshots(c)
if c.generation == 0 and state_of_replica(c) == 'live' and c.handle ~= op.gone then
  if c.dialect == 'threads' then -- one that is being made with the item is behind now
    bury()
  end
  return reply({ result = 'there' })
end
if state_of_replica(c) == 'live' and c.handle then
  mark(op.upstream, c.handle, 'lost')
  if c.handle ~= op.gone and c.dialect ~= 'responses' then
    enter_orphan(c.id, op.upstream, c.dialect, c.handle, 'has what was deleted')
  end
end
change(c, { generation = c.generation + 1 })
return reply({ result = 'replaced' })
