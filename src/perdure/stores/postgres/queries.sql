-- name: accept
SELECT outcome, conversation, seq, epoch, turn_id, through, handle_state, handle_age_seconds,
       dialect, generation, replica_state, replica_handle, primed_through, replica_age_seconds,
       doubtful, adopting, incomplete, accepted_items, known_items, again, history_tokens, history_reasoning,
       history_model, history_fixed, answer_status, answer_body, answer_type, unread, unread_ended
FROM perdure.accept(p_tenant => %(tenant)s, p_upstream => %(upstream)s, p_dialect => %(dialect)s,
    p_kind => %(kind)s, p_turn_id => %(turn_id)s, p_body_hash => %(body_hash)s,
    p_items => %(items)s::json, p_request => %(request)s, p_handle => %(handle)s,
    p_subject => %(subject)s, p_waiting_conversation => %(waiting_conversation)s,
    p_waiting_seq => %(waiting_seq)s, p_looked => %(looked)s, p_lost => %(lost)s,
    p_interim => %(interim)s, p_sent_ids => %(sent_ids)s::text[],
    p_lease_seconds => %(lease_seconds)s, p_retry => %(retry)s, p_once => %(once)s,
    p_deadline_seconds => %(deadline_seconds)s)

-- name: complete
SELECT perdure.complete(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_dialect => %(dialect)s, p_conversation => %(turn_conversation)s, p_seq => %(turn_seq)s,
    p_epoch => %(turn_epoch)s, p_status => %(status)s::integer, p_body => %(body)s,
    p_content_type => %(content_type)s, p_items => %(items)s::json,
    p_response_id => %(response_id)s, p_head => %(head)s, p_model => %(model)s,
    p_input_tokens => %(input_tokens)s, p_primed => %(primed)s,
    p_own_ids => %(own_ids)s::text[], p_own_wires => %(own_wires)s::text[],
    p_handle_kind => %(handle_kind)s, p_unread => %(unread)s, p_settles => %(settles)s,
    p_history_tokens => %(history_tokens)s, p_history_reasoning => %(history_reasoning)s,
    p_history_model => %(history_model)s, p_history_fixed => %(history_fixed)s,
    p_recovery => %(recovery)s::json, p_lost => %(lost)s, p_forgot => %(forgot)s)

-- name: underway
SELECT perdure.underway(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_conversation => %(turn_conversation)s, p_seq => %(turn_seq)s, p_epoch => %(turn_epoch)s,
    p_response_id => %(response_id)s, p_body => %(body)s,
    p_generation => %(generation)s, p_partial => %(partial)s::json,
    p_partial_of => %(partial_of)s::text[], p_waits_for => %(waits_for)s,
    p_outputs_of => %(outputs_of)s, p_refused => %(refused)s, p_unasked => %(unasked)s,
    p_recovery => %(recovery)s::json, p_lost => %(lost)s)

-- name: fail
SELECT perdure.fail(p_tenant => %(tenant)s, p_conversation => %(turn_conversation)s,
    p_seq => %(turn_seq)s, p_epoch => %(turn_epoch)s, p_state => %(state)s,
    p_reason => %(reason)s, p_withdrawn => %(withdrawn)s, p_partial => %(partial)s::json)

-- name: renew
SELECT perdure.renew(p_tenant => %(tenant)s, p_conversations => %(conversations)s::bigint[],
    p_seqs => %(seqs)s::bigint[], p_epochs => %(epochs)s::bigint[],
    p_lease_seconds => %(lease_seconds)s)

-- name: unsettled
SELECT seq, epoch, turn_id, kind, request, position, item_kind, role, call_id, provider_id, wire,
       input, created_at, tokens, after, skip
FROM perdure.unsettled(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_asking => %(asking)s)

-- name: settle
SELECT perdure.settle(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_generation => %(generation)s)

-- name: intend
INSERT INTO perdure.orphan (tenant, conversation, upstream, dialect, intent, reason, created_at)
VALUES (%(tenant)s, %(conversation)s, %(upstream)s, %(dialect)s, %(intent)s, 'create intended',
    perdure.perdure_now())

-- name: call_off
DELETE FROM perdure.orphan
WHERE tenant || '' = %(tenant)s AND intent = %(intent)s

-- name: bind
SELECT perdure.bind(p_tenant => %(tenant)s, p_upstream => %(upstream)s, p_dialect => %(dialect)s,
    p_conversation => %(conversation)s, p_generation => %(generation)s, p_handle => %(handle)s,
    p_intent => %(intent)s, p_primed_through => %(primed_through)s,
    p_primed_from => %(primed_from)s, p_turn_conversation => %(turn_conversation)s, p_turn_seq => %(turn_seq)s,
    p_turn_epoch => %(turn_epoch)s, p_lost => %(lost)s, p_orphan => %(orphan)s,
    p_doubtful => %(doubtful)s,
    p_recovery => %(recovery)s::json, p_body => nullif(%(body)s, ''::bytea))

