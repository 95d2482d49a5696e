-- Enter a replica that the app created, with its first items.

local taken = find_handle(op.upstream, op.handle)
local c = op.subject and of_subject(op.subject)

drop_intent(op.intent)
if taken then
  return reply({ result = 'taken' })
end
if c then
  if c.state == 'live' and c.dialect == op.dialect then
    enter_orphan(c.id, op.upstream, op.dialect, op.handle, 'the subject has a replica')
    return reply({ result = 'beaten' })
  end
  local generation = c.generation + 1
  change(c, {
    state = 'live', handle = op.handle, dialect = op.dialect, confirmed_at = now,
    generation = generation, primed = op.primed_through, doubt = NONE,
    rebuilt_with = c.adopted, unread = NONE, history_tokens = NONE, upstream = op.upstream,
  })
  new_handle(c, op.upstream, op.handle, {
    kind = KIND_OF[op.dialect], position = c.last, body = object(),
  })
  if op.recovery then
    enter_recovery(c, generation, op.recovery)
  end
  return reply({ result = 'bound' })
end
c = new_conversation({
  subject = given(op.subject), upstream = op.upstream, dialect = op.dialect, state = 'live',
  handle = op.handle, last = #op.items,
})
new_handle(c, op.upstream, op.handle, { kind = KIND_OF[op.dialect], position = 0, body = object() })
for n, item in ipairs(op.items) do
  enter(c, n, nil, item, false)
end
return reply({ result = 'bound' })
