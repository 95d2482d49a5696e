-- ops.Find: what a handle points to; no row where it was never seen here.
CREATE FUNCTION perdure.find(p_tenant text, p_upstream text, p_handle text)
RETURNS SETOF perdure.found
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_key CONSTANT bytea := perdure.handle_key(p_upstream, p_handle);
    v_now CONSTANT double precision := perdure.perdure_now();
    h record;
    c perdure.conversation;
    t record;
    r perdure.found;
BEGIN
    SELECT conversation, kind, position, turn_seq, state, replaced_by, rebuilt_with, body, confirmed_at
    INTO h
    FROM perdure.handle WHERE tenant = p_tenant AND key = v_key;
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM perdure.handle WHERE key = v_key AND tenant <> p_tenant) THEN
            r.foreign_handle := true;
            RETURN NEXT r;
        END IF;
        RETURN;
    END IF;
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = h.conversation;
    SELECT seq, epoch, COALESCE(turn_id, conversation || '.' || seq) AS turn_id, state, request,
           answer_status, answer_body, answer_type INTO t
    FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = h.conversation AND seq = h.turn_seq;
    r.foreign_handle := false;
    r.conversation := h.conversation;
    r.position := h.position;
    r.state := perdure.state_of(c, h.state, h.rebuilt_with);
    r.age_seconds := v_now - h.confirmed_at;
    r.dialect := c.dialect;
    r.generation := c.generation;
    r.replica_state := perdure.state_of_replica(c);
    r.replica_handle := c.replica_handle;
    r.primed_through := c.primed_through;
    r.replica_age_seconds := v_now - c.confirmed_at;
    r.doubtful := c.doubt AND r.replica_state = 'live' AND c.dialect <> 'responses';
    r.seq := t.seq;
    r.epoch := t.epoch;
    r.turn_id := t.turn_id;
    r.ended := COALESCE(t.state = 'answered', false);
    r.request := COALESCE(t.request, '');
    IF t.answer_status IS NOT NULL THEN
        r.answer_status := t.answer_status;
        r.answer_body := t.answer_body;
        r.answer_type := t.answer_type;
    ELSIF h.body IS NOT NULL THEN
        r.answer_status := 200;
        r.answer_body := h.body;
        r.answer_type := 'application/json';
    END IF;
    r.replaced_by := h.replaced_by;
    r.first_position := c.first_position;
    r.last_position := c.last_position;
    SELECT response_id, response_id IS NOT NULL AND state <> 'delivering'
    INTO r.unread, r.unread_ended FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = h.conversation AND seq = c.unread;
    IF perdure.is_end(c, p_handle, h.kind, h.position) THEN
        r.history_tokens := c.history_tokens;
        r.history_reasoning := c.history_reasoning;
        r.history_model := c.history_model;
        r.history_fixed := c.history_fixed;
    END IF;
    RETURN NEXT r;
END $$;

-- ops.History: the newest items that fit the budget, through the origins of a branch, newest first;
-- then the row that belongs to them all. No more is read than fits.
CREATE FUNCTION perdure.history(
    p_tenant text, p_conversation bigint, p_through bigint, p_budget_tokens bigint, p_wire text)
RETURNS SETOF perdure.recalled
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c record;
    i record;
    r perdure.recalled;
    v_conversation bigint := p_conversation;
    v_through bigint := p_through;
    v_left bigint := p_budget_tokens;
    v_older bigint := 0;
    v_some boolean := false;
    v_complete boolean := true;
    v_snapshot perdure.snapshot;
