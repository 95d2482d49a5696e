-- Keep a conversation's or thread's own object, or a run, as it was shown.

local h = find_handle(op.upstream, op.handle)
if h and (h.kind == 'conversation' or h.kind == 'thread') then
  change(h, { body = ARGV[op.body] })
elseif h and h.kind == 'run' then
  change(h, { body = ARGV[op.body] })
  local t = h.turn_seq and turn_at(h.conversation, h.turn_seq)
  if t and t.status and t.response_id == op.handle then
    change(t, { answer = ARGV[op.body] })
  end
end
return reply({})
