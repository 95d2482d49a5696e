-- Read the newest items that fit the budget, through the origins of a branch. What is older is
-- counted, not read.

local left, older, complete = op.budget_tokens, 0, true
local through = op.through
local items = reader(op.wire)
local id = op.conversation
while id do
  local c = conversation(id)
  if not c then -- forgotten since
    break
  end
  if older > 0 then
    older = older + visible_before(c, through + 1)
  else
    down(c, through, -math.huge, function(position, meta)
      if is_hidden(meta) then
        return false
      end
      left = left - meta.tokens
      if left < 0 and items.count() > 0 then
        older = older + visible_before(c, position + 1)
        return true
      end
      items.add(c, position, meta)
      return false
    end)
  end
  complete = complete and not c.adopting
  through = math.min(through, c.origin_position or through)
  id = c.origin
end
local covered, snapshot
if older > 0 then
  covered, snapshot = newest_snapshot(op.conversation, op.through)
end
return reply({
  items = items.heads(),
  covered = covered,
  older = older,
  complete = complete,
  milestones = redis.call('LRANGE', K .. 'c:' .. op.conversation .. ':m', 0, -1),
}, { items.text(), snapshot or '' })
