-- Find or open a turn's place, journal its items, take it if it is first in line.

local shared = op.dialect ~= 'responses' or op.subject ~= nil

local function must_wait(c, seq)
  for _, t in ipairs(open_turns(c, c.open_from or seq)) do
    if t.seq ~= seq and t.kind ~= 'run' and t.lease > now
      and (t.state == 'delivering' or (t.state == 'pending' and t.seq < seq)) then
      return true
    end
  end
  return false
end

-- Give up turns that were left behind; return what they make of a replica that is shared. A response
-- cannot be changed by them: the chain goes on from the one that is known.
local function doubt(c, seq)
  if must_wait(c, seq) then
    return nil
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

-- Put a turn's items at the end of the log, where others were entered behind them. What an answer
-- may have been made from stays where it was; what was never sent, or refused, does not.
local function to_the_end(c, t)
  local behind = false
  up(c, t.last + 1, c.last, function(_, meta)
    behind = meta.seq ~= t.seq
    return behind
  end)
  if not behind then
    return
  end
  local by = c.last + 1 - t.first
  up(c, t.first, t.last, function(position, meta)
    for _, part in ipairs({ ':x', ':w' }) do
      local kept = redis.call('HGET', c.key .. part, position)
      if kept then
        redis.call('HSET', c.key .. part, position + by, kept)
      end
    end
    put_meta(c, position + by, {
      seq = meta.seq, tokens = meta.tokens, withdrawn = false, deleted = false, at = meta.at,
    })
    if meta.withdrawn then
      for _, part in ipairs({ ':i', ':x', ':w' }) do
        redis.call('HDEL', c.key .. part, position)
      end
      if meta.id then
        drop_id(c, position, meta.id)
      end
    end
  end)
  local last = t.last + by
  change(t, { parent = c.last, first = t.first + by, last = last, reach = last })
  change(c, { last = last })
end

local function retaken(c, t, again)
  change_turn(t, {
    state = 'delivering', epoch = t.epoch + 1, lease = now + op.lease_seconds, reason = NONE,
    deadline = op.retry and t.deadline or now + op.deadline_seconds,
  })
  if shared or t.dialect ~= 'responses' then
    change(c, { open_from = math.min(c.open_from or t.seq, t.seq) })
    to_the_end(c, t)
  end
  restore_items(c, t.first, t.last)
  if again and t.dialect ~= 'responses' then
    change(c, { doubt = '1' })
  end
  local state, age = c.state, now - c.confirmed_at
  local h = t.handle and find_handle(op.upstream, t.handle)
  if h then
    state, age = h.state, now - h.confirmed_at
  end
  return reply({
    outcome = 'deliver',
    turn = turn_key(t),
    through = t.first - 1,
    handle_state = (t.handle or op.subject) and state or 'none',
    handle_age = text(age),
    replica = replica(c),
    adopting = c.adopting ~= nil and t.seq == 1,
    incomplete = c.adopting ~= nil,
    accepted_items = t.last - t.first + 1,
    again = again,
    known_items = known_items(c),
  })
end

local function again(t)
  if t.body_hash ~= op.body_hash then
    return reply({ outcome = 'mismatch' })
  end
  if t.state == 'answered' then
    local kept = redis.call('HMGET', t.key, 'content_type', 'answer')
    return reply(
      { outcome = 'answered', turn = turn_key(t), status = t.status }, { kept[1], kept[2] }
    )
  end
  if t.state == 'delivering' and not t.lease then -- worked on under an id of its own
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
  local unknown = t.state == 'unknown' or t.state == 'delivering'
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
  if in_line and not (unknown and is_only_unknown(c, t)) then
    local unsettled = doubt(c, t.seq)
    if unsettled then
      keep_waiting(c, turn_at(t.conversation, t.seq))
      return unsettled
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
  return { c = c, parent = 0, state = adopting and 'live' or 'none', age = 0, adopting = adopting }
end

local function remembered(c)
  if c.history_tokens then
    return {
      tokens = c.history_tokens, reasoning_tokens = c.history_reasoning or 0,
      model = c.history_model, fixed = c.history_fixed,
    }
  end
end

local function place_of_handle(h)
  local c = conversation(h.conversation)
  local linear = op.dialect ~= 'responses'
  return {
    c = c,
    parent = linear and c.last or h.position,
    state = h.state == 'lost' and 'lost' or 'live',
    age = now - h.confirmed_at,
    adopting = c.adopting ~= nil and c.seq == 0,
    remembered = (linear or h.position == c.last) and remembered(c) or nil,
  }
end

-- The turns of a line that continue from a position: all but the last have failed.
local function children(place)
  local c, found = place.c, {}
  local seq = c.seq
  up(c, place.parent + 1, c.last, function(_, meta)
    seq = meta.seq or seq
    return meta.seq ~= nil
  end)
  for n = math.max(seq, 1), c.seq do
    local t = turn_at(c.id, n)
    if t.parent ~= place.parent then
      break
    end
    found[#found + 1] = t
  end
  return found
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
  local line = children(place)
  local newest = line[#line]
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
  elseif not shared and place.parent ~= place.c.last then
    t = newest_child(place)
  elseif shared and place.c.open_from then
    t = turn_at(place.c.id, place.c.seq)
  end
  if t and not t.handed and t.body_hash == op.body_hash and t.kind == op.kind then
    return t
  end
end

-- Open a branch where the position already has a child: both lines keep what they know.
local function branched(place)
  local c = place.c
  if not is_beside(place) then
    if shared or place.parent == c.last then
      return place
    end
    local all_failed = true
    for _, t in ipairs(children(place)) do
      all_failed = all_failed and t.state == 'failed'
    end
    if all_failed then
      return place
    end
  end
  local b = new_conversation({
    upstream = op.upstream, dialect = op.dialect, origin = c.id, origin_position = place.parent,
    state = 'absent',
    -- Positions go on from the origin's, so that a position names one place on every line.
    last = place.parent,
  })
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
  if h and h.state == 'retired' then
    return reply({ outcome = 'retired' })
  end
  if h then
    place = place_of_handle(h)
  elseif is_foreign(op.upstream, op.handle) then
    return reply({ outcome = 'foreign' })
  else
    place = new_place(true)
  end
else
  local c = op.subject and of_subject(op.subject)
  if c then
    place = {
      c = c, parent = c.last, state = c.state, age = now - c.confirmed_at, adopting = false,
      remembered = remembered(c),
    }
  else
    place = new_place(false)
  end
end
local before = repeated(place)
if before then
  return again(before)
end
return shared and doubt(place.c, place.c.seq + 1) or opened(branched(place))
