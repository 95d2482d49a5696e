-- name: find_handle
-- A response that lacks older history is lost, and so is a replica that is one.
SELECT h.tenant, h.conversation, h.kind, h.position, h.turn_seq,
       CASE WHEN h.state = 'live' AND h.rebuilt_with < r.adopted THEN 'lost' ELSE h.state END,
       h.replaced_by, h.body, perdure_now() - h.confirmed_at AS age, c.dialect, c.generation,
       CASE WHEN c.replica_state = 'live' AND c.dialect = 'responses'
            AND c.rebuilt_with < r.adopted THEN 'lost' ELSE c.replica_state END,
       c.replica_handle, c.primed_through, perdure_now() - c.confirmed_at AS replica_age, c.doubt,
       c.unread, c.adopting, c.last_position, c.last_seq, c.open_from, c.first_position,
       c.history_tokens, c.history_reasoning, c.history_model, c.history_fixed
FROM perdure_handle h
JOIN perdure_conversation c ON c.conversation = h.conversation
JOIN perdure_conversation r ON r.conversation = COALESCE(c.root, c.conversation)
WHERE h.handle = :handle AND h.upstream = :upstream AND h.tenant = :tenant

-- name: foreign_handle
-- Whether another tenant has a handle that this one does not have.
SELECT 1 FROM perdure_handle WHERE handle = :handle AND upstream = :upstream LIMIT 1

-- name: find_conversation
SELECT c.conversation, c.dialect, c.generation,
       CASE WHEN c.replica_state = 'live' AND c.dialect = 'responses'
            AND c.rebuilt_with < r.adopted THEN 'lost' ELSE c.replica_state END,
       c.replica_handle, c.primed_through, perdure_now() - c.confirmed_at AS replica_age, c.doubt,
       c.unread, c.adopting, c.last_position, c.last_seq, c.open_from, c.history_tokens,
       c.history_reasoning, c.history_model, c.history_fixed
FROM perdure_conversation c
JOIN perdure_conversation r ON r.conversation = COALESCE(c.root, c.conversation)
WHERE c.tenant = :tenant AND c.conversation = :conversation

-- name: is_tenants
SELECT 1 FROM perdure_conversation WHERE conversation = :conversation AND tenant = :tenant

-- name: find_subject
-- A subject's conversation is no branch.
SELECT conversation, dialect, generation,
       CASE WHEN replica_state = 'live' AND dialect = 'responses' AND rebuilt_with < adopted
            THEN 'lost' ELSE replica_state END,
       replica_handle, primed_through,
       perdure_now() - confirmed_at AS replica_age, doubt, unread, adopting, last_position, last_seq,
       open_from, history_tokens, history_reasoning, history_model, history_fixed
FROM perdure_conversation WHERE tenant = :tenant AND subject = :subject

-- name: find_turn
SELECT conversation, seq, COALESCE(turn_id, conversation || '.' || seq), kind, state, body_hash,
       epoch, handed, answer, response_id, parent, first_position, last_position,
       handle, dialect, COALESCE(lease_until > perdure_now(), 0) AS leased,
       deadline < perdure_now() AS late,
       state = 'delivering' AND lease_until IS NULL AS underway, accepted_at
FROM perdure_turn WHERE tenant = :tenant AND turn_id = :turn_id

-- name: known_turn
SELECT conversation, seq, COALESCE(turn_id, conversation || '.' || seq), kind, state, body_hash,
       epoch, handed, answer, response_id, parent, first_position, last_position,
       handle, dialect, COALESCE(lease_until > perdure_now(), 0) AS leased,
       deadline < perdure_now() AS late,
       state = 'delivering' AND lease_until IS NULL AS underway, accepted_at
FROM perdure_turn WHERE key = (:conversation << 32) + :seq AND tenant = :tenant

-- name: newest_turn
SELECT conversation, seq, COALESCE(turn_id, conversation || '.' || seq), kind, state, body_hash,
       epoch, handed, answer, response_id, parent, first_position, last_position,
       handle, dialect, COALESCE(lease_until > perdure_now(), 0) AS leased,
       deadline < perdure_now() AS late,
       state = 'delivering' AND lease_until IS NULL AS underway, accepted_at
FROM perdure_turn WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
ORDER BY key DESC LIMIT 1

-- name: turns_after
SELECT conversation, seq, COALESCE(turn_id, conversation || '.' || seq), kind, state, body_hash,
       epoch, handed, answer, response_id, parent, first_position, last_position,
       handle, dialect, COALESCE(lease_until > perdure_now(), 0) AS leased,
       deadline < perdure_now() AS late,
       state = 'delivering' AND lease_until IS NULL AS underway, accepted_at
FROM perdure_turn
WHERE key > (:conversation << 32) + :seq AND key < (:conversation + 1) << 32
ORDER BY key

-- name: has_gone_on
-- One that has failed counts where it has an id from which others may have gone on.
SELECT 1 FROM perdure_turn
WHERE key > (:conversation << 32) + :seq AND key < (:conversation + 1) << 32
  AND (state <> 'failed' OR response_id IS NOT NULL)
LIMIT 1

-- name: newest_branch
SELECT conversation FROM perdure_conversation
WHERE origin_conversation = :conversation AND origin_position = :parent
ORDER BY created_at DESC LIMIT 1

-- name: turn_ahead
-- Whether another turn is at work on the same replica, or one accepted earlier waits for it.
SELECT 1 FROM perdure_turn
WHERE key < (:conversation + 1) << 32
  AND key >= (:conversation << 32) + (SELECT COALESCE(open_from, :seq) FROM perdure_conversation
                                      WHERE conversation = :conversation)
  AND key <> (:conversation << 32) + :seq AND lease_until > perdure_now()
  AND (state = 'delivering' OR (state = 'pending' AND key < (:conversation << 32) + :seq))
LIMIT 1

-- name: abandon_crashed
-- Turns left by a worker that is gone: their questions stay in the log, and what came of them may
-- be found on the replica.
UPDATE perdure_turn
SET state = 'unknown', reason = 'crashed', epoch = epoch + 1, lease_until = NULL
WHERE key < (:conversation + 1) << 32 AND key <> (:conversation << 32) + :seq
  AND key >= (:conversation << 32) + (SELECT COALESCE(open_from, :seq) FROM perdure_conversation
                                      WHERE conversation = :conversation)
  AND state = 'delivering' AND lease_until <= perdure_now()

-- name: abandon_pending
-- Nobody came back for a turn that only waited: it was never sent, and its question stays.
UPDATE perdure_turn
SET state = 'failed', reason = 'abandoned', epoch = epoch + 1, lease_until = NULL
WHERE key < (:conversation << 32) + :seq
  AND key >= (:conversation << 32) + (SELECT COALESCE(open_from, :seq) FROM perdure_conversation
                                      WHERE conversation = :conversation)
  AND state = 'pending' AND lease_until <= perdure_now()
