-- Look a handle up, with its conversation's replica and, for a response or run, its turn.

local h = find_handle(op.upstream, op.handle)
if not h then
  return reply({ foreign = is_foreign(op.upstream, op.handle) })
end
local c = conversation(h.conversation)
local t = h.turn_seq and turn_at(h.conversation, h.turn_seq)
local texts = { '', '', '' }
local status
if t then
  texts[1] = redis.call('HGET', t.key, 'request')
end
if t and t.status then
  local kept = redis.call('HMGET', t.key, 'content_type', 'answer')
  status, texts[2], texts[3] = t.status, kept[1], kept[2]
else
  local body = redis.call('HGET', h.key, 'body')
  if body then
    status, texts[2], texts[3] = 200, 'application/json', body
  end
end
local unread, unread_ended = unread_run(c)
return reply({
  conversation = c.id,
  position = h.position,
  state = state_of(c, h.state, h.rebuilt_with),
  age = text(now - h.confirmed_at),
  replica = replica(c),
  turn = t and turn_key(t) or nil,
  ended = t and t.state == 'answered' or false,
  status = status,
  replaced_by = h.replaced_by,
  first_position = c.first,
  last_position = c.last,
  unread = unread,
  unread_ended = unread_ended or false,
  remembered = remembered_from(c, h, op.handle),
}, texts)
