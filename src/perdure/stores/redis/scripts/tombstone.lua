-- Mark one item as deleted.

local c = conversation(op.conversation)
if c then
  for _, position in ipairs(positions_of(c, op.provider_id)) do
    delete_item(c, position, meta_of(redis.call('HGET', c.key .. ':i', position)))
  end
  change(c, { history_tokens = NONE })
  drop_snapshots(c)
end
return reply({})