RETURNING first_position, last_position

-- name: abandon_unknown
-- What nobody came back for before its replica was thrown away; the question stays in the log.
UPDATE perdure_turn SET state = 'failed', reason = 'abandoned', epoch = epoch + 1
WHERE state = 'unknown' AND key > (:conversation << 32) AND key < (:conversation + 1) << 32

-- name: insert_conversation
INSERT INTO perdure_conversation (tenant, subject, upstream, dialect,
    origin_conversation, origin_position, root, adopting, replica_state, replica_handle, generation,
    confirmed_at, created_at)
VALUES (:tenant, :subject, :upstream, :dialect, :origin_conversation, :origin_position,
    (SELECT COALESCE(o.root, o.conversation) FROM perdure_conversation o
     WHERE o.conversation = :origin_conversation),
    CASE WHEN :adopting THEN 0.0 END, :replica_state, :replica_handle, 0, perdure_now(),
    perdure_now())
RETURNING conversation

-- name: remember
UPDATE perdure_conversation
SET history_tokens = :history_tokens, history_reasoning = :history_reasoning,
    history_model = :history_model, history_fixed = :history_fixed
WHERE tenant = :tenant AND conversation = :conversation

-- name: insert_handle
INSERT INTO perdure_handle (tenant, conversation, upstream, handle, kind, position, turn_seq, body,
    confirmed_at)
VALUES (:tenant, :conversation, :upstream, :handle, :kind, :position, :turn_seq, :body, perdure_now())
ON CONFLICT (handle, upstream, tenant) DO NOTHING

-- name: goes_on_from
-- What a response in the background goes on from, or was given, as `complete_conversation` has it.
SELECT CASE WHEN t.dialect <> 'responses' THEN c.rebuilt_with
            WHEN :rebuilt THEN t.adopted
            WHEN t.handle IS NULL THEN c.rebuilt_with
            ELSE h.rebuilt_with END
FROM perdure_turn t
JOIN perdure_conversation c ON c.conversation = :conversation
LEFT JOIN perdure_handle h ON h.handle = t.handle AND h.upstream = :upstream AND h.tenant = :tenant
WHERE t.key = (:conversation << 32) + :seq

-- name: comes_first
UPDATE perdure_conversation SET unread = :seq
WHERE tenant = :tenant AND conversation = :conversation
  AND (:dialect = 'conversations' OR subject IS NOT NULL)

-- name: rebuild_underway
-- A chain's replica is rebuilt by the response itself, which may be given less than there was.
UPDATE perdure_conversation
SET generation = generation + (:dialect = 'responses'), history_tokens = NULL
WHERE tenant = :tenant AND conversation = :conversation
RETURNING generation

-- name: place_response
-- Where a response stands, and what it goes on from: one in the background stands behind its question
-- until it has its answer.
UPDATE perdure_handle SET position = :position, rebuilt_with = :rebuilt_with
WHERE handle = :handle AND upstream = :upstream AND tenant = :tenant

-- name: show_handle
UPDATE perdure_handle SET body = :body
WHERE handle = :handle AND upstream = :upstream AND tenant = :tenant
  AND conversation = :conversation AND turn_seq = :turn_seq

-- name: insert_turn
INSERT INTO perdure_turn (key, tenant, turn_id, kind, state, dialect, handle, parent,
    first_position, last_position, body_hash, request, epoch, lease_until, deadline, accepted_at,
    adopted)
VALUES ((:conversation << 32) + :seq, :tenant, :turn_id, :kind, :state, :dialect, :handle, :parent,
    :first_position, :last_position, :body_hash, :request, 1, perdure_now() + :lease_seconds,
    perdure_now() + :deadline_seconds, perdure_now(),
    (SELECT r.adopted FROM perdure_conversation c JOIN perdure_conversation r
        ON r.conversation = COALESCE(c.root, c.conversation) WHERE c.conversation = :conversation))

-- name: insert_item
INSERT INTO perdure_item (key, turn_seq, kind, role, call_id, provider_id, wire, input, tokens,
    created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, COALESCE(?, perdure_now()))

-- name: advance
UPDATE perdure_conversation
SET last_position = :last_position, last_seq = :last_seq, open_from = COALESCE(open_from, :open_from)
WHERE tenant = :tenant AND conversation = :conversation

-- name: take_turn
UPDATE perdure_turn SET state = 'delivering', epoch = epoch + 1,
    lease_until = perdure_now() + :lease_seconds, reason = NULL,
    deadline = CASE WHEN :retry THEN deadline ELSE perdure_now() + :deadline_seconds END,
    adopted = (SELECT r.adopted FROM perdure_conversation c JOIN perdure_conversation r
              ON r.conversation = COALESCE(c.root, c.conversation)
              WHERE c.conversation = :conversation)
WHERE key = (:conversation << 32) + :seq
RETURNING epoch

-- name: keep_waiting
-- One that had failed is in line again.
UPDATE perdure_turn SET state = 'pending', lease_until = perdure_now() + :lease_seconds
WHERE key = (:conversation << 32) + :seq AND state IN ('pending', 'failed')

-- name: restore_items
UPDATE perdure_item SET withdrawn = 0
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key <= (:conversation << 32) + 2147483648 + :last_position

-- name: insert_answer
INSERT INTO perdure_answer (status, content_type, body) VALUES (:status, :content_type, :body)

-- name: read_answer
SELECT status, body, content_type FROM perdure_answer WHERE answer = :answer

-- name: lacks_unanswered
-- Whether a chain lacks what stands between its head and a turn: questions that got no answer.
SELECT 1 FROM perdure_handle h
WHERE h.handle = :head AND h.upstream = :upstream AND h.tenant = :tenant
  AND h.conversation = :conversation AND h.position < :through AND EXISTS (
    SELECT 1 FROM perdure_item
    WHERE key > (:conversation << 32) + 2147483648 + h.position
      AND key <= (:conversation << 32) + 2147483648 + :through
      AND withdrawn = 0 AND tombstoned_at IS NULL)

-- name: another_unknown
SELECT 1 FROM perdure_turn
WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
  AND key <> (:conversation << 32) + :seq
  AND (state = 'unknown' OR (state = 'delivering' AND lease_until <= perdure_now()))
LIMIT 1

-- name: reopen
UPDATE perdure_conversation SET open_from = MIN(COALESCE(open_from, :seq), :seq)
WHERE conversation = :conversation

-- name: others_behind
SELECT 1 FROM perdure_item
WHERE key > (:conversation << 32) + 2147483648 + :last_position AND key < (:conversation + 1) << 32
  AND turn_seq IS NOT :seq
LIMIT 1

-- name: later_behind
-- Whether anything stands behind a turn that is no answer to what stands before it.
SELECT 1 FROM perdure_item i
LEFT JOIN perdure_turn t ON t.key = (:conversation << 32) + i.turn_seq
WHERE i.key > (:conversation << 32) + 2147483648 + :last_position
  AND i.key < (:conversation + 1) << 32
  AND i.withdrawn = 0 AND i.kind <> '' AND COALESCE(t.first_position > :first_position, 1)