-- name: bind_new
SELECT perdure.bind_new(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_dialect => %(dialect)s, p_handle => %(handle)s, p_items => %(items)s::json,
    p_body => nullif(%(body)s, ''::bytea), p_intent => %(intent)s, p_subject => %(subject)s,
    p_primed_through => %(primed_through)s, p_recovery => %(recovery)s::json)

-- name: refresh
SELECT perdure.refresh(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_handle => %(handle)s, p_body => %(body)s)

-- name: mark_lost
SELECT perdure.mark_lost(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_handle => %(handle)s)

-- name: discard
SELECT perdure.discard(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_upstream => %(upstream)s, p_dialect => %(dialect)s, p_handle => %(handle)s,
    p_replica => %(replica)s)

-- name: retire
SELECT perdure.retire(p_tenant => %(tenant)s, p_upstream => %(upstream)s, p_handle => %(handle)s)

-- name: tombstone
SELECT perdure.tombstone(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_conversation => %(conversation)s, p_provider_id => %(provider_id)s, p_gone => %(gone)s)

-- name: orphans
SELECT key, upstream, dialect, handle FROM perdure.orphan
WHERE tenant = %(tenant)s AND upstream = %(upstream)s AND deleted_at IS NULL
  AND handle IS NOT NULL
  AND (dialect <> 'conversations' OR created_at <= perdure.perdure_now() - %(settled_seconds)s
       OR reason NOT IN ('given up', 'answered without the history', 'has what was deleted'))
ORDER BY key LIMIT %(limit)s

-- name: orphan_gone
UPDATE perdure.orphan SET deleted_at = perdure.perdure_now()
WHERE tenant = %(tenant)s AND key = %(key)s AND deleted_at IS NULL

-- name: leftovers
-- A create that was begun a moment ago may yet be entered.
SELECT count(*) FILTER (WHERE handle IS NOT NULL),
       count(*) FILTER (WHERE handle IS NULL AND created_at < perdure.perdure_now() - 600)
FROM perdure.orphan
WHERE tenant = %(tenant)s AND upstream = COALESCE(%(upstream)s::text, upstream)
  AND deleted_at IS NULL

-- name: throttle
INSERT INTO perdure.throttle AS t (tenant, upstream, until)
VALUES (%(tenant)s, %(upstream)s, perdure.perdure_now() + %(seconds)s)
ON CONFLICT (tenant, upstream) DO UPDATE SET until = GREATEST(t.until, excluded.until)

-- name: throttled
SELECT until - perdure.perdure_now() FROM perdure.throttle
WHERE tenant = %(tenant)s AND upstream = %(upstream)s

-- name: find
SELECT foreign_handle, conversation, position, state, age_seconds, dialect, generation,
       replica_state, replica_handle, primed_through, replica_age_seconds, doubtful, seq, epoch,
       turn_id, ended, request, answer_status, answer_body, answer_type, replaced_by,
       first_position, last_position, unread, unread_ended, history_tokens, history_reasoning, history_model,
       history_fixed
FROM perdure.find(p_tenant => %(tenant)s, p_upstream => %(upstream)s, p_handle => %(handle)s)

-- name: history
SELECT position, kind, role, call_id, provider_id, wire, input, created_at, tokens, older, complete,
       milestones, snapshot_through, snapshot_items, snapshot_text, snapshot_maker, snapshot_at
FROM perdure.history(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_through => %(through)s, p_budget_tokens => %(budget_tokens)s, p_wire => %(wire)s)

-- name: page
SELECT position, kind, role, call_id, provider_id, wire, input, created_at, turn_id, tokens
FROM perdure.page(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_newest_first => %(newest_first)s, p_limit => %(limit)s, p_after => %(after)s,
    p_above => %(above)s, p_below => %(below)s, p_turn_response => %(turn_response)s,
    p_inputs => %(inputs)s)

-- name: one_item
SELECT position, kind, role, call_id, provider_id, wire, '' AS input, created_at, NULL AS turn_id,
       tokens
FROM perdure.item
WHERE tenant || '' = %(tenant)s AND provider_id = %(provider_id)s
  AND perdure.item_key(tenant, provider_id) = perdure.item_key(%(tenant)s, %(provider_id)s)
  AND conversation = COALESCE(%(conversation)s::bigint, conversation)
  AND NOT withdrawn AND tombstoned_at IS NULL
ORDER BY conversation + 0, position + 0 LIMIT 1

-- name: runs
SELECT run_id, ended, body
FROM perdure.runs(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_conversation => %(conversation)s, p_newest_first => %(newest_first)s, p_limit => %(limit)s,
    p_above => %(above)s, p_below => %(below)s)

