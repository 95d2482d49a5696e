-- Take a handle out of use; a response's own output goes with it.

local h = find_handle(op.upstream, op.handle)
if not h then
  return reply({})
end
local c = conversation(h.conversation)
mark(op.upstream, op.handle, 'retired')
if h.kind == 'response' and h.turn_seq then
  local t = turn_at(h.conversation, h.turn_seq)
  up(c, t.last + 1, t.reach, function(position, meta)
    if meta.seq == t.seq and meta.id then
      delete_item(c, position, meta)
    end
  end)
  drop_snapshots(c)
elseif h.kind ~= 'response' and c.handle and c.handle ~= op.handle then
  if state_of_replica(c) == 'live' then -- nobody could name it to delete it again if that fails now
    enter_orphan(c.id, op.upstream, c.dialect, c.handle, 'given up')
  end
  mark(op.upstream, c.handle, 'retired')
end
return reply({})
