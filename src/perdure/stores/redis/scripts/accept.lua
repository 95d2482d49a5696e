-- Find or open a turn's place, journal its items, take it if it is first in line.

local shared = op.dialect ~= 'responses' or op.subject ~= nil

local function must_wait(c, seq)
  for _, t in ipairs(open_turns(c, c.open_from or seq)) do
    if t.seq ~= seq and t.lease > now
      and (t.state == 'delivering' or (t.state == 'pending' and t.seq < seq)) then
      return true
    end
  end
  return false
end

-- Whether a user's chain lacks what the log has before a turn: one that got no answer is no link of
-- it, but has been said.
local function lacks_unanswered(c, known, through)
  local is_chain = known.dialect == 'responses' and known.state == 'live' and known.handle
  if not op.subject or not is_chain then
    return false
  end
  local head, lacks = find_handle(op.upstream, known.handle), false
  if head and head.conversation == c.id and head.position < through then
    up(c, head.position + 1, through, function(_, meta)
      lacks = not is_hidden(meta)
      return lacks
    end)
  end
  return lacks
end

-- The run whose messages come before a turn on a thread, and whether it has ended; or the response
-- that is made in the background, in a conversation or for a subject.
local function unread(c)
  local chain = op.dialect == 'responses'
  if shared and c.dialect == op.dialect and (c.state == 'live' or chain) then
    local run_id, ended = unread_run(c)
    local read = ended and op.dialect ~= 'threads'
    if run_id ~= op.lost and not read then
      return run_id, ended
    end
  end
end

local function comes_first(c, unread_id, ended)
  return reply({
    outcome = 'unread', conversation = c.id, replica = replica(c), unread = unread_id, ended = ended,
  })
end

-- That the response comes first that a chain goes on from, where it is still being made.
local function in_the_background(c, h)
  local t = h.turn_seq and op.looked ~= op.handle and turn_at(c.id, h.turn_seq)
  if t and t.state == 'delivering' and not t.lease
    and redis.call('HEXISTS', h.key, 'body') == 1 then
    return comes_first(c, op.handle, false)
  end
end

-- That the messages of a run come before a turn on a thread, unless it was looked for just now.
local function unread_first(c)
  local run_id, ended = unread(c)
  if run_id and (ended or run_id ~= op.looked) then
    return comes_first(c, run_id, ended)
  end
end

-- What has to be done before a turn that need not wait is delivered. On a thread what a run has said
-- comes first. Turns that were left behind are given up; what they make of a replica that is shared
-- has to be settled. A response cannot be changed by them: the chain goes on from the one that is
-- known.
local function doubt(c, seq)
  if must_wait(c, seq) then
    return nil
  end
  local first = unread_first(c)
  if first then
    return first
  end
  for _, t in ipairs(open_turns(c, c.open_from or seq)) do
    if t.lease <= now then
      if t.state == 'pending' and t.seq < seq then
        change_turn(t, { state = 'failed', reason = 'abandoned', epoch = t.epoch + 1, lease = NONE })
        restore_items(c, t.first, t.last)
      elseif t.state == 'delivering' and t.seq ~= seq then
        change_turn(t, { state = 'unknown', reason = 'crashed', epoch = t.epoch + 1, lease = NONE })
        if op.dialect ~= 'responses' then
          change(c, { doubt = '1' })
        end
      end
    end
  end
  if op.dialect == 'responses' or not is_doubtful(c) then
    return nil
  end
  return reply({ outcome = 'unsettled', conversation = c.id, through = c.last, replica = replica(c) })
end

-- The same turn again ------------------------------------------------------------------------

local function keep_waiting(c, t)
  change(c, { open_from = math.min(c.open_from or t.seq, t.seq) })
  if t.state == 'pending' or t.state == 'failed' then
    change_turn(t, { state = 'pending', lease = now + op.lease_seconds })
  end
end

local function is_only_unknown(c, t)
  for _, seq in ipairs(redis.call('ZRANGE', c.key .. ':u', 0, 1)) do
    if tonumber(seq) ~= t.seq then
      return false
    end
  end
  for _, other in ipairs(open_turns(c, '-inf')) do
    if other.seq ~= t.seq and other.state == 'delivering' and other.lease <= now then
      return false
    end
  end
  return true
