-- Give a turn its one answer: the answer, its items, and what it did to the replica.

local t = held(op.turn)
local is_run = op.handle_kind == 'run'
-- A run that was given up may have come to its end all the same.
local open = t and (t.state == 'delivering' or t.state == 'unknown'
  or (is_run and t.state == 'failed'))
if not open then
  return reply({ result = 'fenced' })
end
local c = conversation(t.conversation)
if op.dialect == 'threads' and is_run and op.primed
  and c.generation ~= op.primed then
  return reply({ result = 'replaced' })
end
local bound = op.response_id and find_handle(op.upstream, op.response_id)
-- One that was bound by this very turn, while it was underway, is ours.
if bound and not (bound.conversation == t.conversation and bound.turn_seq == t.seq) then
  return reply({ result = 'taken' })
end
local rebuilt = op.recovery and op.head
local rebuilt_with = c.rebuilt_with
if op.head and bound and not rebuilt then
  rebuilt_with = bound.rebuilt_with -- it was made in the background, so that is known
elseif op.head then
  rebuilt_with = goes_on_from(c, t, rebuilt)
end

-- A subject's replica that has answered something since lacks this answer.
local overtaken = false
if op.settles and op.head and c.subject and c.handle then
  for seq = t.seq + 1, c.seq do
    overtaken = overtaken or redis.call('HGET', c.key .. ':t:' .. seq, 'state') == 'answered'
  end
end
-- And one that lacks what was answered on another line while it was made.
local function others_answered_behind(place)
  local answered = false
  up(c, place + 1, c.last, function(_, meta)
    local other = meta.seq and meta.seq ~= t.seq and not meta.withdrawn and turn_at(c.id, meta.seq)
    answered = other and other.state == 'answered'
    return answered
  end)
  return answered
end
local overtakes = op.head and not op.settles and c.subject and others_answered_behind(t.last)
local state, handle, dialect = c.state, op.head or c.handle, op.dialect
if overtaken then
  handle, dialect = c.handle, c.dialect
elseif op.head then
  state = 'live'
end

if op.response_id then
  has_response(t, op.response_id)
end
change_turn(t, {
  state = 'answered', handed = '1', lease = NONE, status = op.status, answer = ARGV[op.body],
  content_type = op.content_type, response_id = given(op.response_id or t.response_id),
  model = given(op.model), input_tokens = given(op.input_tokens), answered_at = now,
})
if (t.epoch > 1 or op.settles) and not is_run then
  withdraw_shown(c, t)
end
if op.dialect == 'threads' and not op.response_id and not is_run and op.primed then
  stands_on_thread(c, t, op.primed)
end

-- What was answered elsewhere meanwhile is not on it: an answer that was made in the background.
local lacks = overtaken
if op.dialect == 'conversations' and c.generation == op.primed and c.generation > 0 then
  lacks = lacks or others_answered_behind(math.max(c.primed, t.last))
end

local goes_on = rebuilt_with
if overtaken then
  goes_on = c.rebuilt_with
end

local first = c.last + 1
local last = c.last + #op.items
-- What was measured on another replica, or before something was deleted, is no bound.
local measured = op.remembered or {}
if op.primed and c.generation ~= op.primed then
  measured = remembered(c) or {}
elseif c.shrunk and t.seq <= c.shrunk then
  measured = {}
end
local unread = c.unread
if op.unread then
  unread = unread or t.seq
elseif op.unread == false and unread == t.seq then
  unread = nil
end
confirm(c, {
  last = last,
  state = state,
  rebuilt_with = given(goes_on),
  handle = given(handle),
  dialect = dialect,
  generation = c.generation + (rebuilt and 1 or 0),
  primed = op.dialect ~= 'threads' and c.generation == op.primed and last or c.primed,
  open_from = still_open_from(c, t.seq),
  history_tokens = given(measured.tokens),
  history_reasoning = given(measured.reasoning_tokens),
  history_model = given(measured.model),
  history_fixed = given(measured.fixed),
  unread = given(unread),
})
for n, item in ipairs(op.items) do
  enter(c, first + n - 1, t.seq, item, false)
end
if #op.items > 0 then
  change(t, { reach = math.max(t.reach, last) })
end

for n, own in ipairs(op.own) do
  name_item(c, t.first + n - 1, own[1], ARGV[own[2]])
end

if op.response_id then
  new_handle(c, op.upstream, op.response_id, {
    kind = op.handle_kind, position = last, turn_seq = t.seq,
    rebuilt_with = given(not is_run and rebuilt_with or nil),
  })
  if bound and not is_run then -- it stood behind the question until now
    change(bound, { rebuilt_with = given(rebuilt_with), position = last })
  end
end
note_rebuild(c)
-- Nobody is to go on from an answer that was made without the history, nor from what made it.
if op.forgot then
  give_up(c.id, op.dialect, op.forgot)
  if op.head then
    mark(op.upstream, op.head, 'lost')
  end
end
if overtakes or (overtaken and dialect == 'responses') then -- others may go on from the response itself
  if c.state == 'live' then
    change(c, { state = 'lost' })
  end
elseif lacks then
  give_up(c.id, dialect, handle)
end
return reply({ result = 'done' })
