-- Note the id of work that the provider goes on with; the lease is free, the turn still open.

local t = held(op.turn)
local leased = t and t.lease and t.lease > now
local mine = t and t.state == 'delivering' and (leased or t.response_id == op.response_id)
-- Somebody who has the turn may be starting the run again.
local busy = (op.outputs_of or op.refused) and leased
local taken = t and op.refused and (op.refused ~= t.outputs_of or t.outputs_again)
local others = t and op.unasked and t.outputs_of and op.outputs_of
  and op.outputs_of ~= t.outputs_of
if busy or taken or others or not mine and not (t and t.state == 'unknown') then
  return reply({ result = false })
end
local c = conversation(t.conversation)
local is_run = string.sub(op.response_id, 1, 4) == 'run_'
local known_as, former = t.response_id, t.former_ids
local before = known_as ~= op.response_id and known_as or nil
if before then
  former = (former and former .. ' ' or '') .. before
end
if not known_as and op.generation then
  stands_on_thread(c, t, op.generation)
end
keep_shown(c, t, op.partial, op.partial_of)
has_response(t, op.response_id)
local given_again = op.outputs_of and op.outputs_of == t.outputs_of
local given_now = op.outputs_of and not given_again
change_turn(t, {
  former_ids = given(former), response_id = op.response_id, lease = NONE, handed = '1',
  state = 'delivering', outputs_of = given(not op.refused and (op.outputs_of or t.outputs_of) or nil),
  outputs_at = given(given_now and c.last or t.outputs_at),
  outputs_unread = given(
    not given_now and t.outputs_unread or given_now and c.unread == t.seq and '1' or nil
  ),
  outputs_again = given(given_again and '1' or not given_now and t.outputs_again or nil),
})
local unread = c.unread
if is_run and c.generation == op.generation then
  if known_as ~= op.response_id then
    unread = t.seq
  elseif op.outputs_of then
    unread = math.max(unread or t.seq, t.seq)
  end
end
if op.refused and not t.outputs_unread and unread == t.seq then
  unread = nil -- it says no more
end
change(c, {
  open_from = still_open_from(c, t.seq),
  unread = given(unread),
})
local shown = find_handle(op.upstream, op.response_id)
if not shown then
  local chain = t.dialect == 'responses'
  local rebuilt_with = chain and goes_on_from(c, t, op.recovery) or not chain and c.rebuilt_with
  new_handle(c, op.upstream, op.response_id, {
    kind = is_run and 'run' or 'response', position = c.last, turn_seq = t.seq,
    body = ARGV[op.body], rebuilt_with = given(not is_run and rebuilt_with or nil),
  })
  if not is_run and (t.dialect == 'conversations' or c.subject) then
    change(c, { unread = t.seq })
  end
  if op.recovery and not is_run then
    change(c, { generation = c.generation + (chain and 1 or 0), history_tokens = NONE })
    note_rebuild(c)
  end
elseif shown.conversation == c.id and shown.turn_seq == t.seq
  and not (op.waits_for and op.waits_for == t.outputs_of) then
  change(shown, { body = ARGV[op.body] })
end
local h = before and find_handle(op.upstream, before)
if h then
  change(h, { replaced_by = op.response_id })
end
return reply({ result = true })