end

local function retaken(c, t, again)
  change_turn(t, {
    state = 'delivering', epoch = t.epoch + 1, lease = now + op.lease_seconds, reason = NONE,
    adopted = adopted_at_root(c),
    deadline = op.retry and t.deadline or now + op.deadline_seconds,
  })
  if shared or t.dialect ~= 'responses' then
    change(c, { open_from = math.min(c.open_from or t.seq, t.seq) })
  end
  if op.lost then
    -- What was shown of it goes, unless the thread that there is now was given it, or something
    -- stands behind it: an answer may have been made from it.
    for place in string.gmatch(t.shown_of or '', '(%d+)=') do
      local position = tonumber(place)
      local kept = c.state == 'live' and c.primed >= position
      if not kept then
        up(c, position + 1, c.last, function(_, meta)
          kept = meta.seq ~= t.seq and not meta.withdrawn
          return kept
        end)
      end
      if not kept then
        withdraw(c, position, meta_of(redis.call('HGET', c.key .. ':i', place)), true)
      end
    end
    change(t, { shown_of = NONE })
  elseif shared or t.dialect ~= 'responses' then
    to_the_end(c, t, was_heard(c, t))
  end
  restore_items(c, t.first, t.last)
  if again and t.dialect ~= 'responses' then
    change(c, { doubt = '1' })
  end
  local state, age, bound = state_of_replica(c), now - c.confirmed_at, remembered(c)
  local h = t.handle and find_handle(op.upstream, t.handle)
  if h then
    state, age = state_of(c, h.state, h.rebuilt_with), now - h.confirmed_at
    if h.conversation == c.id then
      bound = remembered_from(c, h, t.handle)
    end
  end
  local through, known = op.lost and c.last or t.first - 1, replica(c)
  if lacks_unanswered(c, known, through) then
    state, known.state = 'lost', 'lost'
  end
  return reply({
    outcome = 'deliver',
    turn = turn_key(t),
    through = through,
    handle_state = (t.handle or op.subject) and state or 'none',
    handle_age = text(age),
    replica = known,
    adopting = c.adopting ~= nil and t.seq == 1,
    incomplete = c.adopting ~= nil,
    accepted_items = t.last - t.first + 1,
    again = again,
    known_items = known_items(c),
    remembered = bound,
    unread = unread(c),
  })
end

-- Whether the log has what a run said; what was only shown of it has no id.
local function has_spoken(c, t)
  local spoken = false
  up(c, math.max(t.last, t.outputs_at or t.last) + 1, c.last, function(position, meta)
    if meta.seq == t.seq and meta.id and not meta.withdrawn then
      local form = redis.call('HGET', c.key .. ':x', position)
      local head = cjson.decode(string.sub(form, 1, string.find(form, '\n', 1, true) - 1))
      spoken = head[2] == 'assistant'
    end
    return spoken
  end)
  return spoken
end

local function again(t)
  if t.body_hash ~= op.body_hash and not op.lost then
    return reply({ outcome = 'mismatch' })
  end
  if t.state == 'answered' then
    local kept = redis.call('HMGET', t.key, 'content_type', 'answer')
    return reply(
      { outcome = 'answered', turn = turn_key(t), status = t.status }, { kept[1], kept[2] }
    )
  end
  -- One that was worked on under an id of its own, which is gone with its thread.
  local lost = t.state == 'delivering' and not t.lease and op.lost and t.response_id == op.lost
  if t.state == 'delivering' and not t.lease and not lost then
    local body = t.response_id
      and redis.call('HGET', K .. handle_name(op.upstream, t.response_id), 'body')
    if body then
      return reply(
        { outcome = 'answered', turn = turn_key(t), status = 200 }, { 'application/json', body }
      )
    end
  end
  local leased = t.lease ~= nil and t.lease > now
  if t.state == 'delivering' and leased then
    return reply({ outcome = 'wait', turn = turn_key(t) })
  end
  if op.lost and not op.interim and has_spoken(conversation(t.conversation), t) then
    return reply({ outcome = 'spoken', turn = turn_key(t) })
  end
  local unknown = (t.state == 'unknown' or t.state == 'delivering') and not lost
  if (op.retry and t.deadline < now) or (op.once and unknown) then
    return reply({ outcome = 'expired', turn = turn_key(t) })
  end
  local c = conversation(t.conversation)
  local in_line = shared or t.dialect ~= 'responses'
  if in_line and must_wait(c, t.seq) then
    local key = turn_key(t)
    keep_waiting(c, t)
    return reply({ outcome = 'wait', turn = key })
  end
  if in_line then
    -- The only one that is unknown is taken again itself, behind what a run said before it.
    local only = unknown and is_only_unknown(c, t)
    local first
    if only then
      first = unread_first(c)
    else
      first = doubt(c, t.seq)
    end
    if first then
      keep_waiting(c, turn_at(t.conversation, t.seq))
      return first
    end
    t = turn_at(t.conversation, t.seq)
  end
  return retaken(c, t, unknown)
