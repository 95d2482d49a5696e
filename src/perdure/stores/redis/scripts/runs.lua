-- Read runs as they were last seen, by the order of their turns.

local c = conversation(op.conversation)
local runs, bodies = {}, {}

local function visit(seq)
  local t = turn_at(c.id, seq)
  local h = t and t.response_id and find_handle(op.upstream, t.response_id)
  if h and h.kind == 'run' and h.conversation == c.id then
    runs[#runs + 1] = { t.response_id, t.state == 'answered' }
    local kept = t.status and redis.call('HGET', t.key, 'answer')
    bodies[#bodies + 1] = kept or redis.call('HGET', h.key, 'body') or ''
  end
  return #runs == op.limit
end

if c then
  local oldest, newest = (op.above or 0) + 1, math.min((op.below or math.huge) - 1, c.seq)
  if op.newest_first then
    for seq = newest, oldest, -1 do
      if visit(seq) then
        break
      end
    end
  else
    for seq = oldest, newest do
      if visit(seq) then
        break
      end
    end
  end
end
return reply({ runs = runs }, bodies)
