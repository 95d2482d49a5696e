-- Note an object that nobody wants; one that was the replica is lost.

if op.replica then
  local h = find_handle(op.upstream, op.handle)
  if not h or state_of(conversation(h.conversation), h.state, h.rebuilt_with) ~= 'live' then
    return reply({})
  end
  mark(op.upstream, op.handle, 'lost')
end
enter_orphan(
  op.conversation, op.upstream, op.dialect, op.handle, 'answered without the history'
)
return reply({})
