-- Put off the end of leases.

for _, key in ipairs(op.turns) do
  local t = held(key)
  if t and t.state == 'delivering' and t.lease then
    change_turn(t, { lease = now + op.lease_seconds })
  end
end
return reply({})