BEGIN
    WHILE v_conversation IS NOT NULL LOOP
        IF v_older = 0 THEN
            FOR i IN
                SELECT position, kind, role, call_id, provider_id,
                       CASE WHEN position(p_wire IN wire) > 0 THEN wire ELSE '' END AS wire,
                       COALESCE(input, wire) AS input, created_at, tokens
                FROM perdure.item
                WHERE tenant = p_tenant AND conversation = v_conversation
                  AND position <= v_through AND NOT withdrawn AND tombstoned_at IS NULL
                ORDER BY position DESC
            LOOP
                v_left := v_left - i.tokens;
                IF v_left < 0 AND v_some THEN
                    v_older := perdure.items_before(p_tenant, v_conversation, i.position + 1);
                    EXIT;
                END IF;
                v_some := true;
                r := ROW(i.position, i.kind, i.role, i.call_id, i.provider_id, i.wire, i.input,
                    i.created_at, i.tokens, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
                RETURN NEXT r;
            END LOOP;
        ELSE
            v_older := v_older + perdure.items_before(p_tenant, v_conversation, v_through + 1);
        END IF;
        SELECT origin_conversation, origin_position, adopting INTO c FROM perdure.conversation
        WHERE tenant = p_tenant AND conversation = v_conversation;
        v_complete := v_complete AND c.adopting IS NULL;
        v_conversation := c.origin_conversation;
        v_through := LEAST(v_through, c.origin_position);
    END LOOP;
    IF v_older > 0 THEN
        v_snapshot := perdure.newest_snapshot(p_tenant, p_conversation, p_through);
    END IF;
    r := ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, v_older, v_complete, (
        SELECT array_agg(text ORDER BY number) FROM perdure.milestone
        WHERE tenant = p_tenant AND conversation = p_conversation),
        v_snapshot.through, v_snapshot.items, v_snapshot.text, v_snapshot.maker,
        v_snapshot.created_at);
    RETURN NEXT r;
END $$;

-- The id of a turn: the caller's, or the one that it has without.
CREATE FUNCTION perdure.turn_name(p_tenant text, p_conversation bigint, p_seq bigint) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT COALESCE(turn_id, conversation || '.' || seq) FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq);
END $$;

-- ops.Page: one page and one item more, from a cursor on.
CREATE FUNCTION perdure.page(
    p_tenant text, p_conversation bigint, p_newest_first boolean, p_limit bigint, p_after text,
    p_above bigint, p_below bigint, p_turn_response text, p_inputs boolean)
RETURNS SETOF perdure.listed
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_low bigint := COALESCE(p_above, -9223372036854775807);
    v_high bigint := COALESCE(p_below, 9223372036854775807);
    v_seq bigint;
    v_cursor bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM perdure.conversation
                   WHERE tenant = p_tenant AND conversation = p_conversation) THEN
        RETURN;
    END IF;
    IF p_after IS NOT NULL THEN
        v_cursor := perdure.item_position(p_tenant, p_conversation, p_after);
        IF v_cursor IS NULL THEN
            RETURN NEXT NULL::perdure.listed;
            RETURN;
        ELSIF p_newest_first THEN
            v_high := LEAST(v_high, v_cursor);
        ELSE
            v_low := GREATEST(v_low, v_cursor);
        END IF;
    END IF;
    IF p_turn_response IS NOT NULL THEN
        -- Items of the turn whose answer it is; there are none before that turn's own.
        SELECT seq, GREATEST(v_low, first_position - 1),
               CASE WHEN p_inputs THEN LEAST(v_high, last_position + 1) ELSE v_high END
        INTO v_seq, v_low, v_high
        FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation
          AND response_id = p_turn_response AND seq = (
            SELECT turn_seq FROM perdure.handle
            WHERE tenant || '' = p_tenant AND conversation = p_conversation
              AND hashtextextended(handle, 0) = hashtextextended(p_turn_response COLLATE "C", 0)
              AND handle = p_turn_response
            ORDER BY confirmed_at LIMIT 1);
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF p_newest_first THEN
        RETURN QUERY
        SELECT i.position, i.kind, i.role, i.call_id, i.provider_id, i.wire, '', i.created_at,
               perdure.turn_name(p_tenant, p_conversation, i.turn_seq), i.tokens
        FROM perdure.item i
        WHERE i.tenant = p_tenant AND i.conversation = p_conversation
          AND i.position > v_low AND i.position < v_high
          AND NOT i.withdrawn AND i.tombstoned_at IS NULL
          AND (v_seq IS NULL OR i.turn_seq = v_seq)
        ORDER BY i.position DESC LIMIT p_limit + 1;
    ELSE
        RETURN QUERY
        SELECT i.position, i.kind, i.role, i.call_id, i.provider_id, i.wire, '', i.created_at,
               perdure.turn_name(p_tenant, p_conversation, i.turn_seq), i.tokens
        FROM perdure.item i
        WHERE i.tenant = p_tenant AND i.conversation = p_conversation
          AND i.position > v_low AND i.position < v_high
          AND NOT i.withdrawn AND i.tombstoned_at IS NULL
          AND (v_seq IS NULL OR i.turn_seq = v_seq)
        ORDER BY i.position LIMIT p_limit + 1;
    END IF;
END $$;

