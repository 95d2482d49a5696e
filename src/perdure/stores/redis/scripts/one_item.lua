-- Read an item by its provider's id, of one conversation or of any.

local items = reader(ANY)

local function look(id)
  local c = conversation(id)
  for _, position in ipairs(c and positions_of(c, op.provider_id) or {}) do
    local meta = meta_of(redis.call('HGET', c.key .. ':i', position))
    if not is_hidden(meta) then
      items.add(c, position, meta)
      return true
    end
  end
  return false
end

if op.conversation then
  look(op.conversation)
else
  local from = 0
  local found = false
  repeat
    local ids = redis.call('ZRANGE', K .. 'p:' .. op.provider_id, from, from + CHUNK - 1)
    for _, id in ipairs(ids) do
      found = found or look(id)
    end
    from = from + CHUNK
  until found or #ids == 0
end
return reply({ items = items.heads() }, { items.text() })
