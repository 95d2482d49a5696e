-- Append what follows the newest known item; what lies before it is adoption's business.

local c = conversation(op.conversation)
if not c then
  return reply({ result = false })
end
for _, one in ipairs(op.named) do
  name_item(c, one[1], one[2], ARGV[one[3]])
end
local known, start = {}, nil
for n, item in ipairs(op.items) do
  known[n] = item[2] ~= nil and redis.call('HEXISTS', c.key .. ':p', item[2]) == 1
  start = start or (known[n] and n or nil)
end
if not op.whole and not start and #op.named == 0 then
  return reply({ result = false })
end
local last = c.last
for n = start or 1, #op.items do
  if not known[n] then
    last = last + 1
    enter(c, last, c.seq, op.items[n], false)
  end
end
if last > c.last then
  change(c, { last = last })
  local newest = turn_at(c.id, c.seq)
  if newest then
    change(newest, { reach = last })
  end
end
-- A run's messages are read once the run has ended and the log has all of them.
local run = c.unread and turn_at(c.id, c.unread)
for _, read in ipairs(run and op.runs or {}) do
  if read == run.response_id and run.state ~= 'delivering' then
    change(c, { unread = NONE })
  end
end
return reply({ result = true })
