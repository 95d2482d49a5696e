-- What the operations are made of. Each expects the conversation's row to be locked by its caller.
--
-- A log may have ten items or a million, and a plan is kept from when it had few. So the operations
-- forbid plans that read more than an index leads to (SET on each, in force while it runs), and a
-- statement here reads one table, along one key; what takes two is done in two. Which key, is not
-- left to statistics, that may be from before a log grew: a condition that is to lead to no index is
-- about `tenant || ''` or `conversation + 0`. Where the first of a few rows is wanted, `+ 0` keeps the
-- planner from walking the whole log in that order instead.

CREATE FUNCTION perdure.new_conversation(
    p_tenant text, p_subject text, p_upstream text, p_dialect text, p_adopting boolean,
    p_state text, p_handle text, p_origin bigint, p_origin_position bigint, p_root bigint)
RETURNS perdure.conversation
LANGUAGE plpgsql AS $$
DECLARE
    v_now CONSTANT double precision := perdure.perdure_now();
    c perdure.conversation;
BEGIN
    INSERT INTO perdure.conversation (tenant, subject, upstream, dialect, adopting, replica_state,
        replica_handle, origin_conversation, origin_position, root, confirmed_at, created_at)
    VALUES (p_tenant, p_subject, p_upstream, p_dialect, CASE WHEN p_adopting THEN 0 END, p_state, p_handle, p_origin,
        p_origin_position, p_root, v_now, v_now)
    RETURNING * INTO c;
    RETURN c;
END $$;

-- A conversation and every branch that hangs on it, in order. One step at a time: a join might read
-- the branches of all.
CREATE FUNCTION perdure.family(p_tenant text, p_conversation bigint) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_family bigint[] := ARRAY(
        SELECT conversation FROM perdure.conversation
        WHERE tenant = p_tenant AND conversation = p_conversation);
    v_number bigint := 1;
BEGIN
    WHILE v_number <= cardinality(v_family) LOOP
        v_family := v_family || ARRAY(
            SELECT conversation FROM perdure.conversation
            WHERE tenant || '' = p_tenant
              AND origin_conversation = v_family[v_number]);
        v_number := v_number + 1;
    END LOOP;
    RETURN ARRAY(SELECT one FROM unnest(v_family) AS one ORDER BY one);
END $$;

-- What kind of handle names a replica of a dialect.
CREATE FUNCTION perdure.kind_of(p_dialect text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE p_dialect WHEN 'responses' THEN 'response' WHEN 'conversations' THEN 'conversation'
                      ELSE 'thread' END;

-- Enter a handle; where a worker has just entered the same one, the caller is to begin again.
CREATE FUNCTION perdure.new_handle(
    p_tenant text, p_upstream text, p_handle text, p_conversation bigint, p_kind text,
    p_position bigint, p_body bytea)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO perdure.handle (tenant, key, upstream, handle, conversation, kind, position, body,
        confirmed_at)
    VALUES (p_tenant, perdure.handle_key(p_upstream, p_handle), p_upstream, p_handle,
        p_conversation, p_kind, p_position, p_body, perdure.perdure_now());
END $$;

-- Append items to the log from a position on, all after the first p_known of them.
CREATE FUNCTION perdure.append_items(
    p_tenant text, p_conversation bigint, p_first bigint, p_seq bigint, p_items json,
    p_known bigint DEFAULT 0, p_withdrawn boolean DEFAULT false)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_now CONSTANT double precision := perdure.perdure_now();
BEGIN
    INSERT INTO perdure.item (tenant, conversation, position, turn_seq, kind, role, call_id,
        provider_id, wire, input, tokens, withdrawn, created_at)
    SELECT p_tenant, p_conversation, p_first + i.number - 1 - p_known, p_seq, i.kind, i.role,
           i.call_id, i.provider_id, i.wire, i.input, i.tokens, p_withdrawn,
           COALESCE(i.created_at, v_now)
    FROM ROWS FROM (json_to_recordset(p_items) AS (kind text, role text, call_id text,
                    provider_id text, wire text, input text, tokens bigint,
                    created_at double precision))
         WITH ORDINALITY
         AS i(kind, role, call_id, provider_id, wire, input, tokens, created_at, number)
    WHERE i.number > p_known;
END $$;

-- Where an item stands that the provider knows by an id.
CREATE FUNCTION perdure.item_position(p_tenant text, p_conversation bigint, p_provider_id text)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT position FROM perdure.item
            WHERE tenant || '' = p_tenant AND conversation = p_conversation
              AND perdure.item_key(tenant, provider_id) = perdure.item_key(p_tenant, p_provider_id)
              AND provider_id = p_provider_id
            ORDER BY position + 0 LIMIT 1);