-- ops.Runs: runs as they were last seen, by the order of their turns.
CREATE FUNCTION perdure.runs(
    p_tenant text, p_upstream text, p_conversation bigint, p_newest_first boolean, p_limit bigint,
    p_above bigint, p_below bigint)
RETURNS TABLE (run_id text, ended boolean, body bytea)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    t record;
    h record;
    v_left bigint := p_limit;
    v_seq bigint := CASE WHEN p_newest_first THEN COALESCE(p_below, 9223372036854775807)
                         ELSE COALESCE(p_above, 0) END;
BEGIN
    WHILE v_left > 0 LOOP
        IF p_newest_first THEN
            SELECT seq, response_id, state, answer_body INTO t FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = p_conversation AND seq < v_seq
            ORDER BY seq DESC LIMIT 1;
            EXIT WHEN NOT FOUND OR t.seq <= p_above;
        ELSE
            SELECT seq, response_id, state, answer_body INTO t FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = p_conversation AND seq > v_seq
            ORDER BY seq LIMIT 1;
            EXIT WHEN NOT FOUND OR t.seq >= p_below;
        END IF;
        v_seq := t.seq;
        SELECT handle.body INTO h FROM perdure.handle
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, t.response_id)
          AND conversation + 0 = p_conversation AND kind = 'run';
        IF FOUND THEN
            run_id := t.response_id;
            ended := t.state = 'answered';
            body := COALESCE(t.answer_body, h.body);
            v_left := v_left - 1;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- ops.Learn: append what follows the newest known item; what lies before it is adoption's business.
CREATE FUNCTION perdure.learn(
    p_tenant text, p_conversation bigint, p_items json, p_whole boolean,
    p_named_positions bigint[], p_named_ids text[], p_named_wires text[], p_said_by text[],
    p_read text, p_generation bigint, p_older bigint,
    p_since_outputs text)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
    one record;
    v_start bigint;
    v_last bigint;
    v_seq bigint;
    v_everything boolean := true;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'apart';
    ELSIF c.generation <> p_generation THEN
        RETURN 'replaced';
    ELSIF EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = c.unread
          AND seq = perdure.turn_of_run(c, p_since_outputs) AND outputs_unread) THEN
        RETURN 'apart';
    END IF;
    PERFORM perdure.name_item(p_tenant, p_conversation, p_named_positions[number],
        p_named_ids[number], p_named_wires[number])
    FROM generate_subscripts(p_named_positions, 1) AS number;
    SELECT min(i.number) INTO v_start
    FROM ROWS FROM (json_to_recordset(p_items) AS (provider_id text))
         WITH ORDINALITY AS i(provider_id, number)
    WHERE perdure.item_position(p_tenant, p_conversation, i.provider_id) IS NOT NULL;
    IF p_named_positions <> '{}' THEN
        v_start := LEAST(v_start, p_older + 1);
    END IF;
    IF v_start IS NULL AND NOT p_whole THEN
        RETURN 'apart';
    ELSIF v_start IS NULL AND c.adopting IS NOT NULL AND json_array_length(p_items) > 0 THEN
        -- Where older history is still to be adopted, only what a run of this log said tells it
        -- from what follows the log.
        SELECT min(number) INTO v_start FROM unnest(p_said_by) WITH ORDINALITY AS run(id, number)
        WHERE perdure.turn_of_run(c, run.id) IS NOT NULL;
        IF v_start IS NULL THEN
            RETURN 'apart';
        END IF;
    END IF;
    v_last := c.last_position;
    FOR one IN
        SELECT i.*
        FROM ROWS FROM (json_to_recordset(p_items) AS (kind text, role text, call_id text,
                        provider_id text, wire text, input text, tokens bigint,
                        created_at double precision))
             WITH ORDINALITY
             AS i(kind, role, call_id, provider_id, wire, input, tokens, created_at, number)
        WHERE (i.number >= COALESCE(v_start, 1)
               OR perdure.turn_of_run(c, p_said_by[i.number]) IS NOT NULL)
          AND perdure.item_position(p_tenant, p_conversation, i.provider_id) IS NULL
          AND perdure.item_position(p_tenant, p_conversation, perdure.buried(i.provider_id)) IS NULL
    LOOP
        v_seq := perdure.turn_of_run(c, p_said_by[one.number]);
        IF v_seq IS NULL AND p_said_by[one.number] IS NOT NULL
           AND perdure.has_run_of_unknown_id(c)
           OR EXISTS (SELECT 1 FROM perdure.turn
                      WHERE tenant = p_tenant AND conversation = p_conversation AND seq = v_seq
                        AND state = 'delivering' AND lease_until > perdure.perdure_now()) THEN
            v_everything := false;
            EXIT;
        ELSIF v_seq IS NOT NULL THEN
            PERFORM perdure.withdraw_shown(p_tenant, p_conversation, v_seq, one.provider_id);
        END IF;
        v_last := v_last + 1;
        INSERT INTO perdure.item (tenant, conversation, position, turn_seq, kind, role, call_id,
            provider_id, wire, input, tokens, created_at)
        VALUES (p_tenant, p_conversation, v_last, v_seq, one.kind, one.role, one.call_id, one.provider_id,
            one.wire, one.input, one.tokens, COALESCE(one.created_at, perdure.perdure_now()));
    END LOOP;
    UPDATE perdure.conversation
    SET last_position = v_last,
        unread = CASE WHEN v_everything AND unread = perdure.turn_of_run(c, p_read) THEN NULL
                      ELSE unread END
    WHERE tenant = p_tenant AND conversation = p_conversation;
    RETURN 'done';