LIMIT 1

-- name: others_to_be_seen_behind
SELECT 1 FROM perdure_item
WHERE key > (:conversation << 32) + 2147483648 + :last_position AND key < (:conversation + 1) << 32
  AND turn_seq IS NOT :seq AND withdrawn = 0
LIMIT 1

-- name: has_spoken
-- Whether the log has what a run answered; what was only shown of it has no id.
SELECT 1 FROM perdure_item
WHERE key > (:conversation << 32) + 2147483648 + MAX(:last_position, COALESCE((
        SELECT outputs_at FROM perdure_turn WHERE key = (:conversation << 32) + :seq),
        :last_position))
  AND key < (:conversation + 1) << 32
  AND turn_seq = :seq AND role = 'assistant' AND provider_id IS NOT NULL AND withdrawn = 0
LIMIT 1

-- name: withdraw_own
UPDATE perdure_item SET withdrawn = 1
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key <= (:conversation << 32) + 2147483648 + :last_position

-- name: repeat_items
INSERT INTO perdure_item (key, turn_seq, kind, role, call_id, wire, input, tokens, created_at)
SELECT key + :by, turn_seq, kind, role, call_id, wire, input, tokens, created_at
FROM perdure_item
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key <= (:conversation << 32) + 2147483648 + :last_position

-- name: erase_repeated
-- What was never sent, or refused, has no place in what others were answered from. The row keeps
-- the position, so that positions have no gaps.
UPDATE perdure_item
SET turn_seq = NULL, kind = '', role = NULL, call_id = NULL, provider_id = NULL, wire = '',
    input = NULL, tokens = 0, tombstoned_at = perdure_now()
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key <= (:conversation << 32) + 2147483648 + :last_position
  AND withdrawn

-- name: move_turn
-- What is to be seen still of a cut answer stays: others may have been answered from it.
UPDATE perdure_turn
SET parent = :parent, first_position = :first_position, last_position = :last_position,
    shown_of = NULL,
    left_at = CASE WHEN :left THEN json_insert(COALESCE(left_at, '[]'), '$[#]', first_position)
        ELSE left_at END
WHERE key = (:conversation << 32) + :seq

-- name: reach
UPDATE perdure_conversation SET last_position = :last_position
WHERE conversation = :conversation

-- name: complete_turn
UPDATE perdure_turn SET state = 'answered', handed = 1, lease_until = NULL, answer = :answer,
    former_ids = CASE WHEN response_id IS NULL OR response_id = :response_id THEN former_ids
        ELSE json_insert(COALESCE(former_ids, '[]'), '$[#]', response_id) END,
    response_id = COALESCE(:response_id, response_id), model = :model,
    input_tokens = :input_tokens, answered_at = perdure_now()
WHERE key = (:conversation << 32) + :seq AND epoch = :epoch AND tenant = :tenant
  -- A run that was given up may have come to its end all the same.
  AND (state IN ('delivering', 'unknown') OR state = 'failed' AND :handle_kind = 'run')
RETURNING last_position

-- name: underway_turn
UPDATE perdure_turn SET former_ids = CASE
        WHEN response_id IS NULL OR response_id = :response_id THEN former_ids
        ELSE json_insert(COALESCE(former_ids, '[]'), '$[#]', response_id) END,
    response_id = :response_id, lease_until = NULL, handed = 1, state = 'delivering',
    outputs_of = CASE WHEN :refused IS NULL THEN COALESCE(:outputs_of, outputs_of) END,
    outputs_at = CASE WHEN :outputs_of IS NULL OR :outputs_of IS outputs_of THEN outputs_at
        ELSE (SELECT last_position FROM perdure_conversation WHERE conversation = :conversation) END,
    outputs_unread = CASE WHEN :outputs_of IS NULL OR :outputs_of IS outputs_of THEN outputs_unread
        ELSE (SELECT unread IS :seq FROM perdure_conversation WHERE conversation = :conversation) END,
    outputs_again = CASE WHEN :outputs_of IS NULL THEN outputs_again
        ELSE :outputs_of IS outputs_of END
WHERE key = (:conversation << 32) + :seq AND epoch = :epoch AND tenant = :tenant
  AND (state = 'unknown' OR (state = 'delivering' AND (lease_until > perdure_now()
       OR response_id = :response_id)))
  AND (COALESCE(:outputs_of, :refused) IS NULL OR lease_until IS NULL
       OR lease_until <= perdure_now())
  AND (:refused IS NULL OR (outputs_of = :refused AND NOT outputs_again))
  AND NOT (:unasked AND COALESCE(outputs_of <> :outputs_of, 0))
RETURNING outputs_of, outputs_unread

-- name: fail_turn
UPDATE perdure_turn SET state = :state, reason = :reason, lease_until = NULL
WHERE key = (:conversation << 32) + :seq AND epoch = :epoch AND tenant = :tenant
  AND state IN ('pending', 'delivering', 'unknown')
RETURNING first_position, dialect, shown_of

-- name: withdraw_items
UPDATE perdure_item SET withdrawn = 1
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key < (:conversation + 1) << 32 AND turn_seq = :seq

-- name: shown
UPDATE perdure_turn SET shown_of = :shown_of
WHERE key = (:conversation << 32) + :seq

-- name: shown_of
SELECT shown_of FROM perdure_turn WHERE key = (:conversation << 32) + :seq

-- name: withdraw_shown
-- What was shown of an answer before it was cut, once the turn has its whole answer, or of one message
-- once it is there.
UPDATE perdure_item SET withdrawn = 1
WHERE key IN (
        SELECT (:conversation << 32) + 2147483648 + json_extract(part.value, '$[0]')
        FROM perdure_turn AS t, json_each(t.shown_of) AS part
        WHERE t.key = (:conversation << 32) + :seq
          AND (:message_id IS NULL
               OR COALESCE(json_extract(part.value, '$[1]'), :message_id) = :message_id))

-- name: withdraw_unheard
-- What was shown of a run that is gone with its thread, unless the thread that there is now was given
-- it, or something stands behind it: an answer may have been made from it.
UPDATE perdure_item SET withdrawn = 1
WHERE key IN (
        SELECT (:conversation << 32) + 2147483648 + json_extract(part.value, '$[0]')
        FROM perdure_turn AS t, json_each(t.shown_of) AS part
        WHERE t.key = (:conversation << 32) + :seq)
  AND NOT EXISTS (
        SELECT 1 FROM perdure_conversation
        WHERE conversation = :conversation AND replica_state = 'live'
          AND primed_through >= perdure_item.position)
  AND NOT EXISTS (
        SELECT 1 FROM perdure_item i
        WHERE i.key > perdure_item.key AND i.key < (:conversation + 1) << 32
          AND i.turn_seq IS NOT :seq AND i.withdrawn = 0)

