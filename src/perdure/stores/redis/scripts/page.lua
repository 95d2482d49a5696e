-- Read one page in either direction, from a cursor on.

local c = conversation(op.conversation)
if not c then
  return reply({ items = {}, cursor_found = true })
end
local low, high = op.above or -math.huge, op.below or math.huge
if op.after then
  local position = positions_of(c, op.after)[1]
  if not position then
    return reply({ items = {}, cursor_found = false })
  elseif op.newest_first then
    high = math.min(high, position)
  else
    low = math.max(low, position)
  end
end

local items, more = reader(ANY), false
local turns = {}
local wanted = {}
if op.turn_response then
  local from, to = math.huge, -math.huge
  local seqs = redis.call('HGET', c.key .. ':r', op.turn_response)
  for seq in string.gmatch(seqs or '', '%S+') do
    local t = turn_at(c.id, seq)
    if t.response_id == op.turn_response then
      wanted[t.seq] = true
      from, to = math.min(from, t.first), math.max(to, op.inputs and t.last or t.reach)
    end
  end
  low, high = math.max(low, from - 1), math.min(high, to + 1)
end

local function visit(position, meta)
  if is_hidden(meta) or (op.turn_response and not wanted[meta.seq]) then
    return false
  end
  if items.count() == op.limit then
    more = true
    return true
  end
  if meta.seq and not turns[meta.seq] then
    turns[meta.seq] = turn_at(c.id, meta.seq) or {}
  end
  items.add(c, position, meta, meta.seq and turns[meta.seq].name)
  return false
end

if op.newest_first then
  down(c, high - 1, low + 1, visit)
else
  up(c, low + 1, high - 1, visit)
end
return reply({ items = items.heads(), more = more, cursor_found = true }, { items.text() })