END $$;

-- The turn that a run belongs to.
CREATE FUNCTION perdure.turn_of_run(c perdure.conversation, p_run_id text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT turn_seq FROM perdure.handle
            WHERE tenant = c.tenant AND key = perdure.handle_key(c.upstream, p_run_id)
              AND conversation + 0 = c.conversation);
END $$;

-- Whether a run is being started, or may have been, of which it is not known under which id.
CREATE FUNCTION perdure.has_run_of_unknown_id(c perdure.conversation) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = c.tenant AND conversation = c.conversation AND seq >= c.open_from
          AND kind = 'run' AND state = 'delivering' AND lease_until IS NOT NULL) OR EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = c.tenant AND conversation = c.conversation AND unknown AND kind = 'run');
END $$;

-- ops.Adopted: put older history in front of the log, at positions that run downwards.
CREATE FUNCTION perdure.adopted(
    p_tenant text, p_conversation bigint, p_items json, p_done boolean, p_given_up boolean,
    p_lease_seconds double precision)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
    v_first bigint;
    v_added bigint;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_first := LEAST(c.first_position, 1);
    WITH fresh AS (
        SELECT i.*, row_number() OVER (ORDER BY i.number) AS place
        FROM ROWS FROM (json_to_recordset(p_items) AS (kind text, role text, call_id text,
                        provider_id text, wire text, input text, tokens bigint,
                        created_at double precision))
             WITH ORDINALITY
             AS i(kind, role, call_id, provider_id, wire, input, tokens, created_at, number)
        WHERE perdure.item_position(p_tenant, p_conversation, i.provider_id) IS NULL
          AND perdure.item_position(p_tenant, p_conversation, perdure.buried(i.provider_id)) IS NULL)
    INSERT INTO perdure.item (tenant, conversation, position, turn_seq, kind, role, call_id,
        provider_id, wire, input, tokens, created_at)
    SELECT p_tenant, p_conversation, v_first - place, NULL, kind, role, call_id, provider_id, wire,
           input, tokens, COALESCE(created_at, perdure.perdure_now())
    FROM fresh;
    GET DIAGNOSTICS v_added = ROW_COUNT;
    -- A shared replica that lacks this may have what nobody has read yet, so it is only doubtful.
    UPDATE perdure.conversation
    SET first_position = v_first - v_added, adopted = adopted + v_added,
        doubt = doubt OR COALESCE(replica_state = 'live' AND dialect <> 'responses'
                                  AND rebuilt_with < adopted + v_added, false),
        adopting = CASE WHEN p_done THEN NULL WHEN p_given_up THEN 9e15
                        ELSE perdure.perdure_now() + p_lease_seconds END
    WHERE tenant = p_tenant AND conversation = p_conversation;
END $$;

-- ops.Adopting: take up an adoption that nobody is at.
CREATE FUNCTION perdure.adopting(
    p_tenant text, p_conversation bigint, p_lease_seconds double precision)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_now CONSTANT double precision := perdure.perdure_now();
BEGIN
    UPDATE perdure.conversation SET adopting = v_now + p_lease_seconds
    WHERE tenant = p_tenant AND conversation = p_conversation AND adopting <= v_now;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT handle FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = p_conversation AND seq = 1);
END $$;
