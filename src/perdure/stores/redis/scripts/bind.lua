-- Make a created object the next generation's replica, if nobody was faster.

local c = conversation(op.conversation)
local taken = find_handle(op.upstream, op.handle)
local t = op.turn and held(op.turn)
local fenced = op.turn and not (t and t.state == 'delivering')

drop_intent(op.intent)
if taken then
  return reply({ result = 'taken' })
end
if fenced then
  enter_orphan(
    op.conversation, op.upstream, op.dialect, op.handle, 'another worker has the turn'
  )
  return reply({ result = 'fenced' })
end
-- Whether the log has more than a thread was given and the turn brings.
local behind = c and op.dialect == 'threads' and op.primed_from and c.first < op.primed_from
if c and not behind and op.dialect == 'threads' then
  up(c, op.primed_through + 1, c.last, function(_, meta)
    behind = not is_hidden(meta) and meta.seq ~= (op.turn and op.turn.seq or 0)
    return behind
  end)
end
if behind then
  enter_orphan(op.conversation, op.upstream, op.dialect, op.handle, 'the log had gone on')
  return reply({ result = 'behind' })
end
local deleted = c and c.state == 'retired' and c.dialect ~= 'responses'
local stands = c and c.generation == op.generation and not deleted
if not stands or (op.doubtful and not c.doubt) then
  enter_orphan(op.conversation, op.upstream, op.dialect, op.handle, 'another worker was faster')
  return reply({ result = 'beaten' })
end
confirm(c, {
  state = 'live', handle = op.handle, generation = c.generation + 1, primed = op.primed_through,
  doubt = NONE, rebuilt_with = c.adopted, unread = NONE, history_tokens = NONE, dialect = op.dialect,
})
new_handle(c, op.upstream, op.handle, {
  kind = KIND_OF[op.dialect], position = c.last, body = object(),
})
-- What nobody came back for before its replica was thrown away; the question stays in the log.
for _, seq in ipairs(redis.call('ZRANGE', c.key .. ':u', 0, -1)) do
  local left = turn_at(c.id, seq)
  change_turn(left, { state = 'failed', reason = 'abandoned', epoch = left.epoch + 1 })
end
if op.lost then
  mark_handle(op.upstream, op.lost, 'lost')
  if op.orphan then
    enter_orphan(c.id, op.upstream, op.dialect, op.lost, 'given up')
  end
end
if op.recovery then
  enter_recovery(c, op.recovery.generation, op.recovery)
end
return reply({ result = 'bound' })
