-- Note an object that nobody wants.

enter_orphan(
  op.conversation, op.upstream, op.dialect, op.handle, 'answered without the history'
)
return reply({})
