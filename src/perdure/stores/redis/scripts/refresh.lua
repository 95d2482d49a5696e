-- Keep a conversation's or thread's own object as it was shown.

local h = find_handle(op.upstream, op.handle)
if h and (h.kind == 'conversation' or h.kind == 'thread') then
  change(h, { body = ARGV[op.body] })
end
return reply({})
