-- Look a subject's conversation up.

local c = of_subject(op.subject)
if not c then
  return reply({})
end
return reply({ conversation = c.id, replica = replica(c), last_position = c.last })
