-- Note that a handle is dead.

mark(op.upstream, op.handle, 'lost')
return reply({})
