-- End a turn without an answer; keep what was shown of one.

local t = held(op.turn)
if not t or (t.state ~= 'pending' and t.state ~= 'delivering' and t.state ~= 'unknown') then
  return reply({ result = false })
end
local c = conversation(t.conversation)
change_turn(t, { state = op.state, reason = op.reason, lease = NONE })
-- Not what was answered in part, nor what a thread was given that was created meanwhile.
if op.withdrawn and not t.shown_of and not (t.dialect == 'threads' and is_given(c, t)) then
  up(c, t.first, t.reach, function(position, meta)
    if meta.seq == t.seq then
      withdraw(c, position, meta, true)
    end
  end)
end
keep_shown(c, t, op.partial, {})
if op.state == 'unknown' and t.dialect ~= 'responses' then
  change(c, { doubt = '1' })
end
return reply({ result = true })
