-- Append what follows the newest known item; what lies before it is adoption's business.

local c = conversation(op.conversation)
if not c then
  return reply({ result = 'apart' })
end
if op.generation and op.generation ~= c.generation then
  return reply({ result = 'replaced' })
end

-- Whether a run is being started, or may have been, of which it is not known under which id.
local function has_run_of_unknown_id()
  for _, t in ipairs(c.open_from and open_turns(c, c.open_from) or {}) do
    if t.kind == 'run' and t.state == 'delivering' then
      return true
    end
  end
  for _, seq in ipairs(redis.call('ZRANGE', c.key .. ':u', 0, -1)) do
    if turn_at(c.id, seq).kind == 'run' then
      return true
    end
  end
  return false
end

local since = turn_of_run(c, op.since_outputs)
if since and c.unread == since.seq and since.outputs_unread then
  return reply({ result = 'apart' })
end
for _, one in ipairs(op.named) do
  name_item(c, one[1], one[2], ARGV[one[3]])
end
local known, turns, start, of_run = {}, {}, #op.named > 0 and op.older + 1 or nil, nil
for n, item in ipairs(op.items) do
  known[n] = item[2] ~= nil and has_id(c, item[2])
  turns[n] = turn_of_run(c, op.said_by[n])
  if known[n] then
    start = math.min(start or n, n)
  end
  of_run = of_run or (turns[n] and n or nil)
end
if not op.whole and not start then
  return reply({ result = 'apart' })
end
if not start and c.adopting and #op.items > 0 then
  -- Where older history is still to be adopted, only what a run of this log said tells it from what
  -- follows the log.
  if not of_run then
    return reply({ result = 'apart' })
  end
  start = of_run
end
local last, everything = c.last, true
for n = 1, #op.items do
  local id, t = op.items[n][2], turns[n]
  if (n >= (start or 1) or t) and not known[n] and not (id and has_id(c, buried(id))) then
    local run_id = op.said_by[n]
    local taken = t and t.state == 'delivering' and t.lease and t.lease > now
    if taken or (not t and run_id and has_run_of_unknown_id()) then
      everything = false
      break
    elseif t then
      withdraw_shown(c, t, id)
    end
    last = last + 1
    enter(c, last, t and t.seq, op.items[n], false)
    if t then
      change(t, { reach = math.max(t.reach, last) })
    end
  end
end
if last > c.last then
  change(c, { last = last })
end
local read = everything and turn_of_run(c, op.read)
if read and c.unread == read.seq then
  change(c, { unread = NONE })
end
return reply({ result = 'done' })
