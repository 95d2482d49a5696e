-- ops.Complete: a turn's answer and its items, and what it did to the replica, in one commit.
CREATE FUNCTION perdure.complete(
    p_tenant text, p_upstream text, p_dialect text, p_conversation bigint, p_seq bigint,
    p_epoch bigint, p_status integer, p_body bytea, p_content_type text, p_items json,
    p_response_id text, p_head text, p_model text, p_input_tokens bigint, p_primed bigint,
    p_own_ids text[], p_own_wires text[], p_handle_kind text, p_unread boolean, p_settles boolean,
    p_history_tokens bigint, p_history_reasoning bigint, p_history_model text, p_history_fixed text, p_recovery json,
    p_lost text, p_forgot text)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    t record;
    h record;
    v_now double precision;
    v_before bigint;
    v_last bigint;
    v_generation bigint;
    v_own bigint;
    v_known bigint;
    v_rebuilt_with bigint;
    v_goes_on_from bigint;
    v_subject text;
    v_dialect text;
    v_handle text;
    v_given_up text;
    v_overtaken boolean := false;
    v_overtakes boolean := false;
BEGIN
    SELECT last_position, generation, primed_through, rebuilt_with, subject, dialect, replica_handle
    INTO v_before, v_generation, v_known, v_rebuilt_with, v_subject, v_dialect, v_handle
    FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    SELECT first_position, last_position, adopted, perdure.handle_key(p_upstream, handle) AS key INTO t
    FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq
      AND epoch = p_epoch AND (state IN ('delivering', 'unknown')
          -- A run that was given up may have come to its end all the same.
          OR state = 'failed' AND p_handle_kind = 'run');
    IF NOT FOUND THEN
        RETURN 'fenced';
    END IF;
    IF p_dialect = 'threads' AND p_handle_kind = 'run' AND v_generation <> p_primed THEN
        RETURN 'replaced';
    END IF;
    v_own := t.first_position;
    v_goes_on_from := v_rebuilt_with;
    -- A subject's replica that has answered something since lacks this answer.
    IF p_settles AND p_head IS NOT NULL AND v_subject IS NOT NULL AND v_handle IS NOT NULL THEN
        v_overtaken := EXISTS (
            SELECT 1 FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = p_conversation AND seq > p_seq
              AND state = 'answered');
    END IF;
    v_given_up := CASE WHEN v_overtaken THEN v_handle END;
    -- And one that lacks what was answered on another line while it was made.
    IF p_head IS NOT NULL AND NOT p_settles AND v_subject IS NOT NULL
       AND v_before > t.last_position THEN
        v_overtakes := perdure.others_answered_behind(
            p_tenant, p_conversation, p_seq, t.last_position);
    END IF;
    -- An answer goes on from what it was given, or from the response before it. Of one that was made
    -- in the background that is known.
    IF p_head IS NOT NULL AND p_recovery IS NOT NULL THEN
        v_rebuilt_with := t.adopted;
    ELSIF p_head IS NOT NULL THEN
        SELECT rebuilt_with INTO h FROM perdure.handle
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_response_id);
        IF FOUND THEN
            v_rebuilt_with := h.rebuilt_with;
        ELSIF t.key IS NOT NULL THEN
            v_rebuilt_with := (
                SELECT rebuilt_with FROM perdure.handle WHERE tenant = p_tenant AND key = t.key);
        END IF;
    END IF;
    v_now := perdure.perdure_now();
    v_last := v_before + json_array_length(p_items);
    IF p_response_id IS NOT NULL THEN
        INSERT INTO perdure.handle (tenant, key, upstream, handle, conversation, kind, position,
            turn_seq, rebuilt_with, confirmed_at)
        VALUES (p_tenant, perdure.handle_key(p_upstream, p_response_id), p_upstream, p_response_id,
            p_conversation, p_handle_kind, v_last, p_seq,
            CASE WHEN p_handle_kind = 'response' THEN v_rebuilt_with END, v_now)
        -- One that this very turn has bound, while it was underway, is its own.
        ON CONFLICT (tenant, key) DO UPDATE
        SET rebuilt_with = excluded.rebuilt_with,
            position = CASE WHEN handle.kind = 'response' THEN excluded.position
                            ELSE handle.position END
            WHERE handle.conversation = excluded.conversation
              AND handle.turn_seq = excluded.turn_seq;
        IF NOT FOUND THEN
            RETURN 'taken';
        END IF;
    END IF;
    UPDATE perdure.turn
    SET state = 'answered', handed = true, lease_until = NULL, answer_status = p_status,
        answer_type = p_content_type, answer_body = p_body,
        response_id = COALESCE(p_response_id, response_id), model = p_model,
        input_tokens = p_input_tokens, answered_at = v_now
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    IF (p_epoch > 1 OR p_settles) AND p_handle_kind <> 'run' THEN
        PERFORM perdure.withdraw_shown(p_tenant, p_conversation, p_seq);
    END IF;
    IF p_dialect = 'threads' AND p_response_id IS NULL AND p_handle_kind <> 'run'
       AND p_primed IS NOT NULL THEN
        PERFORM perdure.stands_on_thread(p_tenant, p_conversation, p_seq, p_primed);
        SELECT last_position INTO v_before FROM perdure.conversation
        WHERE tenant = p_tenant AND conversation = p_conversation;
        SELECT first_position INTO v_own FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
        v_last := v_before + json_array_length(p_items);
    END IF;
    v_known := GREATEST(v_known, t.last_position);
    -- What was answered elsewhere meanwhile is not on it: an answer that was made in the background.
    IF p_dialect = 'conversations' AND v_generation = p_primed AND v_generation > 0
       AND v_before > v_known
       AND perdure.others_answered_behind(p_tenant, p_conversation, p_seq, v_known) THEN
        v_given_up := v_handle;
    END IF;
    UPDATE perdure.conversation
    SET last_position = v_last, confirmed_at = v_now,
        replica_state = CASE WHEN p_head IS NULL THEN replica_state
                             WHEN NOT v_overtaken THEN 'live' ELSE replica_state END,
        rebuilt_with = CASE WHEN v_overtaken THEN v_goes_on_from ELSE v_rebuilt_with END,
        replica_handle = CASE WHEN v_overtaken THEN replica_handle
                              ELSE COALESCE(p_head, replica_handle) END,
        dialect = CASE WHEN v_overtaken THEN v_dialect ELSE p_dialect END,
        generation = generation + (p_recovery IS NOT NULL AND p_head IS NOT NULL)::integer,
        primed_through = CASE WHEN generation = p_primed AND p_dialect <> 'threads' THEN v_last
                              ELSE primed_through END,
        open_from = perdure.still_open(p_tenant, p_conversation, open_from, p_seq),
        -- What was measured on another replica, or before something was deleted, is no bound.
        history_tokens = CASE WHEN generation <> p_primed THEN history_tokens
                              WHEN p_seq > shrunk THEN p_history_tokens END,
        history_reasoning = CASE WHEN generation <> p_primed THEN history_reasoning
                                 ELSE p_history_reasoning END,
        history_model = CASE WHEN generation <> p_primed THEN history_model ELSE p_history_model END,
        history_fixed = CASE WHEN generation <> p_primed THEN history_fixed ELSE p_history_fixed END,
        unread = CASE WHEN p_unread THEN COALESCE(unread, p_seq)
                      WHEN NOT p_unread AND unread = p_seq THEN NULL ELSE unread END
    WHERE tenant = p_tenant AND conversation = p_conversation
    RETURNING generation INTO v_generation;
    PERFORM perdure.append_items(p_tenant, p_conversation, v_before + 1, p_seq, p_items);
    PERFORM perdure.name_item(p_tenant, p_conversation, v_own + number - 1, p_own_ids[number],
        p_own_wires[number])
    FROM generate_subscripts(p_own_ids, 1) AS number;
    PERFORM perdure.note_rebuild(p_tenant, p_upstream, p_conversation, v_generation, p_recovery,
        p_lost);
    -- Nobody is to go on from an answer that was made without the history, nor from what made it.
    PERFORM perdure.give_up(p_tenant, p_upstream, p_dialect, p_conversation, p_forgot);
    IF p_forgot IS NOT NULL THEN
        PERFORM perdure.mark(p_tenant, p_upstream, p_head, 'lost');
    END IF;
    IF v_overtakes OR v_overtaken AND v_dialect = 'responses' THEN  -- others may go on from the response itself
        UPDATE perdure.conversation SET replica_state = 'lost'
        WHERE tenant = p_tenant AND conversation = p_conversation AND replica_state = 'live';
    ELSE
        PERFORM perdure.give_up(p_tenant, p_upstream, v_dialect, p_conversation, v_given_up);
    END IF;
    RETURN 'done';
