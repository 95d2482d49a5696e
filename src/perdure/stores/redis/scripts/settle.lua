-- End the doubt about a replica, unless another turn's outcome is unknown.

local c = conversation(op.conversation)
if c and c.generation == op.generation and not (c.rebuilt_from and c.rebuilt_from > c.first)
  and redis.call('ZCARD', c.key .. ':u') == 0 then
  change(c, { doubt = NONE })
end
return reply({})
