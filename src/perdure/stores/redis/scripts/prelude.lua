-- What the operations are made of; it stands before each of them, behind the clock.
--
-- KEYS[1] is what every key of the tenant begins with; it holds the hash tag, so all of them are in
-- one slot. ARGV[1] is the operation as JSON (numbers of conversations as text: they have more digits
-- than JSON in Lua keeps), ARGV[2] what the keys that all tenants share begin with, the rest are texts
-- of any size, to which the operation refers by their place. No text of a message is ever decoded
-- here. Every operation reads all that it decides from before its first write, since a script that
-- fails half-way is not taken back.
--
-- c:<conversation>     hash: the conversation and its replica
--   :t:<seq>           hash: a turn, with its request and its answer
--   :i                 hash: position -> turn;tokens;withdrawn;deleted;time;=id of an item
--   :x  :w             hashes: position -> its finished input form; its wire form, where that differs
--   :p                 hash: an item's provider's id -> its positions
--   :z                 sorted set: positions that are withdrawn, deleted or empty
--   :o  :u             sorted sets: turns under a lease, or waiting; turns of unknown outcome
--   :b  :n             set: branches; hash: position -> the newest branch from it
--   :h                 set: handles that lead here
--   :r                 hash: a response's id -> the turns that have it
--   :v  :m             hash: generation -> a rebuild; list: pinned facts
-- h:<upstream><handle> hash: where a handle leads
-- s  t                 hashes: subject -> conversation; the caller's name for a turn -> where it is
-- sl                   sorted set: the conversations that have a subject
-- p:<id>               sorted set: conversations with an item of that id
-- a:<upstream>         sorted set: conversations of a single turn, by the time of their last use
-- o  o:<upstream>  od  sorted sets, hash: orphans
-- oh                   hash: where a handle would lead -> how often it is an orphan
-- i  i:<upstream>  id  sorted sets, hash: creates that are intended
-- q                    hash: upstream -> until when it is to be left alone

local K, G = KEYS[1], ARGV[2]
local CHUNK = 64
local NONE = {}
local now = perdure_now()

-- cjson's null is a value of its own.
local function plain(values)
  for name, value in pairs(values) do
    if value == cjson.null then
      values[name] = nil
    elseif type(value) == 'table' then
      plain(value)
    end
  end
  return values
end

local op = plain(cjson.decode(ARGV[1]))

