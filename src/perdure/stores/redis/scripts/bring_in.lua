-- Enter a portion where the log ends behind the one before it, and nothing else is there.

local h = find_handle(op.upstream, op.handle)
local c = h and conversation(h.conversation)
local taken = false

if not c then
  if is_foreign(op.upstream, op.handle) then
    return reply({ outcome = 'foreign', conversation = '0', items = 0, taken = false })
  end
  if op.behind ~= 0 then
    return reply({ outcome = 'known', conversation = '0', items = 0, taken = false })
  end
  taken = op.subject ~= nil and of_subject(op.subject) ~= nil
  c = new_conversation({
    subject = taken and NONE or given(op.subject), upstream = op.upstream, dialect = op.dialect,
    state = 'lost', handle = op.handle,
  })
  new_handle(c, op.upstream, op.handle, { kind = KIND_OF[op.dialect], position = 0 })
  mark_handle(op.upstream, op.handle, 'lost')
  for _, fact in ipairs(op.facts) do
    redis.call('RPUSH', c.key .. ':m', fact)
  end
else
  if h.state == 'retired' or c.seq ~= 0 or c.last ~= op.behind or #op.items == 0 then
    return reply({
      outcome = 'known', conversation = c.id, items = c.last - c.first + 1, taken = false,
    })
  end
  if c.generation == 0 then -- of a later one it is known how far the replica was told
    mark(op.upstream, op.handle, 'lost')
  end
end
for n, item in ipairs(op.items) do
  enter(c, op.behind + n, nil, item, false)
end
change(c, { last = op.behind + #op.items })
return reply({
  outcome = 'entered', conversation = c.id, items = c.last - c.first + 1, taken = taken,
})