END $$;

-- What stands for an item that was deleted before it was adopted.
CREATE FUNCTION perdure.buried(p_provider_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$ SELECT 'deleted ' || p_provider_id $$;

-- How many items that are neither withdrawn nor deleted stand in a conversation before a position.
-- Positions have no gaps, adopted ones up to 0 and the others from 1 or the branch's origin on: so
-- only what is hidden has to be counted.
CREATE FUNCTION perdure.items_before(p_tenant text, p_conversation bigint, p_position bigint)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_all bigint;
BEGIN
    SELECT GREATEST(LEAST(p_position, 1) - first_position, 0)
        + GREATEST(LEAST(p_position, last_position + 1) - COALESCE(origin_position, 0) - 1, 0)
    INTO v_all
    FROM perdure.conversation WHERE tenant = p_tenant AND conversation = p_conversation;
    RETURN v_all - (
        SELECT count(*) FROM perdure.item
        WHERE tenant = p_tenant AND conversation = p_conversation AND position < p_position
          AND (withdrawn OR tombstoned_at IS NOT NULL));
END $$;

-- How many of the items sent, from the first, a rebuilt replica's log has already.
CREATE FUNCTION perdure.known_items(op perdure.accepting, c perdure.conversation) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF op.dialect <> 'conversations' OR c.generation = 0 THEN
        RETURN 0;
    END IF;
    FOR v_number IN REVERSE COALESCE(array_length(op.sent_ids, 1), 0)..1 LOOP
        IF perdure.item_position(op.tenant, c.conversation, op.sent_ids[v_number]) IS NOT NULL THEN
            RETURN v_number;
        END IF;
    END LOOP;
    RETURN 0;
END $$;

-- Whether another turn is at work on the same replica, or one accepted earlier waits for it.
CREATE FUNCTION perdure.must_wait(c perdure.conversation, p_seq bigint) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_now CONSTANT double precision := perdure.perdure_now();
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = c.tenant AND conversation = c.conversation
          AND seq >= c.open_from AND seq <> p_seq AND lease_until > v_now
          AND (state = 'delivering' OR state = 'pending' AND seq < p_seq));
END $$;

