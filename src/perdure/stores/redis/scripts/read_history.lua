-- Read a page of what was said, newest first or (after a position) oldest first, with the rebuilds of the conversation.

local c = of_subject(op.subject)
if not c then
  return reply({ items = {} })
end
-- Whether a withdrawn item is what was shown of an answer that stands in the log whole, or is being made
-- again. What was refused is there, with its state.
local function is_told_otherwise(t, position)
  local own = t.first and position >= t.first and position <= t.last
  return t.state == 'answered' or (t.state and t.state ~= 'failed' and not own)
end

local items, turns, of_turn = reader(ANY), {}, {}
local function visit(position, meta)
  if items.count() >= op.limit then
    return true
  end
  if meta.deleted then
    return false
  end
  if meta.seq and not turns[meta.seq] then
    turns[meta.seq] = turn_at(c.id, meta.seq) or {}
  end
  local t = meta.seq and turns[meta.seq] or {}
  if meta.withdrawn and is_told_otherwise(t, position) then
    return false
  end
  items.add(c, position, meta, t.name)
  of_turn[#of_turn + 1] = { t.seq or 0, t.state or 'answered' }
  return false
end

local last = op.before and op.before - 1 or math.huge
if op.after then
  up(c, op.after + 1, last, visit)
else
  down(c, last, -math.huge, visit)
end
local texts = redis.call('HVALS', c.key .. ':v')
table.insert(texts, 1, items.text())
return reply({ items = items.heads(), turns = of_turn }, texts)