end

-- Where a new turn goes ----------------------------------------------------------------------

local function new_place(adopting)
  local known = adopting and op.dialect ~= 'responses' and op.handle or nil
  local c = new_conversation({
    subject = given(op.subject), upstream = op.upstream, dialect = op.dialect,
    adopting = adopting and 0 or NONE, state = adopting and 'live' or 'absent', handle = given(known),
  })
  if adopting then
    new_handle(c, op.upstream, op.handle, { kind = KIND_OF[op.dialect], position = 0 })
  elseif not op.subject then
    redis.call('ZADD', K .. 'a:' .. c.upstream, text(now), single_member(c))
  end
  return {
    c = c, parent = 0, state = adopting and 'live' or 'none', age = 0, adopting = adopting, newest = 0,
  }
end

local function place_of_handle(h)
  local c = conversation(h.conversation)
  local linear = op.dialect ~= 'responses'
  return {
    c = c,
    parent = linear and c.last or h.position,
    state = state_of(c, h.state, h.rebuilt_with) == 'lost' and 'lost' or 'live',
    age = now - h.confirmed_at,
    adopting = c.adopting ~= nil and c.seq == 0,
    remembered = remembered_from(c, h, op.handle),
    made_by = not linear and h or nil,
    newest = linear and c.seq or tonumber(h.turn_seq or 0),
  }
end

-- The newest turn of the line that continues from a response: all but the last have failed.
local function newest_behind(place)
  local newest
  for n = place.newest + 1, place.c.seq do
    local t = turn_at(place.c.id, n)
    if t.handle ~= op.handle then
      break
    end
    newest = t
  end
  return newest
end

-- Whether the line has gone on from there. One that has failed counts where it has an id from which
-- others may have gone on.
local function has_gone_on(place)
  for n = place.newest + 1, place.c.seq do
    local t = turn_at(place.c.id, n)
    if t.state ~= 'failed' or t.response_id then
      return true
    end
  end
  return false
end

-- Whether a chain of responses begins beside the conversation that it continues from.
local function is_beside(place)
  return not shared and place.c.dialect ~= 'responses'
end

local function on_newest_branch(place)
  local branch = redis.call('HGET', place.c.key .. ':n', place.parent)
  return branch and turn_at(branch, 1) or nil
end

local function newest_child(place)
  local newest = newest_behind(place)
  local on_branch = on_newest_branch(place)
  if not on_branch then
    return newest
  end
  if newest == nil or on_branch.accepted_at >= newest.accepted_at then
    return on_branch
  end
  return newest
end

-- The turn that this request repeats, if it is one: same body, not handed over.
local function repeated(place)
  if op.handle == nil or op.turn_id then
    return nil
  end
  local t
  if is_beside(place) then
    t = on_newest_branch(place)
  elseif not shared and place.newest ~= place.c.seq then
    t = newest_child(place)
  elseif shared and place.c.open_from then
    t = turn_at(place.c.id, place.c.seq)
  end
  if t and not t.handed and t.body_hash == op.body_hash and t.kind == op.kind then
    return t
  end
end