-- name: held_turn
SELECT 1 FROM perdure_turn
WHERE key = (:conversation << 32) + :seq AND epoch = :epoch AND state = 'delivering'

-- name: renew
UPDATE perdure_turn SET lease_until = perdure_now() + :lease_seconds
WHERE key = (:conversation << 32) + :seq AND epoch = :epoch AND tenant = :tenant
  AND state = 'delivering' AND lease_until IS NOT NULL

-- name: unsettled
SELECT seq, epoch, COALESCE(turn_id, conversation || '.' || seq), kind, request, first_position,
       last_position
FROM perdure_turn
WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
  AND (state = 'unknown' OR key = (:conversation << 32) + :asking)
ORDER BY first_position

-- name: own_items
SELECT position, kind, role, call_id, provider_id, wire, COALESCE(input, wire) AS input,
       created_at, tokens
FROM perdure_item
WHERE key >= (:conversation << 32) + 2147483648 + :first_position
  AND key <= (:conversation << 32) + 2147483648 + :last_position
ORDER BY key

-- name: newest_id_before
SELECT provider_id FROM perdure_item
WHERE key > (:conversation << 32) AND key < (:conversation << 32) + 2147483648 + :position
  AND provider_id IS NOT NULL AND tombstoned_at IS NULL
ORDER BY key DESC LIMIT 1

-- name: settle_replica
UPDATE perdure_conversation SET doubt = 0
WHERE tenant = :tenant AND conversation = :conversation AND generation = :generation
  AND COALESCE(rebuilt_with >= adopted, 1)
  AND NOT EXISTS (SELECT 1 FROM perdure_turn
                  WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
                    AND state = 'unknown')

-- name: doubt_replica
UPDATE perdure_conversation SET doubt = 1
WHERE tenant = :tenant AND conversation = :conversation

-- name: complete_conversation
UPDATE perdure_conversation
SET last_position = last_position + :added, confirmed_at = perdure_now(),
    replica_state = CASE WHEN :head IS NULL THEN replica_state ELSE 'live' END,
    rebuilt_with = CASE WHEN :head IS NULL THEN rebuilt_with ELSE (
        SELECT CASE WHEN :rebuilt THEN t.adopted
                    WHEN own.handle IS NOT NULL THEN own.rebuilt_with
                    WHEN t.handle IS NULL THEN perdure_conversation.rebuilt_with
                    ELSE h.rebuilt_with END
        FROM perdure_turn t
        LEFT JOIN perdure_handle own ON own.handle = :response_id AND own.upstream = :upstream
            AND own.tenant = :tenant
        LEFT JOIN perdure_handle h ON h.handle = t.handle AND h.upstream = :upstream
            AND h.tenant = :tenant
        WHERE t.key = (:conversation << 32) + :seq) END,
    replica_handle = COALESCE(:head, replica_handle),
    dialect = :dialect,
    generation = generation + :rebuilt,
    primed_through = CASE WHEN generation = :primed THEN last_position + :added
                          ELSE primed_through END,
    open_from = CASE WHEN EXISTS (
            SELECT 1 FROM perdure_turn
            WHERE key >= (:conversation << 32) + open_from AND key < (:conversation + 1) << 32
              AND key <> (:conversation << 32) + :seq
              AND (state IN ('pending', 'delivering') AND lease_until IS NOT NULL
                   OR state = 'unknown' AND dialect <> 'responses'))
        THEN open_from END,
    -- What was measured on another replica, or before something was deleted, is no bound.
    history_tokens = CASE WHEN generation <> :measured_on THEN history_tokens
                          WHEN :seq > shrunk THEN :history_tokens END,
    history_reasoning = CASE WHEN generation <> :measured_on THEN history_reasoning
                             ELSE :history_reasoning END,
    history_model = CASE WHEN generation <> :measured_on THEN history_model ELSE :history_model END,
    history_fixed = CASE WHEN generation <> :measured_on THEN history_fixed ELSE :history_fixed END,
    unread = CASE WHEN :unread = 1 THEN COALESCE(unread, :seq)
                  WHEN :unread = 0 AND unread = :seq THEN NULL ELSE unread END
WHERE tenant = :tenant AND conversation = :conversation
RETURNING last_position, generation, rebuilt_with

-- name: lacks_another
-- What was answered elsewhere meanwhile is not on the replica: an answer made in the background.
SELECT c.dialect, c.replica_handle FROM perdure_conversation c
JOIN perdure_turn AS own ON own.key = (:conversation << 32) + :seq
WHERE c.conversation = :conversation AND c.generation = :primed AND EXISTS (
    SELECT 1 FROM perdure_item AS item
    JOIN perdure_turn AS other ON other.key = (:conversation << 32) + item.turn_seq
    WHERE item.key > (:conversation << 32) + 2147483648 + MAX(c.primed_through, own.last_position)
      AND item.key < (:conversation + 1) << 32
      AND item.turn_seq <> :seq AND item.withdrawn = 0 AND other.state = 'answered')

-- name: overtaken
-- A subject's replica that has answered something since, and what the answer goes on from.
SELECT c.dialect, c.replica_handle, h.rebuilt_with FROM perdure_conversation c
LEFT JOIN perdure_handle h ON h.handle = :head AND h.upstream = :upstream AND h.tenant = :tenant
WHERE c.tenant = :tenant AND c.conversation = :conversation AND c.subject IS NOT NULL
  AND c.replica_handle IS NOT NULL
  AND EXISTS (SELECT 1 FROM perdure_turn
              WHERE key > (:conversation << 32) + :seq AND key < (:conversation + 1) << 32
                AND state = 'answered')

-- name: overtakes
-- A subject's line that lacks what was answered on another while this one was made: the same there.
SELECT c.dialect, c.replica_handle FROM perdure_conversation c
WHERE c.tenant = :tenant AND c.conversation = :conversation AND c.subject IS NOT NULL AND EXISTS (
    SELECT 1 FROM perdure_item AS item
    JOIN perdure_turn AS other ON other.key = (:conversation << 32) + item.turn_seq
    WHERE item.key > (:conversation << 32) + 2147483648 + :own_last
      AND item.key < (:conversation + 1) << 32
      AND item.turn_seq <> :seq AND item.withdrawn = 0 AND other.state = 'answered')

-- name: lose_head
UPDATE perdure_conversation SET replica_state = 'lost'
WHERE tenant = :tenant AND conversation = :conversation AND replica_state = 'live'

-- name: settle
UPDATE perdure_conversation
SET open_from = CASE WHEN EXISTS (
            SELECT 1 FROM perdure_turn
            WHERE key >= (:conversation << 32) + open_from AND key < (:conversation + 1) << 32
              AND key <> (:conversation << 32) + :seq
              AND (state IN ('pending', 'delivering') AND lease_until IS NOT NULL
                   OR state = 'unknown' AND dialect <> 'responses'))
        THEN open_from END,
    unread = CASE WHEN :begins AND generation = :generation THEN :seq
                  WHEN :goes_on AND generation = :generation THEN MAX(COALESCE(unread, :seq), :seq)
                  WHEN :read_before AND unread = :seq THEN NULL
                  ELSE unread END
