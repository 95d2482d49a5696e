-- Note the id of work that the provider goes on with; the lease is free, the turn still open.

local t = held(op.turn)
if not t then
  return reply({ result = false })
end
local c = conversation(t.conversation)
local is_run = string.sub(op.response_id, 1, 4) == 'run_'
local former = t.former_ids
if op.replaces then
  former = (former and former .. ' ' or '') .. op.replaces
end
has_response(t, op.response_id)
change_turn(t, {
  former_ids = given(former), response_id = op.response_id, lease = NONE, handed = '1',
  state = t.state == 'unknown' and 'delivering' or t.state,
})
change(c, {
  open_from = still_open_from(c, t.seq),
  unread = given(is_run and t.seq or c.unread),
})
new_handle(c, op.upstream, op.response_id, {
  kind = is_run and 'run' or 'response', position = c.last, turn_seq = t.seq, body = ARGV[op.body],
})
if op.replaces then
  local h = find_handle(op.upstream, op.replaces)
  if h then
    change(h, { replaced_by = op.response_id })
  end
end
return reply({ result = true })
