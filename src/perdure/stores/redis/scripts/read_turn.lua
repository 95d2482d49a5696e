-- Look a turn up, with the rebuilds of its conversation.

local t = turn_named(op.turn_id)
if not t then
  return reply({})
end
return reply(
  { seq = t.seq, state = t.state, response_id = t.response_id },
  redis.call('HVALS', K .. 'c:' .. t.conversation .. ':v')
)
