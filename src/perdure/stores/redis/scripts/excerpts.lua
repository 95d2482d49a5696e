-- Read the items in ranges of positions, the newest first or the oldest.

local items = reader(op.wire)
local places, id, through = {}, op.conversation, op.through
while id do
  local c = conversation(id)
  if not c then -- forgotten since
    break
  end
  places[#places + 1] = { c, through }
  through = math.min(through, c.origin_position or through)
  id = c.origin
end

local function visit(c)
  return function(position, meta)
    if items.count() >= op.limit then
      return true
    end
    if not is_hidden(meta) then
      items.add(c, position, meta)
    end
    return false
  end
end

for n = 1, #places do
  local c, last = unpack(places[op.oldest and #places + 1 - n or n])
  for m = 1, #op.ranges do
    local range = op.ranges[op.oldest and m or #op.ranges + 1 - m]
    if op.oldest then
      up(c, range[1], math.min(range[2], last), visit(c))
    else
      down(c, math.min(range[2], last), range[1], visit(c))
    end
  end
end
return reply({ items = items.heads() }, { items.text() })