WHERE tenant = :tenant AND conversation = :conversation
RETURNING last_position

-- name: insert_recovery
INSERT INTO perdure_recovery (tenant, conversation, generation, turn_id, reason, lost_handle,
    new_handle, memory, primed, left_out, requests, created_at)
VALUES (:tenant, :conversation, :generation, :turn_id, :reason, :lost_handle, :new_handle, :memory,
    :primed, :left_out, :requests, perdure_now())
ON CONFLICT (conversation, generation) DO UPDATE SET
    turn_id = excluded.turn_id, memory = excluded.memory, primed = excluded.primed,
    left_out = excluded.left_out, requests = excluded.requests

-- name: refresh_handle
UPDATE perdure_handle SET body = :body
WHERE tenant = :tenant AND upstream = :upstream AND handle = :handle
  AND kind IN ('conversation', 'thread', 'run')

-- name: refresh_answer
-- Of a run that has ended.
UPDATE perdure_answer SET body = :body
WHERE answer = (
    SELECT t.answer FROM perdure_handle h
    JOIN perdure_turn t ON t.key = (h.conversation << 32) + h.turn_seq AND t.response_id = h.handle
    WHERE h.tenant = :tenant AND h.upstream = :upstream AND h.handle = :handle AND h.kind = 'run')

-- name: mark_handle
UPDATE perdure_handle SET state = :state
WHERE tenant = :tenant AND upstream = :upstream AND handle = :handle AND state <> 'retired'

-- name: mark_replica
UPDATE perdure_conversation SET replica_state = :state
WHERE tenant = :tenant AND replica_handle = :handle AND replica_state <> 'retired'
  AND conversation = (
    SELECT conversation FROM perdure_handle
    WHERE tenant = :tenant AND upstream = :upstream AND handle = :handle)

-- name: intend
INSERT INTO perdure_orphan (tenant, conversation, upstream, dialect, intent, reason, created_at)
VALUES (:tenant, :conversation, :upstream, :dialect, :intent, 'create intended', perdure_now())

-- name: drop_intent
DELETE FROM perdure_orphan WHERE intent = :intent AND tenant = :tenant

-- name: insert_orphan
INSERT INTO perdure_orphan (tenant, conversation, upstream, dialect, handle, reason, created_at)
VALUES (:tenant, :conversation, :upstream, :dialect, :handle, :reason, perdure_now())
RETURNING key

-- name: bind_replica
UPDATE perdure_conversation
SET replica_state = 'live', replica_handle = :handle, generation = generation + 1,
    primed_through = :primed_through, confirmed_at = perdure_now(), doubt = 0,
    rebuilt_with = adopted, unread = NULL, history_tokens = NULL, dialect = :dialect
WHERE tenant = :tenant AND conversation = :conversation AND generation = :generation
  AND (doubt OR NOT :doubtful) AND (replica_state <> 'retired' OR dialect = 'responses')
RETURNING last_position

-- name: more_than_primed
-- Whether the log has more than a thread was given and a turn brings.
SELECT 1 FROM perdure_conversation
WHERE tenant = :tenant AND conversation = :conversation AND first_position < :primed_from
UNION ALL
SELECT 1 FROM perdure_item
WHERE key > (:conversation << 32) + 2147483648 + :primed_through AND key < (:conversation + 1) << 32
  AND withdrawn = 0 AND tombstoned_at IS NULL AND turn_seq IS NOT :seq
LIMIT 1

-- name: doubt_thread_without
-- What was written to the thread of a generation, one that has taken its place may not have.
UPDATE perdure_conversation SET doubt = 1
WHERE tenant = :tenant AND conversation = :conversation AND generation <> :generation
  AND primed_through < :position

-- name: set_subject_replica
UPDATE perdure_conversation
SET replica_state = 'live', replica_handle = :handle, dialect = :dialect, confirmed_at = perdure_now(),
    generation = :generation, primed_through = :primed_through, doubt = 0,
    rebuilt_with = adopted, unread = NULL, history_tokens = NULL, upstream = :upstream
WHERE tenant = :tenant AND conversation = :conversation

-- name: turn_of_handle
SELECT COALESCE(turn_id, conversation || '.' || seq), seq, epoch, state, request, answer, response_id
FROM perdure_turn WHERE key = (:conversation << 32) + :seq

-- name: replace_handle
UPDATE perdure_handle SET replaced_by = :new
WHERE tenant = :tenant AND upstream = :upstream AND handle = :handle

-- name: tombstone
UPDATE perdure_item SET tombstoned_at = perdure_now()
WHERE provider_id = :provider_id AND conversation = :conversation
  AND tombstoned_at IS NULL
RETURNING position, turn_seq

-- name: tombstone_elsewhere
-- One of a turn's own items stands wherever its turn has stood, as far from where that began. What was
-- shown of an answer before it was cut stays where others were answered, too.
WITH turn AS (
    SELECT first_position, last_position, left_at FROM perdure_turn
    WHERE key = (:conversation << 32) + :seq AND left_at IS NOT NULL
), begun (at, length) AS (
    SELECT first_position, last_position - first_position FROM turn
    UNION ALL
    SELECT value, last_position - first_position FROM turn, json_each(left_at)
)
UPDATE perdure_item SET tombstoned_at = perdure_now()
WHERE tombstoned_at IS NULL AND key IN (
        SELECT (:conversation << 32) + 2147483648 + other.at + :position - here.at
        FROM begun AS here, begun AS other
        WHERE :position >= here.at AND :position <= here.at + here.length
        UNION ALL
        SELECT shown.key FROM perdure_item AS shown
        WHERE shown.key > (:conversation << 32) + 2147483648 + (SELECT MIN(at) FROM begun)
          AND shown.key < (:conversation << 32) + 2147483648 + :position
          AND shown.turn_seq = :seq AND shown.role = 'assistant' AND shown.provider_id IS NULL
          AND NOT EXISTS (
              SELECT 1 FROM begun
              WHERE shown.position >= at AND shown.position <= at + length
                 OR :position >= at AND :position <= at + length))

-- name: begin_at
UPDATE perdure_conversation SET first_position = :first_position
WHERE tenant = :tenant AND conversation = :conversation

-- name: pass_generation
UPDATE perdure_conversation SET generation = generation + 1
WHERE tenant = :tenant AND conversation = :conversation

-- name: history_shrinks
-- That of a conversation and of every branch that hangs on it.
UPDATE perdure_conversation SET history_tokens = NULL, shrunk = last_seq WHERE conversation IN (
    WITH RECURSIVE family(conversation) AS (
        VALUES (:conversation)
        UNION
        SELECT c.conversation FROM perdure_conversation c
        JOIN family f ON c.origin_conversation = f.conversation)
    SELECT conversation FROM family)

