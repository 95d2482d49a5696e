-- Take up an adoption that nobody is at.

local c = conversation(op.conversation)
if not c or not c.adopting or c.adopting > now then
  return reply({})
end
change(c, { adopting = now + op.lease_seconds })
local first = turn_at(c.id, 1)
return reply({ result = first and first.handle or nil })
