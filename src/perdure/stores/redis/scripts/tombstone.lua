-- Mark one item as deleted; a replica that has it under an id of its own is given up.

local c = conversation(op.conversation)
local known = false
if c then
  for _, position in ipairs(positions_of(c, op.provider_id)) do
    local meta = meta_of(redis.call('HGET', c.key .. ':i', position))
    known = known or not meta.deleted
    delete_item(c, position, meta)
  end
end
if not c then
  return reply({ result = 'unknown' })
end
if not known and not op.gone then
  -- Noted, in a hidden place: a page of older history may yet bring it.
  local id = buried(op.provider_id)
  if c.adopting and not has_id(c, id) then
    local position = math.min(c.first, 1) - 1
    put_meta(c, position, {
      tokens = 0, withdrawn = false, deleted = true, at = string.format('%.6f', now),
      id = id,
    })
    redis.call('HSET', c.key .. ':x', position, '["",null,null]\n')
    enter_id(c, position, id)
    change(c, { first = position })
  end
  return reply({ result = 'unknown' })
end
change(c, { history_tokens = NONE })
drop_snapshots(c)
if c.generation == 0 and c.state == 'live' and c.handle ~= op.gone then
  return reply({ result = 'there' })
end
if c.state == 'live' and c.handle then
  mark(op.upstream, c.handle, 'lost')
  if c.handle ~= op.gone and c.dialect ~= 'responses' then
    enter_orphan(c.id, op.upstream, c.dialect, c.handle, 'has what was deleted')
  end
end
change(c, { generation = c.generation + 1 })
return reply({ result = 'replaced' })