-- The run whose messages come before a turn on a thread, and whether it is known to have ended; or the
-- response that is made in the background, in a conversation or for a subject.
CREATE FUNCTION perdure.unread_run(op perdure.accepting, c perdure.conversation)
RETURNS TABLE (run_id text, ended boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF op.dialect = 'threads' AND c.dialect = 'threads' AND c.replica_state = 'live'
       AND c.unread IS NOT NULL THEN
        RETURN QUERY
        SELECT response_id, state <> 'delivering' FROM perdure.turn
        WHERE tenant = c.tenant AND conversation = c.conversation AND seq = c.unread
          AND response_id IS DISTINCT FROM op.lost;
    ELSIF op.dialect <> 'threads' AND c.dialect = op.dialect AND c.unread IS NOT NULL
          AND (op.dialect = 'conversations' AND c.replica_state = 'live'
               OR op.dialect = 'responses' AND op.subject IS NOT NULL) THEN
        RETURN QUERY
        SELECT response_id, false FROM perdure.turn
        WHERE tenant = c.tenant AND conversation = c.conversation AND seq = c.unread
          AND response_id IS DISTINCT FROM op.lost AND state = 'delivering';
    END IF;
END $$;

-- Say that the messages of a run come before a turn on a thread, unless it was looked for just now.
CREATE FUNCTION perdure.unread_ahead(op perdure.accepting, c perdure.conversation)
RETURNS perdure.accepted
LANGUAGE plpgsql STABLE AS $$
DECLARE
    t record;
    r perdure.accepted;
BEGIN
    SELECT * INTO t FROM perdure.unread_run(op, c);
    IF t.run_id IS NULL OR NOT t.ended AND t.run_id IS NOT DISTINCT FROM op.looked THEN
        RETURN NULL;
    END IF;
    RETURN perdure.comes_first(c, t.run_id, t.ended);
END $$;

CREATE FUNCTION perdure.comes_first(c perdure.conversation, p_unread text, p_ended boolean)
RETURNS perdure.accepted
LANGUAGE plpgsql STABLE AS $$
DECLARE
    r perdure.accepted := perdure.on_replica(c);
BEGIN
    r.outcome := 'unread';
    r.conversation := c.conversation;
    r.seq := 0;
    r.epoch := 0;
    r.turn_id := '';
    r.through := 0;
    r.unread := p_unread;
    r.unread_ended := p_ended;
    RETURN r;
END $$;

-- Say what has to be done before a turn is delivered: NULL where nothing has, or where it has to wait
-- anyway. On a thread what a run has said comes first. Turns that were left behind are given up, and
-- may make a replica doubtful, which has to be settled. The question of a worker that is gone stays
-- in the log, and what came of it may be found on the replica. One that only waited was never sent;
-- its question stays too. A response they cannot change: the chain goes on from the one that is
-- known.
CREATE FUNCTION perdure.unsettled_ahead(op perdure.accepting, p_conversation bigint, p_seq bigint)
RETURNS perdure.accepted
LANGUAGE plpgsql AS $$
DECLARE
    v_now CONSTANT double precision := perdure.perdure_now();
    c perdure.conversation;
    t record;
    r perdure.accepted;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = op.tenant AND conversation = p_conversation;
    IF perdure.must_wait(c, p_seq) THEN
        RETURN NULL;
    END IF;
    r := perdure.unread_ahead(op, c);
    IF r.outcome IS NOT NULL THEN
        RETURN r;
    END IF;
    FOR t IN
        UPDATE perdure.turn
        SET state = 'failed', reason = 'abandoned', epoch = epoch + 1, lease_until = NULL
        WHERE tenant = op.tenant AND conversation = p_conversation
          AND seq >= c.open_from AND seq < p_seq AND state = 'pending' AND lease_until <= v_now
        RETURNING first_position, last_position
    LOOP
        UPDATE perdure.item SET withdrawn = false
        WHERE tenant = op.tenant AND conversation = p_conversation
          AND position >= t.first_position AND position <= t.last_position;
    END LOOP;
    UPDATE perdure.turn
    SET state = 'unknown', reason = 'crashed', epoch = epoch + 1, lease_until = NULL
    WHERE tenant = op.tenant AND conversation = p_conversation
      AND seq >= c.open_from AND seq <> p_seq AND state = 'delivering' AND lease_until <= v_now;
    IF op.dialect = 'responses' THEN
        RETURN NULL;
    ELSIF FOUND THEN
        c.doubt := true;
        UPDATE perdure.conversation SET doubt = true
        WHERE tenant = op.tenant AND conversation = p_conversation;
    END IF;
    IF NOT c.doubt OR c.replica_state <> 'live' OR c.dialect = 'responses' THEN
        RETURN NULL;
    END IF;
    r := perdure.on_replica(c);
    r.outcome := 'unsettled';
    r.conversation := p_conversation;
    r.seq := 0;
    r.epoch := 0;
    r.turn_id := '';
    r.through := c.last_position;
    RETURN r;
END $$;

-- From which turn on some may still be open, once one has ended or gone its own way.
CREATE FUNCTION perdure.still_open(
    p_tenant text, p_conversation bigint, p_open_from bigint, p_seq bigint)
RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq >= p_open_from
          AND seq <> p_seq
          AND (state IN ('pending', 'delivering') AND lease_until IS NOT NULL
               OR unknown AND dialect <> 'responses'))
        THEN p_open_from END;
END $$;

-- How many items of older history the log at the root of a conversation's line has.
CREATE FUNCTION perdure.adopted_at_root(c perdure.conversation) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF c.root IS NULL THEN
        RETURN c.adopted;
    END IF;
    RETURN (SELECT adopted FROM perdure.conversation
            WHERE tenant = c.tenant AND conversation = c.root);
END $$;

-- The state of a response on a conversation's line: one that lacks older history is lost.
CREATE FUNCTION perdure.state_of(c perdure.conversation, p_state text, p_rebuilt_with bigint)
RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN p_state = 'live' AND p_rebuilt_with < perdure.adopted_at_root(c) THEN 'lost'
                ELSE p_state END;
END $$;

CREATE FUNCTION perdure.state_of_replica(c perdure.conversation) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE WHEN c.dialect = 'responses'
                THEN perdure.state_of(c, c.replica_state, c.rebuilt_with)
                ELSE c.replica_state END;