END $$;

-- ops.Underway: the provider's id of work that goes on; the lease is free, the turn still open.
CREATE FUNCTION perdure.underway(
    p_tenant text, p_upstream text, p_conversation bigint, p_seq bigint, p_epoch bigint,
    p_response_id text, p_body bytea, p_generation bigint, p_partial json,
    p_partial_of text[], p_waits_for text, p_outputs_of text, p_refused text,
    p_unasked boolean, p_recovery json, p_lost text)
RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_is_run CONSTANT boolean := starts_with(p_response_id, 'run_');
    t record;
    v_last bigint;
    v_generation bigint;
    v_rebuilt_with bigint;
    v_known_as text;
    v_before text;
    v_outputs_of text;
    v_outputs_unread boolean;
    v_unread bigint;
BEGIN
    SELECT last_position, unread, rebuilt_with INTO v_last, v_unread, v_rebuilt_with
    FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    SELECT response_id, dialect, adopted, perdure.handle_key(p_upstream, handle) AS key INTO t
    FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq;
    v_known_as := t.response_id;
    v_before := nullif(v_known_as, p_response_id);
    UPDATE perdure.turn
    SET former_ids = CASE WHEN v_before IS NULL THEN former_ids ELSE former_ids || v_before END,
        response_id = p_response_id, lease_until = NULL, handed = true, state = 'delivering',
        outputs_of = CASE WHEN p_refused IS NULL THEN COALESCE(p_outputs_of, outputs_of) END,
        outputs_at = CASE WHEN p_outputs_of IS NULL OR p_outputs_of IS NOT DISTINCT FROM outputs_of
                          THEN outputs_at ELSE v_last END,
        outputs_unread = CASE WHEN p_outputs_of IS NULL
                                   OR p_outputs_of IS NOT DISTINCT FROM outputs_of
                              THEN outputs_unread
                              ELSE v_unread IS NOT DISTINCT FROM p_seq END,
        outputs_again = CASE WHEN p_outputs_of IS NULL THEN outputs_again
                             ELSE p_outputs_of IS NOT DISTINCT FROM outputs_of END
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq AND epoch = p_epoch
      AND (state = 'unknown' OR state = 'delivering' AND (
           lease_until > perdure.perdure_now() OR response_id = p_response_id))
      AND (COALESCE(p_outputs_of, p_refused) IS NULL OR lease_until IS NULL
           OR lease_until <= perdure.perdure_now())
      AND (p_refused IS NULL OR outputs_of = p_refused AND NOT outputs_again)
      AND NOT (p_unasked AND COALESCE(outputs_of <> p_outputs_of, false))
    RETURNING outputs_of, outputs_unread INTO v_outputs_of, v_outputs_unread;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_known_as IS NULL AND p_generation IS NOT NULL THEN
        PERFORM perdure.stands_on_thread(p_tenant, p_conversation, p_seq, p_generation);
    END IF;
    PERFORM perdure.keep_shown(p_tenant, p_conversation, p_seq, p_partial, p_partial_of);
    UPDATE perdure.conversation
    SET open_from = perdure.still_open(p_tenant, p_conversation, open_from, p_seq),
        unread = CASE WHEN p_refused IS NOT NULL AND NOT v_outputs_unread AND unread = p_seq
                      THEN NULL
                      WHEN NOT v_is_run OR generation IS DISTINCT FROM p_generation THEN unread
                      WHEN v_known_as IS DISTINCT FROM p_response_id THEN p_seq
                      WHEN p_outputs_of IS NOT NULL THEN GREATEST(unread, p_seq)
                      ELSE unread END
    WHERE tenant = p_tenant AND conversation = p_conversation
    RETURNING last_position INTO v_last;
    -- What a response in the background goes on from, or was given as a rebuild of a chain.
    IF t.dialect = 'responses' AND p_recovery IS NOT NULL THEN
        v_rebuilt_with := t.adopted;
    ELSIF t.dialect = 'responses' AND t.key IS NOT NULL THEN
        v_rebuilt_with := (
            SELECT rebuilt_with FROM perdure.handle WHERE tenant = p_tenant AND key = t.key);
    END IF;
    IF NOT v_is_run AND NOT EXISTS (
        SELECT 1 FROM perdure.handle
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_response_id)) THEN
        UPDATE perdure.conversation
        SET generation = generation + (t.dialect = 'responses' AND p_recovery IS NOT NULL)::integer,
            history_tokens = CASE WHEN p_recovery IS NULL THEN history_tokens END,
            unread = CASE WHEN t.dialect = 'conversations' OR subject IS NOT NULL THEN p_seq
                          ELSE unread END
        WHERE tenant = p_tenant AND conversation = p_conversation
        RETURNING generation INTO v_generation;
        IF p_recovery IS NOT NULL THEN
            PERFORM perdure.note_rebuild(p_tenant, p_upstream, p_conversation, v_generation,
                p_recovery, p_lost);
        END IF;
    END IF;
    INSERT INTO perdure.handle (tenant, key, upstream, handle, conversation, kind, position,
        turn_seq, rebuilt_with, body, confirmed_at)
    VALUES (p_tenant, perdure.handle_key(p_upstream, p_response_id), p_upstream, p_response_id,
        p_conversation, CASE WHEN v_is_run THEN 'run' ELSE 'response' END, v_last, p_seq,
        CASE WHEN NOT v_is_run THEN v_rebuilt_with END, p_body, perdure.perdure_now())
    ON CONFLICT (tenant, key) DO UPDATE SET body = excluded.body
        WHERE handle.conversation = excluded.conversation AND handle.turn_seq = excluded.turn_seq
          AND (p_waits_for = v_outputs_of) IS NOT TRUE;
    IF v_before IS NOT NULL THEN
        UPDATE perdure.handle SET replaced_by = p_response_id
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, v_before);
    END IF;
    RETURN true;
