-- End the doubt about a replica, unless another turn's outcome is unknown.

local c = conversation(op.conversation)
if c and c.generation == op.generation and not (c.rebuilt_with and c.rebuilt_with < c.adopted)
  and redis.call('ZCARD', c.key .. ':u') == 0 then
  change(c, { doubt = NONE })
end
return reply({})
