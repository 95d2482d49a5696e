-- End a turn without an answer; keep what was shown of one.

local t = held(op.turn)
if not t or (t.state ~= 'pending' and t.state ~= 'delivering' and t.state ~= 'unknown') then
  return reply({ result = false })
end
local c = conversation(t.conversation)
change_turn(t, { state = op.state, reason = op.reason, lease = NONE })
if op.withdrawn then
  up(c, t.first, t.reach, function(position, meta)
    if meta.seq == t.seq then
      withdraw(c, position, meta, true)
    end
  end)
end
if #op.partial > 0 then
  withdraw_shown(c, t)
  local first, last = c.last + 1, c.last + #op.partial
  for n, item in ipairs(op.partial) do
    enter(c, first + n - 1, t.seq, item, false)
  end
  change(t, { shown_from = first, shown_to = last, reach = last })
  change(c, { last = last })
end
if op.state == 'unknown' and t.dialect ~= 'responses' then
  change(c, { doubt = '1' })
end
return reply({ result = true })