-- name: tombstone_turn_output
UPDATE perdure_item SET tombstoned_at = perdure_now()
WHERE key > (:conversation << 32) + 2147483648 + (
        SELECT last_position FROM perdure_turn WHERE key = (:conversation << 32) + :seq)
  AND key < (:conversation + 1) << 32
  AND turn_seq = :seq AND provider_id IS NOT NULL AND tombstoned_at IS NULL

-- name: history
SELECT position, kind, role, call_id, provider_id, CASE WHEN instr(wire, :wire) THEN wire ELSE '' END AS wire,
       COALESCE(input, wire) AS input,
       created_at, tokens
FROM perdure_item
WHERE key > (:conversation << 32) AND key <= (:conversation << 32) + 2147483648 + :through
  AND withdrawn = 0 AND tombstoned_at IS NULL
ORDER BY key DESC

-- name: count_older
-- How many items that are to be seen stand before a position: those there are, less the hidden ones.
SELECT MAX(MIN(:position, 1) - first_position, 0)
       + MAX(MIN(:position, last_position + 1) - COALESCE(origin_position, 0) - 1, 0)
       - (SELECT COUNT(*) FROM perdure_item
          WHERE key > (:conversation << 32) AND key < (:conversation << 32) + 2147483648 + :position
            AND (withdrawn OR tombstoned_at IS NOT NULL))
FROM perdure_conversation WHERE conversation = :conversation

-- name: origin
SELECT origin_conversation, origin_position, adopting FROM perdure_conversation
WHERE tenant = :tenant AND conversation = :conversation

-- name: milestones
SELECT text FROM perdure_milestone
WHERE tenant = :tenant AND conversation = :conversation ORDER BY number

-- name: item_position
SELECT position FROM perdure_item
WHERE provider_id = :provider_id AND conversation = :conversation

-- name: turn_of_response
SELECT t.seq, t.first_position, t.last_position FROM perdure_handle h
JOIN perdure_turn t ON t.key = (:conversation << 32) + h.turn_seq
WHERE h.handle = :response AND h.conversation = :conversation AND t.response_id = :response

-- name: page_newest
SELECT i.position, i.kind, i.role, i.call_id, i.provider_id, i.wire, '' AS input, i.created_at,
       i.tokens, COALESCE(t.turn_id, t.conversation || '.' || t.seq)
FROM perdure_item i
LEFT JOIN perdure_turn t ON t.key = (:conversation << 32) + i.turn_seq
WHERE i.key > (:conversation << 32) + 2147483648 + :low
  AND i.key < (:conversation << 32) + 2147483648 + :high
  AND i.withdrawn = 0 AND i.tombstoned_at IS NULL
  AND (:seq IS NULL OR i.turn_seq = :seq)
ORDER BY i.key DESC LIMIT :limit

-- name: page_oldest
SELECT i.position, i.kind, i.role, i.call_id, i.provider_id, i.wire, '' AS input, i.created_at,
       i.tokens, COALESCE(t.turn_id, t.conversation || '.' || t.seq)
FROM perdure_item i
LEFT JOIN perdure_turn t ON t.key = (:conversation << 32) + i.turn_seq
WHERE i.key > (:conversation << 32) + 2147483648 + :low
  AND i.key < (:conversation << 32) + 2147483648 + :high
  AND i.withdrawn = 0 AND i.tombstoned_at IS NULL
  AND (:seq IS NULL OR i.turn_seq = :seq)
ORDER BY i.key ASC LIMIT :limit

-- name: runs_newest
SELECT t.response_id, t.state = 'answered', COALESCE(a.body, h.body)
FROM perdure_turn t
JOIN perdure_handle h ON h.handle = t.response_id AND h.upstream = :upstream AND h.tenant = :tenant
LEFT JOIN perdure_answer a ON a.answer = t.answer
WHERE t.key > (:conversation << 32) + :above AND t.key < (:conversation << 32) + :below
  AND t.tenant = :tenant AND h.kind = 'run' AND h.conversation = :conversation
ORDER BY t.key DESC LIMIT :limit

-- name: runs_oldest
SELECT t.response_id, t.state = 'answered', COALESCE(a.body, h.body)
FROM perdure_turn t
JOIN perdure_handle h ON h.handle = t.response_id AND h.upstream = :upstream AND h.tenant = :tenant
LEFT JOIN perdure_answer a ON a.answer = t.answer
WHERE t.key > (:conversation << 32) + :above AND t.key < (:conversation << 32) + :below
  AND t.tenant = :tenant AND h.kind = 'run' AND h.conversation = :conversation
ORDER BY t.key ASC LIMIT :limit

-- name: one_item
SELECT position, kind, role, call_id, provider_id, wire, '' AS input, created_at, tokens
FROM perdure_item
WHERE provider_id = :provider_id AND withdrawn = 0 AND tombstoned_at IS NULL
  AND (:conversation IS NULL OR conversation = :conversation)
  AND EXISTS (SELECT 1 FROM perdure_conversation c
              WHERE c.conversation = perdure_item.conversation AND c.tenant = :tenant)
LIMIT 1

-- name: set_provider_id
UPDATE perdure_item
SET provider_id = :provider_id, input = COALESCE(input, wire), wire = :wire
WHERE key = (:conversation << 32) + 2147483648 + :position

-- name: first_position
SELECT first_position FROM perdure_conversation
WHERE tenant = :tenant AND conversation = :conversation

-- name: adopted
-- A shared replica that lacks this may have what nobody has read yet, so it is only doubtful.
UPDATE perdure_conversation
SET first_position = :first_position, adopted = adopted + :added,
    doubt = CASE WHEN replica_state = 'live' AND dialect <> 'responses'
                 AND rebuilt_with < adopted + :added THEN 1 ELSE doubt END,
    adopting = CASE WHEN :done THEN NULL WHEN :given_up THEN 9e15
                    ELSE perdure_now() + :lease_seconds END
WHERE tenant = :tenant AND conversation = :conversation

-- name: adopting
UPDATE perdure_conversation SET adopting = perdure_now() + :lease_seconds
WHERE tenant = :tenant AND conversation = :conversation AND adopting <= perdure_now()
RETURNING (SELECT t.handle FROM perdure_turn t WHERE t.key = (:conversation << 32) + 1)

-- name: is_orphan
SELECT 1 FROM perdure_orphan
WHERE handle = :handle AND tenant = :tenant AND upstream = :upstream AND deleted_at IS NULL LIMIT 1

-- name: orphans_of
SELECT key, upstream, dialect, handle FROM perdure_orphan
WHERE tenant = :tenant AND conversation = :conversation AND deleted_at IS NULL AND handle IS NOT NULL
ORDER BY key

