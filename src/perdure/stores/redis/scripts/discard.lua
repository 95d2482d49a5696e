-- Note an object that nobody wants; one that was the replica is lost.

if op.replica then
  discard_replica(op.conversation, op.dialect, op.handle)
else
  enter_orphan(
    op.conversation, op.upstream, op.dialect, op.handle, 'answered without the history'
  )
end
return reply({})
