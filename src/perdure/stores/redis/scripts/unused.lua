-- Erase conversations of one turn that nobody continued, those first that are unused for longest.
-- One that waits for its answer, or whose outcome is unknown, is passed over.

local before = '(' .. text(now - op.idle_seconds)
local key = K .. 'a:' .. op.upstream
local erased, passed = 0, 0
while erased < op.limit do
  local members = redis.call('ZRANGEBYSCORE', key, '-inf', before, 'LIMIT', passed, CHUNK)
  if #members == 0 then
    break
  end
  for _, member in ipairs(members) do
    local c = conversation(string.format('%.0f', tonumber(member)))
    local t = turn_at(c.id, 1)
    if erased < op.limit and c.dialect == 'responses'
      and (t.state == 'answered' or t.state == 'failed') then
      erase(c)
      erased = erased + 1
    else
      passed = passed + 1
    end
  end
end
return reply({ result = erased })