-- name: orphans
SELECT key, upstream, dialect, handle FROM perdure_orphan
WHERE tenant = :tenant AND upstream = :upstream AND deleted_at IS NULL AND handle IS NOT NULL
  AND (dialect <> 'conversations' OR created_at <= perdure_now() - :settled_seconds
       OR reason NOT IN ('given up', 'answered without the history', 'has what was deleted'))
ORDER BY key LIMIT :limit

-- name: orphan_gone
UPDATE perdure_orphan SET deleted_at = perdure_now() WHERE key = :key AND tenant = :tenant

-- name: leftovers
-- A create that was begun a moment ago may yet be entered.
SELECT COALESCE(SUM(handle IS NOT NULL), 0),
       COALESCE(SUM(handle IS NULL AND created_at < perdure_now() - 600), 0)
FROM perdure_orphan
WHERE tenant = :tenant AND (:upstream IS NULL OR upstream = :upstream) AND deleted_at IS NULL

-- name: throttle
INSERT INTO perdure_throttle (tenant, upstream, until)
VALUES (:tenant, :upstream, perdure_now() + :seconds)
ON CONFLICT (tenant, upstream) DO UPDATE SET until = MAX(until, excluded.until)

-- name: throttled
SELECT until - perdure_now() FROM perdure_throttle
WHERE tenant = :tenant AND upstream = :upstream

-- name: unused
SELECT c.conversation FROM perdure_conversation c
JOIN perdure_turn t ON t.key = (c.conversation << 32) + 1
WHERE c.tenant = :tenant AND c.upstream = :upstream AND c.last_seq = 1 AND c.subject IS NULL
  AND c.origin_conversation IS NULL AND c.dialect = 'responses' AND t.handle IS NULL
  AND t.state IN ('answered', 'failed') AND c.confirmed_at < perdure_now() - :idle_seconds
  AND NOT EXISTS (SELECT 1 FROM perdure_conversation b WHERE b.origin_conversation = c.conversation)
  AND NOT EXISTS (SELECT 1 FROM perdure_milestone m WHERE m.conversation = c.conversation)
ORDER BY c.confirmed_at LIMIT :limit

-- name: pin
INSERT INTO perdure_milestone (tenant, conversation, number, text, created_at)
SELECT :tenant, :conversation, COALESCE(MAX(number), 0) + 1, :text, perdure_now()
FROM perdure_milestone WHERE tenant = :tenant AND conversation = :conversation
RETURNING number

-- name: newest_entries
-- What was shown of an answer is left out where that stands in the log whole, or is being made again;
-- what was refused is there, with its state.
SELECT i.position, i.kind, i.role, i.wire, i.created_at, COALESCE(t.turn_id, t.conversation || '.' || t.seq),
       t.seq, t.state, i.tokens
FROM perdure_item i
LEFT JOIN perdure_turn t ON t.key = (:conversation << 32) + i.turn_seq
WHERE i.key > (:conversation << 32) + 2147483648 + :after
  AND i.key < (:conversation << 32) + 2147483648 + :before
  AND i.tombstoned_at IS NULL
  AND NOT (i.withdrawn AND COALESCE(t.state = 'answered' OR (t.state <> 'failed'
      AND i.position NOT BETWEEN t.first_position AND t.last_position), 0))
ORDER BY i.key DESC LIMIT :limit

-- name: oldest_entries
-- As newest_entries.
SELECT i.position, i.kind, i.role, i.wire, i.created_at, COALESCE(t.turn_id, t.conversation || '.' || t.seq),
       t.seq, t.state, i.tokens
FROM perdure_item i
LEFT JOIN perdure_turn t ON t.key = (:conversation << 32) + i.turn_seq
WHERE i.key > (:conversation << 32) + 2147483648 + :after
  AND i.key < (:conversation << 32) + 2147483648 + :before
  AND i.tombstoned_at IS NULL
  AND NOT (i.withdrawn AND COALESCE(t.state = 'answered' OR (t.state <> 'failed'
      AND i.position NOT BETWEEN t.first_position AND t.last_position), 0))
ORDER BY i.key ASC LIMIT :limit

-- name: recoveries
SELECT conversation, turn_id, reason, generation, lost_handle, new_handle, memory, primed, left_out,
       requests
FROM perdure_recovery WHERE tenant = :tenant AND conversation = :conversation

-- name: read_recovery
SELECT conversation, turn_id, reason, generation, lost_handle, new_handle, memory, primed, left_out,
       requests
FROM perdure_recovery
WHERE tenant = :tenant AND conversation = :conversation AND generation = :generation

-- name: read_turn
SELECT t.seq, t.state, t.response_id, r.conversation, r.turn_id, r.reason, r.generation,
       r.lost_handle, r.new_handle, r.memory, r.primed, r.left_out, r.requests
FROM perdure_turn t
LEFT JOIN perdure_recovery r ON r.conversation = t.conversation AND r.turn_id = t.turn_id
WHERE t.tenant = :tenant AND t.turn_id = :turn_id
ORDER BY r.generation DESC LIMIT 1

-- name: family
-- A subject's conversation and every branch that hangs on it.
WITH RECURSIVE family(conversation) AS (
    SELECT conversation FROM perdure_conversation WHERE tenant = :tenant AND subject = :subject
    UNION
    SELECT c.conversation FROM perdure_conversation c
    JOIN family f ON c.origin_conversation = f.conversation)
SELECT conversation FROM family

-- name: ids_of
-- Every id that a conversation was ever known by, or that one of its turns used or was given.
SELECT replica_handle FROM perdure_conversation WHERE conversation = :conversation
UNION SELECT handle FROM perdure_handle
      WHERE conversation = :conversation AND kind <> 'response'
UNION SELECT lost_handle FROM perdure_recovery WHERE conversation = :conversation
UNION SELECT new_handle FROM perdure_recovery WHERE conversation = :conversation
UNION SELECT handle FROM perdure_turn
      WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
UNION SELECT response_id FROM perdure_turn
      WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
UNION SELECT j.value FROM perdure_turn, json_each(former_ids) j
      WHERE perdure_turn.key > (:conversation << 32)
        AND perdure_turn.key < (:conversation + 1) << 32

-- name: handle_of
SELECT upstream, kind, handle, state FROM perdure_handle
WHERE handle = :handle AND conversation = :conversation

-- name: is_apart
SELECT c.unread = :seq AND t.outputs_unread
FROM perdure_conversation c JOIN perdure_turn t ON t.key = (:conversation << 32) + :seq
WHERE c.tenant = :tenant AND c.conversation = :conversation

-- name: nothing_unread
UPDATE perdure_conversation SET unread = NULL
WHERE tenant = :tenant AND conversation = :conversation AND unread = :seq

-- name: turn_of_run
SELECT h.turn_seq FROM perdure_handle h
JOIN perdure_conversation c ON c.conversation = h.conversation AND c.upstream = h.upstream
WHERE h.handle = :run_id AND h.tenant = :tenant AND h.conversation = :conversation
  AND h.turn_seq IS NOT NULL