local function reply(record, texts)
  local all = { cjson.encode(record) }
  for _, one in ipairs(texts or {}) do
    all[#all + 1] = one
  end
  return all
end

-- Rows ---------------------------------------------------------------------------------------

local NUMBERS = {}
for name in string.gmatch(
  'generation primed adopting confirmed_at unread history_tokens history_reasoning shrunk first last seq open_from '
    .. 'created_at origin_position epoch lease deadline parent accepted_at reach '
    .. 'position turn_seq status outputs_at adopted rebuilt_with',
  '%S+'
) do
  NUMBERS[name] = true
end

local function text(value)
  if type(value) == 'number' then
    return string.format(value % 1 == 0 and '%.0f' or '%.6f', value)
  end
  return value
end

local function given(value)
  if value == nil then
    return NONE
  end
  return value
end

-- Write fields of a row; NONE takes one away.
local function change(row, fields)
  local set, dropped = {}, {}
  for name, value in pairs(fields) do
    if value == NONE then
      row[name] = nil
      dropped[#dropped + 1] = name
    else
      row[name] = value
      set[#set + 1] = name
      set[#set + 1] = text(value)
    end
  end
  if #dropped > 0 then
    redis.call('HDEL', row.key, unpack(dropped))
  end
  if #set > 0 then
    redis.call('HSET', row.key, unpack(set))
  end
  return row
end

local function loaded(row, names, values)
  for n, name in ipairs(names) do
    if values[n] then
      row[name] = NUMBERS[name] and tonumber(values[n]) or values[n]
    end
  end
  return row
end

local function whole(row)
  local pairs_ = redis.call('HGETALL', row.key)
  local names, values = {}, {}
  for n = 1, #pairs_, 2 do
    names[#names + 1] = pairs_[n]
    values[#values + 1] = pairs_[n + 1]
  end
  return loaded(row, names, values)
end

-- Conversations ------------------------------------------------------------------------------

local function conversation(id)
  local c = whole({
    key = K .. 'c:' .. id, id = id, generation = 0, first = 1, last = 0, seq = 0, adopted = 0,
  })
  return c.created_at and c or nil
end

local function of_subject(subject)
  local id = redis.call('HGET', K .. 's', subject)
  return id and conversation(id) or nil
end

local function single_member(c)
  return string.format('%016.0f', tonumber(c.id))
end

-- The number is one that the store made up: one that was counted here could be given out again
-- after a failover that lost the newest writes, to a stranger's conversation.
local function new_conversation(fields)
  local id = op.fresh
  while redis.call('EXISTS', K .. 'c:' .. id) == 1 do
    id = text(tonumber(id) + 1)
  end
  local c = {
    key = K .. 'c:' .. id, id = id, generation = 0, primed = 0, first = 1, last = 0, seq = 0, adopted = 0,
  }
  change(c, { generation = 0, primed = 0, confirmed_at = now, created_at = now })
  change(c, fields)
  if c.subject then
    redis.call('HSET', K .. 's', c.subject, id)
    redis.call('ZADD', K .. 'sl', 0, single_member(c))
  end
  return c
end

-- Note that the provider has just confirmed the replica.
local function confirm(c, fields)
  fields.confirmed_at = now
  change(c, fields)
  if c.seq == 1 then
    redis.call('ZADD', K .. 'a:' .. c.upstream, 'XX', text(now), single_member(c))
  end
end

local function no_longer_single(c)
  redis.call('ZREM', K .. 'a:' .. c.upstream, single_member(c))
end

local function is_doubtful(c)
  return c.doubt ~= nil and c.state == 'live' and c.dialect ~= 'responses'
end

-- How many items of older history the log at the root of a conversation's line has.
local function adopted_at_root(c)
  return c.root and tonumber(redis.call('HGET', K .. 'c:' .. c.root, 'adopted') or 0) or c.adopted
end

-- The state of a response on a conversation's line: one that lacks older history is lost.
local function state_of(c, state, rebuilt_with)
  local lacks = state == 'live' and rebuilt_with and rebuilt_with < adopted_at_root(c)
  return lacks and 'lost' or state
end

local function state_of_replica(c)
  return c.dialect == 'responses' and state_of(c, c.state, c.rebuilt_with) or c.state
end

local function replica(c)
  return {
    state = state_of_replica(c),
    handle = c.handle,
    generation = c.generation,
    primed = c.primed,
    age = text(now - c.confirmed_at),
    dialect = c.dialect,
    doubtful = is_doubtful(c),
  }
end

-- What the next turn's history must amount to.
local function remembered(c)
  if c.history_tokens then
    return {
      tokens = c.history_tokens, reasoning_tokens = c.history_reasoning or 0,
      model = c.history_model, fixed = c.history_fixed,
    }
  end
end

-- What it must amount to for what goes on from a handle, where that is the log's end. What has failed
-- behind a chain's head was never part of what the next response is made from.
local function remembered_from(c, h, handle)
  local at_end = h.kind ~= 'response' or h.position == c.last or c.handle == handle
  return at_end and remembered(c) or nil
end

-- Handles ------------------------------------------------------------------------------------

local KIND_OF = { responses = 'response', conversations = 'conversation', threads = 'thread' }
local DIALECT_OF = { response = 'responses', conversation = 'conversations', thread = 'threads' }

local function handle_name(upstream, handle)
  return 'h:' .. #upstream .. ':' .. upstream .. handle
end

local HANDLE = {
  'conversation', 'kind', 'position', 'turn_seq', 'state', 'replaced_by', 'confirmed_at', 'rebuilt_with',
}

local function find_handle(upstream, handle)
  local h = { key = K .. handle_name(upstream, handle) }
  loaded(h, HANDLE, redis.call('HMGET', h.key, unpack(HANDLE)))
  return h.state and h or nil
end

-- Whether another tenant has a handle that this one does not have.
local function is_foreign(upstream, handle)
  return redis.call('EXISTS', G .. handle_name(upstream, handle)) == 1
end

local function new_handle(c, upstream, handle, fields)
  local name = handle_name(upstream, handle)
  if redis.call('EXISTS', K .. name) == 1 then
    return
  end
  fields.conversation, fields.upstream, fields.handle = c.id, upstream, handle
  fields.state, fields.confirmed_at = 'live', now
  change({ key = K .. name }, fields)
  redis.call('SADD', c.key .. ':h', name)
  redis.call('SADD', G .. name, op.tenant)
end

-- The object that was created, as the provider showed it.
local function object()
  return ARGV[op.body] ~= '' and ARGV[op.body] or NONE
end

local function mark_handle(upstream, handle, state)
  local h = find_handle(upstream, handle)
  if h and h.state ~= 'retired' then
    change(h, { state = state })
  end
  return h
end

-- Mark a handle, and the replica that it is the handle of.
local function mark(upstream, handle, state)
  local h = mark_handle(upstream, handle, state)
  local c = h and conversation(h.conversation)
  if c and c.handle == handle and c.state ~= 'retired' then
    change(c, { state = state })
  end
end

-- Turns --------------------------------------------------------------------------------------

local TURN = {
  'turn_id', 'kind', 'state', 'body_hash', 'epoch', 'handed', 'response_id', 'parent', 'first',
  'last', 'handle', 'dialect', 'lease', 'deadline', 'accepted_at', 'reach',
  'former_ids', 'status', 'left_at', 'outputs_of',
  'outputs_at', 'outputs_unread', 'outputs_again', 'shown_of', 'adopted',
}

local function turn_at(id, seq)
  local t = { key = K .. 'c:' .. id .. ':t:' .. seq, conversation = id, seq = tonumber(seq) }
  loaded(t, TURN, redis.call('HMGET', t.key, unpack(TURN)))
  if t.state then
    t.name = t.turn_id or (id .. '.' .. seq)
    return t
  end
end

-- The turn of a key, if nobody has taken it since. The name is compared as well: after a failover
-- that lost the newest writes another turn may stand at the same place.
local function held(key)
  local t = turn_at(key.conversation, key.seq)
  if t and t.epoch == key.epoch and t.name == key.turn_id then
    return t
  end
end

local function turn_named(turn_id)
  local place = redis.call('HGET', K .. 't', turn_id)
  if place then
    return turn_at(string.match(place, '^(%d+) (%d+)$'))
  end
end

local function turn_key(t)
  return { conversation = t.conversation, seq = t.seq, epoch = t.epoch, turn_id = t.name }
end

-- Change a turn, and keep the lists of open and of unknown ones.
local function change_turn(t, fields)
  change(t, fields)
  local of = K .. 'c:' .. t.conversation
  if t.lease and (t.state == 'delivering' or t.state == 'pending') then
    redis.call('ZADD', of .. ':o', t.seq, t.seq)
  else
    redis.call('ZREM', of .. ':o', t.seq)
  end
  if t.state == 'unknown' then
    redis.call('ZADD', of .. ':u', t.seq, t.seq)
  else
    redis.call('ZREM', of .. ':u', t.seq)
  end
end

-- The turns that somebody is at, or that wait, from one on.
local function open_turns(c, from)
  local turns = {}
  for n, seq in ipairs(redis.call('ZRANGEBYSCORE', c.key .. ':o', from, '+inf')) do
    turns[n] = turn_at(c.id, seq)
  end
  return turns
end

-- From when on turns are open, once one of them has ended.
local function still_open_from(c, seq)
  for _, t in ipairs(c.open_from and open_turns(c, c.open_from) or {}) do
    if t.seq ~= seq then
      return c.open_from
    end
  end
  for _, other in ipairs(c.open_from
    and redis.call('ZRANGEBYSCORE', c.key .. ':u', c.open_from, '+inf') or {}) do
    if tonumber(other) ~= seq and turn_at(c.id, other).dialect ~= 'responses' then
      return c.open_from
    end
  end
  return NONE
end

-- The run whose messages are still to be read, and whether it is known to have ended.
local function unread_run(c)
  local t = c.unread and turn_at(c.id, c.unread)
  if t and t.response_id then
    return t.response_id, t.state ~= 'delivering'
  end
end

-- The turn that a run belongs to.
local function turn_of_run(c, run_id)
  local h = run_id and find_handle(c.upstream, run_id)
  if h and h.conversation == c.id and h.turn_seq then
    return turn_at(c.id, h.turn_seq)
  end
end

local function has_response(t, response_id)
  if t.response_id ~= response_id then
    local key = K .. 'c:' .. t.conversation .. ':r'
    local seqs = redis.call('HGET', key, response_id)
    redis.call('HSET', key, response_id, (seqs and seqs .. ' ' or '') .. t.seq)
  end
end

-- Items --------------------------------------------------------------------------------------

local function meta_of(value)
  local seq, tokens, withdrawn, deleted, at, id =
    string.match(value, '^(%d*);(%d+);(%d);(%d);(%-?[%d.]+);(.*)$')
  return {
    seq = tonumber(seq),
    tokens = tonumber(tokens),
    withdrawn = withdrawn == '1',
    deleted = deleted == '1',
    at = at,
    id = id ~= '' and string.sub(id, 2) or nil,
  }
end

local function is_hidden(meta)
  return meta.withdrawn or meta.deleted
end

local function put_meta(c, position, meta)
  local value = table.concat({
    meta.seq or '', meta.tokens, meta.withdrawn and 1 or 0, meta.deleted and 1 or 0, meta.at,
    meta.id and '=' .. meta.id or '',
  }, ';')
  redis.call('HSET', c.key .. ':i', position, value)
  if is_hidden(meta) then
    redis.call('ZADD', c.key .. ':z', position, position)
  else
    redis.call('ZREM', c.key .. ':z', position)
  end
end

local function has_id(c, id)
  return redis.call('HEXISTS', c.key .. ':p', id) == 1
end

-- What stands for an item that was deleted before it was adopted.
local function buried(id)
  return 'deleted ' .. id
end

local function positions_of(c, id)
  local positions = {}
  for position in string.gmatch(redis.call('HGET', c.key .. ':p', id) or '', '%S+') do
    positions[#positions + 1] = tonumber(position)
  end
  return positions
end

local function put_positions(c, id, positions)
  if #positions == 0 then
    redis.call('HDEL', c.key .. ':p', id)
    redis.call('ZREM', K .. 'p:' .. id, c.id)
    return
  end
  table.sort(positions)
  redis.call('HSET', c.key .. ':p', id, table.concat(positions, ' '))
  redis.call('ZADD', K .. 'p:' .. id, c.id, c.id)
end

local function enter_id(c, position, id)
  local positions = positions_of(c, id)
  positions[#positions + 1] = position
  put_positions(c, id, positions)
end

local function drop_id(c, position, id)
  local left = {}
  for _, one in ipairs(positions_of(c, id)) do
    if one ~= position then
      left[#left + 1] = one
    end
  end
  put_positions(c, id, left)
end

-- Enter an item as it was sent: {tokens, provider's id, place of its form, place of its wire, when}.
local function enter(c, position, seq, item, withdrawn)
  put_meta(c, position, {
    seq = seq, tokens = item[1], withdrawn = withdrawn, deleted = false,
    at = string.format('%.6f', item[5] or now), id = item[2],
  })
  redis.call('HSET', c.key .. ':x', position, ARGV[item[3]])
  if item[4] then
    redis.call('HSET', c.key .. ':w', position, ARGV[item[4]])
  end
  if item[2] then
    enter_id(c, position, item[2])
  end
end

-- Give an item of the log the id and the form under which the provider shows it.
local function name_item(c, position, id, wire)
  local value = redis.call('HGET', c.key .. ':i', position)
  if value then
    local meta = meta_of(value)
    if meta.id then
      drop_id(c, position, meta.id)
    end
    meta.id = id
    put_meta(c, position, meta)
    enter_id(c, position, id)
    redis.call('HSET', c.key .. ':w', position, wire)
  end
end

-- Visit items from a position downwards until the visitor says true. Positions have no gaps:
-- adopted history goes down from 0, the rest up from 1 or from where a branch begins.
local function down(c, from, to, visit)
  local base = c.origin_position or 0
  local position = math.min(from, c.last)
  local lowest = math.max(to, c.first < 1 and c.first or base + 1)
  while position >= lowest do
    if position > 0 and position <= base then
      position = 0
    else
      local stop = math.max(lowest, position - CHUNK + 1, position > base and base + 1 or lowest)
      local places = {}
      for place = position, stop, -1 do
        places[#places + 1] = place
      end
      for n, value in ipairs(redis.call('HMGET', c.key .. ':i', unpack(places))) do
        if value and visit(places[n], meta_of(value)) then
          return
        end
      end
      position = stop - 1
    end
  end
end

local function up(c, from, to, visit)
  local base = c.origin_position or 0
  local position = math.max(from, c.first < 1 and c.first or base + 1)
  local highest = math.min(to, c.last)
  while position <= highest do
    if position > 0 and position <= base then
      position = base + 1
    else
      local stop = math.min(highest, position + CHUNK - 1, position <= 0 and 0 or highest)
      local places = {}
      for place = position, stop do
        places[#places + 1] = place
      end
      for n, value in ipairs(redis.call('HMGET', c.key .. ':i', unpack(places))) do
        if value and visit(places[n], meta_of(value)) then
          return
        end
      end
      position = stop + 1
    end
  end
end

-- How many items that are to be seen stand before a position.
local function visible_before(c, position)
  local base = c.origin_position or 0
  local all = math.max(math.min(position, 1) - c.first, 0)
    + math.max(math.min(position, c.last + 1) - base - 1, 0)
  return all - redis.call('ZCOUNT', c.key .. ':z', '-inf', '(' .. text(position))
end

local function withdraw(c, position, meta, withdrawn)
  if meta.withdrawn ~= withdrawn then
    meta.withdrawn = withdrawn
    put_meta(c, position, meta)
  end
end

local function restore_items(c, first, last)
  up(c, first, last, function(position, meta)
    withdraw(c, position, meta, false)
  end)
end

-- What was shown of an answer before it was cut, once the turn has more than that, or of one message
-- once it is there.
local function withdraw_shown(c, t, message_id)
  for place, of in string.gmatch(t.shown_of or '', '(%d+)=(%S*)') do
    if not message_id or of == '' or of == message_id then
      withdraw(c, tonumber(place), meta_of(redis.call('HGET', c.key .. ':i', place)), true)
    end
  end
end

-- Put what was shown of messages before they were cut at the end of the log, by their ids, but for
-- those that the log has. What was shown of the same ones before makes room; without ids, all that was.
local function keep_shown(c, t, partial, partial_of)
  local last, shown_of = c.last, t.shown_of and { t.shown_of } or {}
  for n, item in ipairs(partial) do
    local of = partial_of[n]
    if not (of and has_id(c, of)) then
      withdraw_shown(c, t, of)
    end
  end
  for n, item in ipairs(partial) do
    local of = partial_of[n]
    if not (of and has_id(c, of)) then
      last = last + 1
      enter(c, last, t.seq, item, false)
      shown_of[#shown_of + 1] = text(last) .. '=' .. (of or '')
    end
  end
  if last > c.last then
    change(t, {
      reach = last, shown_of = table.concat(shown_of, ' '),
    })
    change(c, { last = last })
  end
end

-- Whether an answer behind a turn's items may have been made from them. In a conversation one to a
-- turn that stands before it, which only came late, was not.
local function was_heard(c, t)
  local heard = t.dialect ~= 'conversations'
  if not heard then
    up(c, t.last + 1, c.last, function(_, meta)
      local of = meta.seq and turn_at(c.id, meta.seq)
      heard = not meta.withdrawn and (not of or of.first > t.first)
      return heard
    end)
  end
  return heard
end

-- Put a turn's items at the end of the log, where others were entered behind them. What an answer
-- may have been made from stays where it was, also what was shown of a cut answer; what was never
-- sent, or refused, does not, nor (heard is false) what no answer can have been made from yet, nor
-- what was shown of one to that.
local function to_the_end(c, t, heard)
  local behind = false
  up(c, t.last + 1, c.last, function(_, meta)
    behind = meta.seq ~= t.seq and (heard or not meta.withdrawn)
    return behind
  end)
  if not behind then
    return
  end
  local by = c.last + 1 - t.first
  if not heard then
    withdraw_shown(c, t)
  end
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
    if meta.withdrawn or not heard then
      withdraw(c, position, meta, true) -- its place stays hidden
      for _, part in ipairs({ ':i', ':x', ':w' }) do
        redis.call('HDEL', c.key .. part, position)
      end
      if meta.id then
        drop_id(c, position, meta.id)
      end
    end
  end)
  local last = t.last + by
  local left_at = heard and (t.left_at and t.left_at .. ' ' or '') .. text(t.first) or t.left_at
  change(t, {
    parent = c.last, first = t.first + by, last = last, reach = last, shown_of = NONE,
    left_at = given(left_at),
  })
  change(c, { last = last })
end

-- Whether a thread that was created meanwhile has a turn's items.
local function is_given(c, t)
  return c.generation > 0 and c.primed >= t.first
end

-- Note that a turn's own items stand at the end of the thread of a generation. One that has taken its
-- place may not have them; one that was created with them has them where they are.
local function stands_on_thread(c, t, generation)
  if t.last >= t.first and not is_given(c, t) then
    to_the_end(c, t, false)
    if c.generation ~= generation and c.primed < t.last then
      change(c, { doubt = '1' })
    end
  end
end

local function delete_item(c, position, meta)
  if not meta.deleted then
    meta.deleted = true
    put_meta(c, position, meta)
  end
end

-- One of a turn's own items stands wherever its turn has stood, as far from where that began. What was
-- shown of an answer before it was cut stays where others were answered, too.
local function delete_elsewhere(c, position, meta)
  local t = meta.seq and turn_at(c.id, meta.seq)
  if not t or not t.left_at then
    return
  end
  local begun = { t.first }
  for at in string.gmatch(t.left_at, '%S+') do
    begun[#begun + 1] = tonumber(at)
  end
  local function started(at)
    for _, here in ipairs(begun) do
      if here <= at and at <= here + t.last - t.first then
        return here
      end
    end
  end
  local from = started(position)
  if from then
    for _, other in ipairs(begun) do
      local copy = other + position - from
      local kept = redis.call('HGET', c.key .. ':i', copy)
      if kept then -- what was never sent has left its place
        delete_item(c, copy, meta_of(kept))
      end
    end
    return
  end
  up(c, math.min(unpack(begun)), position - 1, function(at, other)
    if other.seq == t.seq and not other.id and not started(at) then
      delete_item(c, at, other)
    end
  end)
end

-- One item for a reader: the text of its form, and of its wire where that differs and has a text.
-- Heads are one JSON text and texts one string, because a client reads two things faster than many.
local ANY = ''
local function reader(wanted)
  local heads, texts = {}, {}
  local r = {}
  function r.add(c, position, meta, turn_id)
    local form = redis.call('HGET', c.key .. ':x', position)
    local wire = wanted and redis.call('HGET', c.key .. ':w', position)
    if wire and not string.find(wire, wanted, 1, true) then
      wire = ''
    end
    texts[#texts + 1] = form
    if wire then
      texts[#texts + 1] = wire
    end
    heads[#heads + 1] = {
      position, meta.at, meta.id or cjson.null, turn_id or cjson.null, #form, wire and #wire or -1,
      meta.tokens,
    }
  end
  function r.count()
    return #heads
  end
  function r.heads()
    return heads
  end
  function r.text()
    return table.concat(texts)
  end
  return r
end

-- How many of the items sent, from the first, a rebuilt replica's log has already.
local function known_items(c)
  if op.dialect ~= 'conversations' or c.generation == 0 then
    return 0
  end
  for _, sent in ipairs(op.sent_ids) do
    if has_id(c, sent[2]) then
      return sent[1]
    end
  end
  return 0
end

-- Recoveries and orphans ---------------------------------------------------------------------

-- Enter a rebuild; a second record of one completes the first.
local function enter_recovery(c, generation, recovery)
  local key = c.key .. ':v'
  local before = redis.call('HGET', key, generation)
  if before then
    local known = plain(cjson.decode(before))
    recovery.reason = known.reason
    recovery.lost_handle, recovery.new_handle = known.lost_handle, known.new_handle
  end
  recovery.conversation, recovery.generation = c.id, generation
  redis.call('HSET', key, generation, cjson.encode(recovery))
end

local function enter_orphan(id, upstream, dialect, handle, reason)
  -- Never one that was given before, also when the newest writes are lost: from the clock.
  local number = math.max(math.floor(now * 1000000), tonumber(redis.call('GET', K .. 'on') or 0) + 1)
  local key = text(number)
  redis.call('SET', K .. 'on', key)
  redis.call('ZADD', K .. 'o', key, key)
  redis.call('ZADD', K .. 'o:' .. upstream, key, key)
  redis.call('HSET', K .. 'od', key, cjson.encode({
    conversation = id, upstream = upstream, dialect = dialect, handle = handle, reason = reason,
    created_at = text(now),
  }))
  redis.call('HINCRBY', K .. 'oh', handle_name(upstream, handle), 1)
  return key
end

-- Record what a turn has rebuilt, and what became of the replica that was lost.
local function note_rebuild(c)
  if op.recovery then
    enter_recovery(c, c.generation, op.recovery)
  end
  if op.lost then
    mark_handle(op.upstream, op.lost, 'lost')
  end
end

-- Give up a replica, if nobody was faster, and see to it that it is deleted.
local function discard_replica(id, dialect, handle)
  local h = find_handle(op.upstream, handle)
  if h and state_of(conversation(h.conversation), h.state, h.rebuilt_with) == 'live' then
    mark(op.upstream, handle, 'lost')
    enter_orphan(id, op.upstream, dialect, handle, 'answered without the history')
  end
end

-- Let nobody go on from a replica. A response is a link of what others may continue.
local function give_up(id, dialect, handle)
  if dialect == 'responses' then
    mark(op.upstream, handle, 'lost')
  else
    discard_replica(id, dialect, handle)
  end
end

-- How many older items the log had when what a turn goes on from was rebuilt, or was given as one.
local function goes_on_from(c, t, rebuilt)
  if rebuilt then
    return t.adopted
  elseif t.handle then
    return (find_handle(op.upstream, t.handle) or {}).rebuilt_with
  end
  return c.rebuilt_with
end

local function is_orphan(upstream, handle)
  return redis.call('HEXISTS', K .. 'oh', handle_name(upstream, handle)) == 1
end

local function drop_intent(intent)
  local upstream = redis.call('HGET', K .. 'id', intent)
  if upstream then
    redis.call('HDEL', K .. 'id', intent)
    redis.call('ZREM', K .. 'i', intent)
    redis.call('ZREM', K .. 'i:' .. upstream, intent)
  end
end

-- Snapshots ----------------------------------------------------------------------------------

-- Delete a conversation's summaries, and those of every branch that hangs on it.
local drop_snapshots
function drop_snapshots(c)
  local dropped = redis.call('HLEN', c.key .. ':s')
  redis.call('UNLINK', c.key .. ':s')
  for _, id in ipairs(redis.call('SMEMBERS', c.key .. ':b')) do
    local branch = conversation(id)
    if branch then
      dropped = dropped + drop_snapshots(branch)
    end
  end
  return dropped
end

-- Forget what the history of a conversation and its branches amounts to: something is deleted.
local history_shrinks
function history_shrinks(c)
  change(c, { history_tokens = NONE, shrunk = c.seq })
  for _, id in ipairs(redis.call('SMEMBERS', c.key .. ':b')) do
    local branch = conversation(id)
    if branch then
      history_shrinks(branch)
    end
  end
end

-- The newest summary of what stands through a position, of a branch or its origins.
local function newest_snapshot(id, through)
  while id do
    local c = conversation(id)
    if not c then
      return nil
    end
    local best
    for _, place in ipairs(redis.call('HKEYS', c.key .. ':s')) do
      place = tonumber(place)
      if place <= through and (not best or place > best) then
        best = place
      end
    end
    if best then
      return best, redis.call('HGET', c.key .. ':s', best)
    end
    through = math.min(through, c.origin_position or through)
    id = c.origin
  end
end

-- Erasing ------------------------------------------------------------------------------------

local function erase(c)
  for _, id in ipairs(redis.call('HKEYS', c.key .. ':p')) do
    redis.call('ZREM', K .. 'p:' .. id, c.id)
  end
  for seq = 1, c.seq do
    local key = c.key .. ':t:' .. seq
    local turn_id = redis.call('HGET', key, 'turn_id')
    if turn_id then
      redis.call('HDEL', K .. 't', turn_id)
    end
    redis.call('UNLINK', key)
  end
  for _, name in ipairs(redis.call('SMEMBERS', c.key .. ':h')) do
    redis.call('UNLINK', K .. name)
    redis.call('SREM', G .. name, op.tenant)
  end
  if c.subject then
    redis.call('HDEL', K .. 's', c.subject)
    redis.call('ZREM', K .. 'sl', single_member(c))
  end
  no_longer_single(c)
  for part in string.gmatch('i x w p z o u b n h r v m s', '%S') do
    redis.call('UNLINK', c.key .. ':' .. part)
  end
  redis.call('UNLINK', c.key)
end