END $$;

-- ops.Fail: end a turn without an answer; keep what was shown of one.
CREATE FUNCTION perdure.fail(
    p_tenant text, p_conversation bigint, p_seq bigint, p_epoch bigint, p_state text,
    p_reason text, p_withdrawn boolean, p_partial json)
RETURNS boolean
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_first bigint;
    v_dialect text;
    v_shown integer;
BEGIN
    PERFORM FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    UPDATE perdure.turn SET state = p_state, reason = p_reason, lease_until = NULL
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq
      AND epoch = p_epoch AND state IN ('pending', 'delivering', 'unknown')
    RETURNING first_position, dialect, cardinality(shown_at) INTO v_first, v_dialect, v_shown;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Not what was answered in part, nor what a thread was given that was created meanwhile.
    IF p_withdrawn AND v_shown = 0 AND NOT (
        v_dialect = 'threads' AND perdure.is_given(p_tenant, p_conversation, v_first)) THEN
        UPDATE perdure.item SET withdrawn = true
        WHERE tenant = p_tenant AND conversation = p_conversation AND position >= v_first
          AND turn_seq = p_seq AND NOT withdrawn;
    END IF;
    PERFORM perdure.keep_shown(p_tenant, p_conversation, p_seq, p_partial);
    IF p_state = 'unknown' AND v_dialect <> 'responses' THEN
        UPDATE perdure.conversation SET doubt = true
        WHERE tenant = p_tenant AND conversation = p_conversation;
    END IF;
    RETURN true;