-- name: taken
SELECT 1 FROM perdure_turn
WHERE key = (:conversation << 32) + :seq AND state = 'delivering' AND lease_until > perdure_now()

-- name: run_of_unknown_id
-- Whether a run is being started, or may have been, of which it is not known under which id.
SELECT 1 FROM perdure_turn
WHERE key < (:conversation + 1) << 32
  AND key >= (:conversation << 32) + (SELECT COALESCE(open_from, last_seq + 1)
                                      FROM perdure_conversation WHERE conversation = :conversation)
  AND kind = 'run' AND state = 'delivering' AND lease_until IS NOT NULL
UNION ALL
SELECT 1 FROM perdure_turn
WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32
  AND kind = 'run' AND state = 'unknown'
LIMIT 1

-- name: count_items_of
SELECT COUNT(*) FROM perdure_item
WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32 AND kind <> ''

-- name: count_turns_of
SELECT COUNT(*) FROM perdure_turn WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32

-- name: count_milestones_of
SELECT COUNT(*) FROM perdure_milestone WHERE tenant = :tenant AND conversation = :conversation

-- name: erase_item
DELETE FROM perdure_item WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32

-- name: erase_answer
DELETE FROM perdure_answer WHERE answer IN (
    SELECT answer FROM perdure_turn
    WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32)

-- name: erase_turn
DELETE FROM perdure_turn WHERE key > (:conversation << 32) AND key < (:conversation + 1) << 32

-- name: erase_milestone
DELETE FROM perdure_milestone WHERE tenant = :tenant AND conversation = :conversation

-- name: erase_recovery
DELETE FROM perdure_recovery WHERE tenant = :tenant AND conversation = :conversation

-- name: erase_handle
DELETE FROM perdure_handle WHERE handle = :handle AND conversation = :conversation

-- name: erase_conversation
DELETE FROM perdure_conversation WHERE tenant = :tenant AND conversation = :conversation

-- name: indexed
SELECT low, high FROM perdure_indexed WHERE conversation = :conversation

-- name: set_indexed
INSERT INTO perdure_indexed (conversation, low, high) VALUES (:conversation, :low, :high)
ON CONFLICT (conversation) DO UPDATE SET low = excluded.low, high = excluded.high

-- name: unindexed
SELECT c.conversation FROM perdure_conversation c
LEFT JOIN perdure_indexed x ON x.conversation = c.conversation
WHERE c.tenant = :tenant AND (c.last_position > COALESCE(x.high, 0)
                              OR c.first_position < COALESCE(x.low, 1))
LIMIT :limit

-- name: items_after
SELECT key, position, COALESCE(input, wire) FROM perdure_item
WHERE key > (:conversation << 32) + 2147483648 + :position AND key < (:conversation + 1) << 32
ORDER BY key LIMIT :limit

-- name: items_before
SELECT key, position, COALESCE(input, wire) FROM perdure_item
WHERE key > (:conversation << 32) AND key < (:conversation << 32) + 2147483648 + :position
ORDER BY key DESC LIMIT :limit

-- name: forms
SELECT key, COALESCE(input, wire) FROM perdure_item
WHERE key >= (:conversation << 32) + 2147483648 + :first
  AND key <= (:conversation << 32) + 2147483648 + :last
  AND withdrawn >= :withdrawn

-- name: enter
INSERT INTO perdure_search (rowid, text) VALUES (:key, :text)

-- name: leave
INSERT INTO perdure_search (perdure_search, rowid, text) VALUES ('delete', :key, :text)

-- name: search
SELECT rowid FROM perdure_search
WHERE perdure_search MATCH :terms AND rowid > (:conversation << 32)
  AND rowid <= (:conversation << 32) + 2147483648 + :through
ORDER BY rowid DESC LIMIT :limit

-- name: excerpt_newest
SELECT position, kind, role, call_id, provider_id, CASE WHEN instr(wire, :wire) THEN wire ELSE '' END AS wire,
       COALESCE(input, wire) AS input,
       created_at, tokens
FROM perdure_item
WHERE key >= (:conversation << 32) + 2147483648 + :first
  AND key <= (:conversation << 32) + 2147483648 + :last
  AND withdrawn = 0 AND tombstoned_at IS NULL
ORDER BY key DESC LIMIT :limit

-- name: excerpt_oldest
SELECT position, kind, role, call_id, provider_id, CASE WHEN instr(wire, :wire) THEN wire ELSE '' END AS wire,
       COALESCE(input, wire) AS input,
       created_at, tokens
FROM perdure_item
WHERE key >= (:conversation << 32) + 2147483648 + :first
  AND key <= (:conversation << 32) + 2147483648 + :last
  AND withdrawn = 0 AND tombstoned_at IS NULL
ORDER BY key ASC LIMIT :limit

-- name: erase_indexed
DELETE FROM perdure_indexed WHERE conversation = :conversation

-- name: newest_snapshot
SELECT through, items, text, maker, created_at FROM perdure_snapshot
WHERE conversation = :conversation AND through <= :through
ORDER BY through DESC LIMIT 1

-- name: keep_snapshot
INSERT INTO perdure_snapshot (conversation, through, items, text, maker, created_at)
VALUES (:conversation, :through, :items, :text, :maker, perdure_now())
ON CONFLICT (conversation, through) DO UPDATE SET items = excluded.items, text = excluded.text,
    maker = excluded.maker, created_at = excluded.created_at

-- name: drop_snapshots
-- Those of the conversation and of every branch that hangs on it.
DELETE FROM perdure_snapshot WHERE conversation IN (
    WITH RECURSIVE family(conversation) AS (
        VALUES (:conversation)
        UNION
        SELECT c.conversation FROM perdure_conversation c
        JOIN family f ON c.origin_conversation = f.conversation)
    SELECT conversation FROM family)

-- name: unsummarised
SELECT c.conversation, c.last_position FROM perdure_conversation c
WHERE c.tenant = :tenant AND c.conversation > :after AND c.last_position - COALESCE(
    (SELECT MAX(s.through) FROM perdure_snapshot s WHERE s.conversation = c.conversation),
    0) >= :items
ORDER BY c.conversation LIMIT :limit

-- name: erase_snapshot
DELETE FROM perdure_snapshot WHERE conversation = :conversation

-- name: count_snapshots_of
SELECT COUNT(*) FROM perdure_snapshot WHERE conversation = :conversation

-- name: merge_index
-- What was taken out of the index stands in it until its parts are merged.
INSERT INTO perdure_search (perdure_search) VALUES ('optimize')

-- name: conversations
SELECT conversation, subject, upstream, dialect, replica_handle, replica_state, last_position,
       created_at
FROM perdure_conversation
WHERE tenant = :tenant AND conversation > :after_conversation AND (:subject IS NULL OR subject = :subject)
ORDER BY conversation LIMIT :limit