-- Open a branch where the line has gone on already: both keep what they know.
local function branched(place)
  local c = place.c
  if not is_beside(place) then
    if shared or not has_gone_on(place) then
      return place
    end
  end
  local bound = place.remembered or {}
  local b = new_conversation({
    upstream = op.upstream, dialect = op.dialect, origin = c.id, origin_position = place.parent,
    root = c.root or c.id, state = 'absent', history_tokens = given(bound.tokens),
    history_reasoning = given(bound.reasoning_tokens), history_model = given(bound.model),
    history_fixed = given(bound.fixed),
    -- Positions go on from the origin's, so that a position names one place on every line.
    last = place.parent,
  })
  no_longer_single(c)
  redis.call('SADD', c.key .. ':b', b.id)
  redis.call('HSET', c.key .. ':n', place.parent, b.id)
  return {
    c = b, parent = place.parent, state = place.state, age = place.age, adopting = false,
    remembered = place.remembered,
  }
end

local function opened(place)
  local c = place.c
  local seq, first = c.seq + 1, c.last + 1
  local known = known_items(c)
  local entered = math.max(#op.items - known, 0)
  local waiting = shared and c.open_from ~= nil and must_wait(c, seq)
  local last = first + entered - 1
  local before = replica(c)
  local t = { key = c.key .. ':t:' .. seq, conversation = c.id, seq = seq }
  change_turn(t, {
    turn_id = given(op.turn_id), kind = op.kind, state = waiting and 'pending' or 'delivering',
    dialect = op.dialect, handle = given(op.handle), parent = place.parent, first = first,
    last = last, reach = last, body_hash = op.body_hash, request = ARGV[op.request], epoch = 1,
    lease = now + op.lease_seconds, deadline = now + op.deadline_seconds, accepted_at = now,
    adopted = adopted_at_root(c),
  })
  t.name = op.turn_id or (c.id .. '.' .. seq)
  if op.turn_id then
    redis.call('HSET', K .. 't', op.turn_id, c.id .. ' ' .. seq)
  end
  -- What waits is no part of what others are answered from until it is delivered.
  for n = known + 1, #op.items do
    enter(c, first + n - known - 1, seq, op.items[n], waiting)
  end
  if seq == 2 then
    no_longer_single(c)
  end
  change(c, { last = last, seq = seq, open_from = c.open_from or seq })
  if waiting then
    return reply({ outcome = 'wait', turn = turn_key(t) })
  end
  if lacks_unanswered(c, before, first - 1) then
    place.state, before.state = 'lost', 'lost'
  end
  return reply({
    outcome = 'deliver',
    turn = turn_key(t),
    through = first - 1,
    handle_state = place.state,
    handle_age = text(place.age),
    replica = before,
    adopting = place.adopting,
    incomplete = c.adopting ~= nil,
    accepted_items = entered,
    known_items = known,
    again = false,
    remembered = place.remembered,
    unread = unread(c),
  })
end

local known
if op.waiting_for then
  known = turn_at(op.waiting_for.conversation, op.waiting_for.seq)
elseif op.turn_id then
  known = turn_named(op.turn_id)
end
if known then
  return again(known)
end
if op.waiting_for then
  return reply({ outcome = 'erased', turn = op.waiting_for })
end

local place
if op.handle then
  local h = find_handle(op.upstream, op.handle)
  local whole = h and op.dialect ~= 'responses' and conversation(h.conversation)
  local deleted = whole and whole.state == 'retired' and whole.dialect ~= 'responses'
  if h and (h.state == 'retired' or deleted) then
    return reply({ outcome = 'retired' })
  end
  if h then
    place = place_of_handle(h)
  elseif op.looked then
    return reply({ outcome = 'erased' })
  elseif is_foreign(op.upstream, op.handle) then
    return reply({ outcome = 'foreign' })
  elseif is_orphan(op.upstream, op.handle) then
    return reply({ outcome = 'retired' })
  else
    place = new_place(true)
  end
else
  local c = op.subject and of_subject(op.subject)
  if c then
    place = {
      c = c, parent = c.last, state = state_of_replica(c), age = now - c.confirmed_at,
      adopting = false,
      remembered = remembered(c),
    }
  elseif op.looked then
    return reply({ outcome = 'erased' })
  else
    place = new_place(false)
  end
end
local before = repeated(place)
if before then
  return again(before)
end
return place.made_by and in_the_background(place.c, place.made_by)
  or shared and doubt(place.c, place.c.seq + 1)
  or opened(branched(place))