END $$;

-- ops.Renew: put off the end of leases, one turn at each index.
CREATE FUNCTION perdure.renew(
    p_tenant text, p_conversations bigint[], p_seqs bigint[], p_epochs bigint[],
    p_lease_seconds double precision)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM 1 FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = ANY (p_conversations)
    ORDER BY conversation FOR UPDATE;
    FOR v_number IN 1..cardinality(p_seqs) LOOP
        UPDATE perdure.turn SET lease_until = perdure.perdure_now() + p_lease_seconds
        WHERE tenant = p_tenant AND conversation = p_conversations[v_number]
          AND seq = p_seqs[v_number] AND epoch = p_epochs[v_number]
          AND state = 'delivering' AND lease_until IS NOT NULL;
    END LOOP;
END $$;

-- ops.Unsettled: the turns whose outcome is unknown, and where on the replica they would stand.
CREATE FUNCTION perdure.unsettled(p_tenant text, p_conversation bigint, p_asking bigint)
RETURNS SETOF perdure.doubted
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_seqs CONSTANT bigint[] := ARRAY(
        SELECT seq FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND unknown
        UNION
        SELECT seq FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_asking);
    v_first CONSTANT bigint := (
        SELECT min(first_position) FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = ANY (v_seqs));
    v_after text;
    v_skip bigint;
    t record;
    r perdure.doubted;