-- name: learn
SELECT perdure.learn(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_items => %(items)s::json, p_whole => %(whole)s,
    p_named_positions => %(named_positions)s::bigint[], p_named_ids => %(named_ids)s::text[],
    p_named_wires => %(named_wires)s::text[], p_said_by => %(said_by)s::text[],
    p_read => %(read)s, p_generation => %(generation)s, p_older => %(older)s,
    p_since_outputs => %(since_outputs)s)

-- name: bring_in
SELECT outcome, conversation, items, subject_taken
FROM perdure.bring_in(p_tenant => %(tenant)s, p_upstream => %(upstream)s, p_dialect => %(dialect)s,
    p_handle => %(handle)s, p_items => %(items)s::json, p_behind => %(behind)s,
    p_subject => %(subject)s, p_facts => %(facts)s::text[])

-- name: adopted
SELECT perdure.adopted(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_items => %(items)s::json, p_done => %(done)s, p_given_up => %(given_up)s,
    p_lease_seconds => %(lease_seconds)s)

-- name: adopting
SELECT perdure.adopting(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_lease_seconds => %(lease_seconds)s)

-- name: find_subject
SELECT conversation, perdure.state_of_replica(c), replica_handle, generation, primed_through,
       perdure.perdure_now() - confirmed_at, dialect,
       doubt AND replica_state = 'live' AND dialect <> 'responses', last_position
FROM perdure.conversation c
WHERE tenant || '' = %(tenant)s AND subject = %(subject)s
  AND perdure.digest(tenant, subject) = perdure.digest(%(tenant)s, %(subject)s)

-- name: pin
SELECT perdure.pin(p_tenant => %(tenant)s, p_subject => %(subject)s, p_text => %(text)s)

-- name: read_history
SELECT position, turn_id, seq, role, kind, wire, created_at, state, conversation,
       recovered_turn_id, reason, generation, lost_handle, new_handle, memory, primed, left_out,
       requests, tokens
FROM perdure.read_history(p_tenant => %(tenant)s, p_subject => %(subject)s,
    p_limit => %(limit)s, p_before => %(before)s, p_after => %(after)s)

-- name: read_recovery
SELECT conversation, turn_id, reason, generation, lost_handle, new_handle, memory, primed,
       left_out, requests
FROM perdure.recovery
WHERE tenant = %(tenant)s AND conversation = %(conversation)s AND generation = %(generation)s

-- name: read_turn
SELECT t.seq, t.state, t.response_id, r.conversation, r.turn_id, r.reason, r.generation,
       r.lost_handle, r.new_handle, r.memory, r.primed, r.left_out, r.requests
FROM perdure.turn t
LEFT JOIN perdure.recovery r
    ON r.tenant = t.tenant AND r.conversation = t.conversation AND r.turn_id = t.turn_id
WHERE t.tenant || '' = %(tenant)s AND t.turn_id = %(turn_id)s
  AND perdure.digest(t.tenant, t.turn_id) = perdure.digest(%(tenant)s, %(turn_id)s)
ORDER BY r.generation DESC NULLS LAST LIMIT 1

-- name: forget
SELECT conversations, items, turns, milestones, snapshots, keys, upstreams, dialects, handles
FROM perdure.forget(p_tenant => %(tenant)s, p_subject => %(subject)s)

-- name: unused
SELECT perdure.unused(p_tenant => %(tenant)s, p_upstream => %(upstream)s,
    p_idle_seconds => %(idle_seconds)s, p_limit => %(limit)s)

-- name: index
-- Nothing to do: the index is brought up to date by every write.
SELECT true

-- name: search
SELECT word, position
FROM perdure.search(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_through => %(through)s, p_words => %(words)s::text[], p_most => %(most)s)

-- name: excerpts
SELECT position, kind, role, call_id, provider_id, wire, input, created_at, tokens
FROM perdure.excerpts(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_through => %(through)s, p_firsts => %(firsts)s::bigint[], p_lasts => %(lasts)s::bigint[],
    p_limit => %(limit)s, p_oldest => %(oldest)s, p_wire => %(wire)s)

-- name: keep_snapshot
SELECT perdure.keep_snapshot(p_tenant => %(tenant)s, p_conversation => %(conversation)s,
    p_through => %(snapshot_through)s, p_items => %(snapshot_items)s, p_text => %(snapshot_text)s,
    p_maker => %(snapshot_maker)s)

-- name: drop_snapshots
SELECT perdure.drop_snapshots(p_tenant => %(tenant)s, p_conversation => %(conversation)s)

-- name: unsummarised
SELECT conversation, through
FROM perdure.unsummarised(p_tenant => %(tenant)s, p_items => %(least)s, p_limit => %(limit)s,
    p_after => %(after)s)

-- name: conversations
SELECT conversation, subject, upstream, dialect, replica_handle, replica_state, last_position,
       created_at
FROM perdure.conversation
WHERE tenant = %(tenant)s AND conversation > %(after_conversation)s
  AND (%(subject)s::text IS NULL OR subject = %(subject)s)
ORDER BY conversation LIMIT %(limit)s
