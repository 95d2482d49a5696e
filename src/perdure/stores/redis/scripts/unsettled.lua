-- Read the turns whose outcome is unknown, in the order of the log.

local c = conversation(op.conversation)
local turns, seen = {}, {}
local seqs = c and redis.call('ZRANGE', c.key .. ':u', 0, -1) or {}
seqs[#seqs + 1] = op.asking
for _, seq in ipairs(seqs) do
  local t = not seen[tonumber(seq)] and c and turn_at(c.id, seq)
  if t then
    seen[t.seq] = true
    turns[#turns + 1] = t
  end
end
if #turns == 0 then
  return reply({ turns = {} })
end
table.sort(turns, function(one, other)
  return one.first < other.first or (one.first == other.first and one.seq < other.seq)
end)

local listed, texts = {}, {}
for n, t in ipairs(turns) do
  local items = reader(ANY)
  up(c, t.first, t.last, function(position, meta)
    items.add(c, position, meta)
  end)
  listed[n] = { turn = turn_key(t), kind = t.kind, items = items.heads() }
  texts[#texts + 1] = redis.call('HGET', t.key, 'request')
  texts[#texts + 1] = items.text()
end
local newest
down(c, turns[1].first - 1, -math.huge, function(_, meta)
  newest = not meta.deleted and meta.id or nil
  return newest ~= nil
end)
local whole_log = c.generation == 0 and not c.adopting
return reply({
  turns = listed,
  after = newest,
  skip = newest == nil and whole_log and turns[1].first - 1 or nil,
}, texts)