END $$;

-- What a worker is told about a conversation's replica.
CREATE FUNCTION perdure.on_replica(c perdure.conversation) RETURNS perdure.accepted
LANGUAGE plpgsql STABLE AS $$
DECLARE
    r perdure.accepted;
BEGIN
    r.dialect := c.dialect;
    r.generation := c.generation;
    r.replica_state := perdure.state_of_replica(c);
    r.replica_handle := c.replica_handle;
    r.primed_through := c.primed_through;
    r.replica_age_seconds := perdure.perdure_now() - c.confirmed_at;
    r.doubtful := c.doubt AND r.replica_state = 'live' AND c.dialect <> 'responses';
    r.handle_state := 'none';
    r.handle_age_seconds := 0;
    r.adopting := false;
    r.incomplete := c.adopting IS NOT NULL;
    r.known_items := 0;
    r.accepted_items := 0;
    r.again := false;
    RETURN r;
END $$;

-- Whether a user's chain lacks what the log has before a turn: one that got no answer is no link of
-- it, but has been said.
CREATE FUNCTION perdure.lacks_unanswered(
    op perdure.accepting, c perdure.conversation, p_through bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_head bigint;
BEGIN
    IF op.subject IS NULL OR c.dialect <> 'responses' OR c.replica_handle IS NULL THEN
        RETURN false;
    END IF;
    SELECT position INTO v_head FROM perdure.handle
    WHERE tenant = op.tenant AND key = perdure.handle_key(op.upstream, c.replica_handle)
      AND conversation + 0 = c.conversation;
    RETURN COALESCE(v_head < p_through, false) AND EXISTS (
        SELECT 1 FROM perdure.item
        WHERE tenant = op.tenant AND conversation = c.conversation
          AND position > v_head AND position <= p_through
          AND NOT withdrawn AND tombstoned_at IS NULL);
END $$;

-- Whether a handle is the end of its log, so that what is remembered there is for what goes on from
-- it. What has failed behind a chain's head was never part of what the next response is made from.
CREATE FUNCTION perdure.is_end(
    c perdure.conversation, p_handle text, p_kind text, p_position bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN p_kind <> 'response' OR p_position = c.last_position
        OR COALESCE(c.replica_handle = p_handle, false);
END $$;

-- Whether an answer behind a turn's items may have been made from them. In a conversation one to a
-- turn that stands before it, which only came late, was not.
CREATE FUNCTION perdure.was_heard(p_tenant text, p_conversation bigint, p_seq bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    t record;
BEGIN
    SELECT dialect, first_position, last_position INTO t FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    RETURN t.dialect <> 'conversations' OR EXISTS (
        SELECT 1 FROM perdure.item i
        LEFT JOIN perdure.turn of ON of.tenant = i.tenant
            AND of.conversation = i.conversation AND of.seq = i.turn_seq
        WHERE i.tenant = p_tenant AND i.conversation = p_conversation
          AND i.position > t.last_position AND NOT i.withdrawn AND i.kind <> ''
          AND COALESCE(of.first_position > t.first_position, true));
END $$;

-- Whether another turn was answered with what stands behind a place.
CREATE FUNCTION perdure.others_answered_behind(
    p_tenant text, p_conversation bigint, p_seq bigint, p_position bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM perdure.item AS item
        JOIN perdure.turn AS other ON other.tenant = p_tenant
            AND other.conversation = p_conversation AND other.seq = item.turn_seq
        WHERE item.tenant = p_tenant AND item.conversation = p_conversation
          AND item.position > p_position
          AND item.turn_seq <> p_seq AND NOT item.withdrawn AND other.state = 'answered');
END $$;

-- Put a turn's items at the end of the log, where others were entered behind them. What was never
-- sent, or refused, has no place in what others were answered from; nor has (p_heard is false) what
-- no answer can have been made from yet, or what was shown of one to that: else that stays where it
-- was. Returns how far it moved.
CREATE FUNCTION perdure.move_to_end(
    p_tenant text, p_conversation bigint, p_seq bigint, p_heard boolean)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    t record;
    v_end bigint;
    v_by bigint;
BEGIN
    SELECT first_position, last_position INTO t FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    IF NOT EXISTS (SELECT 1 FROM perdure.item
                   WHERE tenant = p_tenant AND conversation = p_conversation
                     AND position > t.last_position AND turn_seq IS DISTINCT FROM p_seq
                     AND (p_heard OR NOT withdrawn AND kind <> '')) THEN
        RETURN 0;
    END IF;
    SELECT last_position INTO v_end FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation;
    v_by := v_end + 1 - t.first_position;
    IF NOT p_heard THEN
        PERFORM perdure.withdraw_shown(p_tenant, p_conversation, p_seq);
    END IF;
    INSERT INTO perdure.item (tenant, conversation, position, turn_seq, kind, role, call_id, wire,
        input, tokens, created_at)
    SELECT tenant, conversation, position + v_by, turn_seq, kind, role, call_id, wire, input,
           tokens, created_at
    FROM perdure.item
    WHERE tenant = p_tenant AND conversation = p_conversation
      AND position >= t.first_position AND position <= t.last_position;
    UPDATE perdure.item
    SET kind = '', role = NULL, call_id = NULL, provider_id = NULL, wire = '', input = '',
        tokens = 0, turn_seq = NULL, tombstoned_at = perdure.perdure_now()
    WHERE tenant = p_tenant AND conversation = p_conversation
      AND position >= t.first_position AND position <= t.last_position
      AND (withdrawn OR NOT p_heard);
    UPDATE perdure.turn
    SET parent = v_end, first_position = first_position + v_by,
        last_position = last_position + v_by, shown_at = '{}', shown_of = '{}',
        left_at = CASE WHEN p_heard THEN left_at || first_position ELSE left_at END
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    UPDATE perdure.conversation SET last_position = t.last_position + v_by
    WHERE tenant = p_tenant AND conversation = p_conversation;
    RETURN v_by;
END $$;

-- Whether a thread that was created meanwhile has what stands at a place in the log.
CREATE FUNCTION perdure.is_given(p_tenant text, p_conversation bigint, p_position bigint)
RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM perdure.conversation
                   WHERE tenant = p_tenant AND conversation = p_conversation
                     AND generation > 0 AND primed_through >= p_position);
END $$;

-- Note that a turn's own items stand at the end of the thread of a generation. One that has taken its
-- place may not have them; one that was created with them has them where they are.
CREATE FUNCTION perdure.stands_on_thread(
    p_tenant text, p_conversation bigint, p_seq bigint, p_generation bigint)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    SELECT first_position, last_position INTO t FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    IF t.last_position >= t.first_position
       AND NOT perdure.is_given(p_tenant, p_conversation, t.first_position) THEN
        t.last_position := t.last_position
            + perdure.move_to_end(p_tenant, p_conversation, p_seq, false);
        UPDATE perdure.conversation SET doubt = true
        WHERE tenant = p_tenant AND conversation = p_conversation
          AND generation <> p_generation AND primed_through < t.last_position;
    END IF;
END $$;

-- Note the provider's id and form of an item that the log has.
CREATE FUNCTION perdure.name_item(
    p_tenant text, p_conversation bigint, p_position bigint, p_provider_id text, p_wire text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE perdure.item
    SET provider_id = p_provider_id, input = COALESCE(input, wire), wire = p_wire
    WHERE tenant = p_tenant AND conversation = p_conversation AND position = p_position;
END $$;

-- Withdraw what was shown of a turn's answer before it was cut, or of one message of it.
CREATE FUNCTION perdure.withdraw_shown(
    p_tenant text, p_conversation bigint, p_seq bigint, p_message_id text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    SELECT shown_at, shown_of INTO t FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    UPDATE perdure.item SET withdrawn = true
    WHERE tenant = p_tenant AND conversation = p_conversation AND NOT withdrawn
      AND position IN (
          SELECT part.place FROM unnest(t.shown_at, t.shown_of) AS part(place, message_id)
          WHERE p_message_id IS NULL OR part.message_id IS NULL OR part.message_id = p_message_id);
END $$;

-- Put what was shown of messages before they were cut at the end of the log, by their ids, but for
-- those that the log has. What was shown of the same ones before makes room; without ids, all that was.
CREATE FUNCTION perdure.keep_shown(
    p_tenant text, p_conversation bigint, p_seq bigint, p_partial json,
    p_partial_of text[] DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_last bigint;
    v_parts json;
    v_of text[];
BEGIN
    SELECT json_agg(part.item ORDER BY part.number),
           array_agg(p_partial_of[part.number] ORDER BY part.number)
    INTO v_parts, v_of
    FROM json_array_elements(p_partial) WITH ORDINALITY AS part(item, number)
    WHERE p_partial_of[part.number] IS NULL
       OR perdure.item_position(p_tenant, p_conversation, p_partial_of[part.number]) IS NULL;
    IF v_parts IS NULL THEN
        RETURN;
    END IF;
    SELECT last_position INTO v_last FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation;
    PERFORM perdure.withdraw_shown(p_tenant, p_conversation, p_seq, message_id)
    FROM unnest(v_of) AS message_id;
    PERFORM perdure.append_items(p_tenant, p_conversation, v_last + 1, p_seq, v_parts);
    UPDATE perdure.turn
    SET shown_at = shown_at || ARRAY(
            SELECT v_last + number FROM generate_series(1, cardinality(v_of)) AS number),
        shown_of = shown_of || v_of
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    UPDATE perdure.conversation SET last_position = v_last + cardinality(v_of)
    WHERE tenant = p_tenant AND conversation = p_conversation;
END $$;

-- Record a rebuild; the turn that completes one which another began adds what it was given.
CREATE FUNCTION perdure.record_recovery(
    p_tenant text, p_conversation bigint, p_generation bigint, p_recovery json)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO perdure.recovery AS r (tenant, conversation, generation, turn_id, reason,
        lost_handle, new_handle, memory, primed, left_out, requests, created_at)
    SELECT p_tenant, p_conversation, p_generation, g.turn_id, g.reason, g.lost_handle, g.new_handle,
           g.memory, g.primed, g.left_out, g.requests, perdure.perdure_now()
    FROM json_to_record(p_recovery) AS g(turn_id text, reason text, lost_handle text,
        new_handle text, memory text, primed bigint, left_out bigint, requests bigint)
    ON CONFLICT (tenant, conversation, generation) DO UPDATE SET
        turn_id = excluded.turn_id, memory = excluded.memory, primed = excluded.primed,
        left_out = excluded.left_out, requests = excluded.requests;
END $$;

-- Record what a turn has rebuilt, and what became of the replica that was lost.
CREATE FUNCTION perdure.note_rebuild(
    p_tenant text, p_upstream text, p_conversation bigint, p_generation bigint, p_recovery json,
    p_lost text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_recovery IS NOT NULL THEN
        PERFORM perdure.record_recovery(p_tenant, p_conversation, p_generation, p_recovery);
    END IF;
    IF p_lost IS NOT NULL THEN
        PERFORM perdure.mark_handle(p_tenant, p_upstream, p_lost, 'lost');
    END IF;
END $$;

-- Say what became of a handle; one that was deleted through us stays so.
CREATE FUNCTION perdure.mark_handle(p_tenant text, p_upstream text, p_handle text, p_state text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE perdure.handle SET state = p_state
    WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)
      AND state <> 'retired';
END $$;

-- Say what became of a handle, and of the replica where it is that of its conversation.
CREATE FUNCTION perdure.mark(p_tenant text, p_upstream text, p_handle text, p_state text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM perdure.mark_handle(p_tenant, p_upstream, p_handle, p_state);
    UPDATE perdure.conversation SET replica_state = p_state
    WHERE tenant = p_tenant AND replica_handle = p_handle AND replica_state <> 'retired'
      AND conversation = (
        SELECT conversation FROM perdure.handle
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle));
END $$;

CREATE FUNCTION perdure.new_orphan(
    p_tenant text, p_conversation bigint, p_upstream text, p_dialect text, p_handle text,
    p_reason text)
RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_key bigint;
BEGIN
    INSERT INTO perdure.orphan (tenant, conversation, upstream, dialect, handle, reason, created_at)
    VALUES (p_tenant, p_conversation, p_upstream, p_dialect, p_handle, p_reason,
        perdure.perdure_now())
    RETURNING key INTO v_key;
    RETURN v_key;
END $$;

-- Erase conversations, with everything that hangs on them.
CREATE FUNCTION perdure.erase(p_tenant text, p_conversations bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM perdure.handle
    WHERE tenant || '' = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.item WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.turn WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.milestone WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.recovery WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.snapshot WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
    DELETE FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = ANY (p_conversations);
END $$;

-- Have the caller's whole statement done again: what it had read is no longer so.
CREATE FUNCTION perdure.begin_again() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another worker has just changed this' USING ERRCODE = 'serialization_failure';
END $$;