BEGIN
    SELECT provider_id INTO v_after FROM perdure.item
    WHERE tenant = p_tenant AND conversation = p_conversation AND position < v_first
      AND provider_id IS NOT NULL AND tombstoned_at IS NULL
    ORDER BY position DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT CASE WHEN generation = 0 AND adopting IS NULL THEN v_first - 1 END INTO v_skip
        FROM perdure.conversation WHERE tenant = p_tenant AND conversation = p_conversation;
    END IF;
    FOR t IN
        SELECT seq, epoch, COALESCE(turn_id, conversation || '.' || seq) AS turn_id, kind, request,
               first_position, last_position
        FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = ANY (v_seqs)
        ORDER BY first_position, seq
    LOOP
        RETURN QUERY
        SELECT t.seq, t.epoch, t.turn_id, t.kind, t.request, position, kind, role, call_id,
               provider_id, wire, COALESCE(input, wire), created_at, tokens, v_after, v_skip
        FROM perdure.item
        WHERE tenant = p_tenant AND conversation = p_conversation
          AND position >= t.first_position AND position <= t.last_position
        ORDER BY position;
        IF NOT FOUND THEN
            r := ROW(t.seq, t.epoch, t.turn_id, t.kind, t.request, NULL, NULL, NULL, NULL, NULL,
                NULL, NULL, NULL, NULL, v_after, v_skip);
            RETURN NEXT r;
        END IF;
    END LOOP;
END $$;

-- ops.Settle: end the doubt about a replica, unless a turn's outcome is unknown still.
CREATE FUNCTION perdure.settle(p_tenant text, p_conversation bigint, p_generation bigint)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM 1 FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    UPDATE perdure.conversation SET doubt = false
    WHERE tenant = p_tenant AND conversation = p_conversation AND generation = p_generation
      AND COALESCE(rebuilt_with >= adopted, true)
      AND NOT EXISTS (SELECT 1 FROM perdure.turn
                      WHERE tenant = p_tenant AND conversation = p_conversation AND unknown);
END $$;
