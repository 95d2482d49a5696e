-- ops.Accept: find or open the turn's place, journal its items, take it if it is first in line.
CREATE FUNCTION perdure.accept(
    p_tenant text, p_upstream text, p_dialect text, p_kind text, p_turn_id text, p_body_hash text,
    p_items json, p_request text, p_handle text, p_subject text, p_waiting_conversation bigint,
    p_waiting_seq bigint, p_looked text, p_lost text, p_interim boolean, p_sent_ids text[],
    p_lease_seconds double precision, p_retry boolean,
    p_once boolean, p_deadline_seconds double precision)
RETURNS perdure.accepted
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    -- Whether turns of this conversation are delivered one after another.
    v_shared CONSTANT boolean := p_dialect <> 'responses' OR p_subject IS NOT NULL;
    op CONSTANT perdure.accepting := ROW(p_tenant, p_upstream, p_dialect, p_kind, p_turn_id,
        p_body_hash, p_handle, p_subject, p_sent_ids, p_looked, p_lost, p_interim, p_lease_seconds,
        v_shared, p_retry, p_once, p_deadline_seconds);
    v_key CONSTANT bytea := perdure.handle_key(p_upstream, p_handle);
    c perdure.conversation;
    h record;
    t record;
    r perdure.accepted;
    v_now double precision;
    v_conversation bigint := p_waiting_conversation;
    v_seq bigint := p_waiting_seq;
    -- The place of a new turn: the log position that it continues from, and the handle's state.
    v_parent bigint := 0;
    v_handle_state text := 'none';
    v_handle_age double precision := 0;
    v_adopting boolean := false;
    v_remembered boolean := false;
    v_branches boolean := false;
    -- Whether a chain of responses begins beside the conversation that it continues from.
    v_beside boolean := false;
    -- The turn of the response that is continued, if that was made in the background.
    v_made_by bigint;
    v_newest bigint := 0;
    v_history record;
    v_known bigint;
    v_first bigint;
    v_last bigint;
    v_waiting boolean;
BEGIN
    -- The turn that the caller names, by its own id for it or as one it waits for.
    IF v_seq IS NULL AND p_turn_id IS NOT NULL THEN
        SELECT conversation, seq INTO v_conversation, v_seq FROM perdure.turn
        WHERE tenant || '' = p_tenant AND turn_id = p_turn_id
          AND perdure.digest(tenant, turn_id) = perdure.digest(p_tenant, p_turn_id);
    END IF;
    IF v_seq IS NOT NULL THEN
        RETURN perdure.again(op, v_conversation, v_seq);
    END IF;

    -- Where a new turn goes. From here on the conversation's row is locked.
    IF p_handle IS NOT NULL THEN
        SELECT conversation INTO v_conversation FROM perdure.handle
        WHERE tenant = p_tenant AND key = v_key;
        IF FOUND THEN
            SELECT * INTO c FROM perdure.conversation
            WHERE tenant = p_tenant AND conversation = v_conversation FOR UPDATE;
            SELECT kind, position, perdure.state_of(c, state, rebuilt_with) AS state, confirmed_at,
                   turn_seq, CASE WHEN body IS NOT NULL THEN turn_seq END AS made_by INTO h
            FROM perdure.handle
            WHERE tenant = p_tenant AND key = v_key
              AND conversation + 0 = c.conversation;
            IF NOT FOUND THEN
                PERFORM perdure.begin_again();
            END IF;
            IF h.state = 'retired' OR (p_dialect <> 'responses' AND c.replica_state = 'retired'
                                       AND c.dialect <> 'responses') THEN
                r.outcome := 'retired';
                RETURN r;
            END IF;
            v_parent := CASE WHEN p_dialect <> 'responses' THEN c.last_position ELSE h.position END;
            v_remembered := perdure.is_end(c, p_handle, h.kind, h.position);
            v_handle_state := CASE WHEN h.state = 'lost' THEN 'lost' ELSE 'live' END;
            v_handle_age := perdure.perdure_now() - h.confirmed_at;
            v_adopting := c.adopting IS NOT NULL AND c.last_seq = 0;
            v_made_by := CASE WHEN p_dialect = 'responses' THEN h.made_by END;
            v_newest := COALESCE(h.turn_seq, 0);
        ELSIF p_looked IS NOT NULL THEN
            r.outcome := 'erased';
            RETURN r;
        ELSIF EXISTS (SELECT 1 FROM perdure.handle WHERE key = v_key AND tenant <> p_tenant) THEN
            r.outcome := 'foreign';
            RETURN r;
        ELSIF EXISTS (SELECT 1 FROM perdure.orphan
                      WHERE tenant || '' = p_tenant
                        AND perdure.handle_key(upstream, handle) = v_key
                        AND handle IS NOT NULL AND deleted_at IS NULL) THEN
            r.outcome := 'retired';
            RETURN r;
        ELSE
            c := perdure.new_conversation(p_tenant, p_subject, p_upstream, p_dialect, true, 'live',
                CASE WHEN p_dialect <> 'responses' THEN p_handle END, NULL, NULL, NULL);
            PERFORM perdure.new_handle(p_tenant, p_upstream, p_handle, c.conversation,
                perdure.kind_of(p_dialect), 0, NULL);
            v_handle_state := 'live';
            v_adopting := true;
        END IF;
    ELSE
        SELECT * INTO c FROM perdure.conversation
        WHERE tenant || '' = p_tenant AND subject = p_subject
          AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject) FOR UPDATE;
        IF FOUND THEN
            v_parent := c.last_position;
            v_remembered := true;
            v_handle_state := perdure.state_of_replica(c);
            v_handle_age := perdure.perdure_now() - c.confirmed_at;
        ELSIF p_looked IS NOT NULL THEN
            r.outcome := 'erased';
            RETURN r;
        ELSE
            c := perdure.new_conversation(p_tenant, p_subject, p_upstream, p_dialect, false,
                'absent', NULL, NULL, NULL, NULL);
        END IF;
    END IF;

    -- The newest turn that goes on from there; and whether the line has gone on already. One that has
    -- failed counts where it has an id from which others may have gone on.
    v_beside := NOT v_shared AND c.dialect <> 'responses';
    v_branches := v_beside;
    IF NOT v_shared AND (v_beside OR v_newest <> c.last_seq) THEN
        -- Turns that continue from it, in order: all but the last of them have failed.
        FOR t IN
            SELECT seq, handle, accepted_at FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = c.conversation AND seq > v_newest
            ORDER BY seq
        LOOP
            EXIT WHEN v_beside OR t.handle IS DISTINCT FROM p_handle;
            v_conversation := c.conversation;
            v_seq := t.seq;
            v_now := t.accepted_at;
        END LOOP;
        v_branches := v_branches OR EXISTS (
            SELECT 1 FROM perdure.turn
            WHERE tenant = p_tenant AND conversation = c.conversation AND seq > v_newest
              AND (state <> 'failed' OR response_id IS NOT NULL));
        SELECT conversation, accepted_at INTO t FROM perdure.turn
        WHERE tenant = p_tenant AND seq = 1 AND conversation = (
            SELECT conversation FROM perdure.conversation
            WHERE tenant || '' = p_tenant AND origin_conversation = c.conversation
              AND origin_position = v_parent
            ORDER BY created_at DESC, conversation DESC LIMIT 1);
        IF FOUND AND (v_seq IS NULL OR t.accepted_at >= v_now) THEN
            v_conversation := t.conversation;
            v_seq := 1;
        END IF;
    ELSIF v_shared AND c.open_from IS NOT NULL THEN
        v_conversation := c.conversation;
        v_seq := c.last_seq;
    END IF;
    -- A repeat of it: the same body, and nobody was handed its answer.
    IF p_turn_id IS NULL AND p_handle IS NOT NULL AND v_seq IS NOT NULL AND EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = v_conversation AND seq = v_seq
          AND NOT handed AND body_hash = p_body_hash AND kind = p_kind) THEN
        RETURN perdure.again(op, v_conversation, v_seq);
    END IF;

    -- What a turn ahead did or said comes first: nothing is journalled before.
    IF v_made_by IS NOT NULL AND p_looked IS DISTINCT FROM p_handle AND EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = c.conversation AND seq = v_made_by
          AND state = 'delivering' AND lease_until IS NULL) THEN
        RETURN perdure.comes_first(c, p_handle, false);
    END IF;
    IF v_shared AND (c.open_from IS NOT NULL OR c.doubt OR c.unread IS NOT NULL) THEN
        r := perdure.unsettled_ahead(op, c.conversation, c.last_seq + 1);
        IF r.outcome IS NOT NULL THEN
            RETURN r;
        END IF;
    END IF;

    -- A branch, where the position already has a child: both lines keep what they know. Positions
    -- go on from the origin's, so that a position names one place on every line.
    SELECT c.history_tokens, c.history_reasoning, c.history_model, c.history_fixed INTO v_history;
    IF v_branches THEN
        c := perdure.new_conversation(p_tenant, NULL, p_upstream, p_dialect, false, 'absent', NULL,
            c.conversation, v_parent, COALESCE(c.root, c.conversation));
        c.last_position := v_parent;
        v_adopting := false;
        IF v_remembered THEN
            UPDATE perdure.conversation
            SET history_tokens = v_history.history_tokens,
                history_reasoning = v_history.history_reasoning,
                history_model = v_history.history_model, history_fixed = v_history.history_fixed
            WHERE tenant = p_tenant AND conversation = c.conversation;
        END IF;
    END IF;

    v_seq := c.last_seq + 1;
    v_first := c.last_position + 1;
    v_known := perdure.known_items(op, c);
    v_last := v_first + GREATEST(json_array_length(p_items) - v_known, 0) - 1;
    v_waiting := v_shared AND perdure.must_wait(c, v_seq);
    v_now := perdure.perdure_now();
    INSERT INTO perdure.turn (tenant, conversation, seq, turn_id, kind, state, dialect, handle,
        parent, first_position, last_position, body_hash, request, epoch, lease_until, deadline,
        accepted_at, adopted)
    VALUES (p_tenant, c.conversation, v_seq, p_turn_id, p_kind,
        CASE WHEN v_waiting THEN 'pending' ELSE 'delivering' END, p_dialect, p_handle, v_parent,
        v_first, v_last, p_body_hash, p_request, 1, v_now + p_lease_seconds,
        v_now + p_deadline_seconds, v_now, perdure.adopted_at_root(c));
    -- One that waits is no part of what others are answered from until it is delivered.
    PERFORM perdure.append_items(p_tenant, c.conversation, v_first, v_seq, p_items, v_known,
        v_waiting);
    UPDATE perdure.conversation
    SET last_position = v_last, last_seq = v_seq, open_from = COALESCE(open_from, v_seq)
    WHERE tenant = p_tenant AND conversation = c.conversation;
    r := perdure.on_replica(c);
    r.outcome := CASE WHEN v_waiting THEN 'wait' ELSE 'deliver' END;
    r.conversation := c.conversation;
    r.seq := v_seq;
    r.epoch := 1;
    r.turn_id := COALESCE(p_turn_id, c.conversation || '.' || v_seq);
    r.through := v_first - 1;
    r.handle_state := v_handle_state;
    r.handle_age_seconds := v_handle_age;
    r.adopting := v_adopting;
    r.accepted_items := v_last - v_first + 1;
    r.known_items := v_known;
    r.unread := (SELECT run_id FROM perdure.unread_run(op, c));
    IF r.replica_state = 'live' AND perdure.lacks_unanswered(op, c, r.through) THEN
        r.replica_state := 'lost';
        r.handle_state := 'lost';
    END IF;
    IF v_remembered THEN
        r.history_tokens := v_history.history_tokens;
        r.history_reasoning := v_history.history_reasoning;
        r.history_model := v_history.history_model;
        r.history_fixed := v_history.history_fixed;
    END IF;
    RETURN r;
END $$;

-- The same turn again: its answer, or the turn itself under a new epoch if nobody is at it.
CREATE FUNCTION perdure.again(op perdure.accepting, p_conversation bigint, p_seq bigint)
RETURNS perdure.accepted
LANGUAGE plpgsql AS $$
DECLARE
    c perdure.conversation;
    h record;
    t record;
    r perdure.accepted;
    ahead perdure.accepted;
    v_now double precision;
    v_shared boolean;
    v_unknown boolean;
    v_lost boolean;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = op.tenant AND conversation = p_conversation FOR UPDATE;
    SELECT turn_id, state, body_hash, epoch, lease_until, deadline, first_position, last_position,
           handle, dialect, response_id, shown_at, outputs_at INTO t
    FROM perdure.turn
    WHERE tenant = op.tenant AND conversation = c.conversation AND seq = p_seq;
    r.conversation := p_conversation;
    r.seq := p_seq;
    r.epoch := COALESCE(t.epoch, 0);
    r.turn_id := COALESCE(t.turn_id, p_conversation || '.' || p_seq);
    v_now := perdure.perdure_now();
    v_shared := op.shared OR t.dialect <> 'responses';
    -- One that was worked on under an id of its own, which is gone with its thread.
    v_lost := t.state = 'delivering' AND t.lease_until IS NULL AND t.response_id = op.lost;
    v_unknown := t.state IN ('unknown', 'delivering') AND v_lost IS NOT TRUE;
    r.outcome := CASE
        WHEN t.state IS NULL THEN 'erased'
        WHEN t.body_hash <> op.body_hash AND op.lost IS NULL THEN 'mismatch'
        WHEN t.state = 'answered' THEN 'answered'
        WHEN t.state = 'delivering' AND t.lease_until > v_now THEN 'wait'
    END;
    IF r.outcome IS NULL AND t.state = 'delivering' AND t.lease_until IS NULL
       AND v_lost IS NOT TRUE THEN
        -- Worked on under an id of its own: what the app was shown of it then is its answer.
        SELECT 'answered', 200, body, 'application/json'
        INTO r.outcome, r.answer_status, r.answer_body, r.answer_type
        FROM perdure.handle
        WHERE tenant = op.tenant AND key = perdure.handle_key(op.upstream, t.response_id)
          AND body IS NOT NULL;
    ELSIF r.outcome = 'answered' THEN
        SELECT answer_status, answer_body, answer_type
        INTO r.answer_status, r.answer_body, r.answer_type
        FROM perdure.turn
        WHERE tenant = op.tenant AND conversation = p_conversation AND seq = p_seq;
    END IF;
    IF r.outcome IS NULL AND op.lost IS NOT NULL AND NOT op.interim AND EXISTS (
        SELECT 1 FROM perdure.item
        WHERE tenant = op.tenant AND conversation = p_conversation
          AND position > GREATEST(t.last_position, t.outputs_at)
          AND turn_seq = p_seq AND role = 'assistant' AND provider_id IS NOT NULL
          AND NOT withdrawn) THEN
        r.outcome := 'spoken';
    END IF;
    IF r.outcome IS NULL AND (op.retry AND t.deadline < v_now OR op.once AND v_unknown) THEN
        r.outcome := 'expired';
    END IF;
    IF r.outcome IS NOT NULL THEN
        RETURN r;
    END IF;

    -- It may have to stay behind other turns, or behind what they did to the replica: all but the
    -- only one that is unknown, which is taken again itself, behind what a run said before it.
    IF v_shared THEN
        IF perdure.must_wait(c, p_seq) THEN
            r.outcome := 'wait';
        ELSIF NOT v_unknown OR EXISTS (
            SELECT 1 FROM perdure.turn
            WHERE tenant = op.tenant AND conversation = p_conversation AND seq <> p_seq
              AND unknown) OR EXISTS (
            SELECT 1 FROM perdure.turn
            WHERE tenant = op.tenant AND conversation = p_conversation AND seq <> p_seq
              AND seq >= c.open_from AND state = 'delivering' AND lease_until <= v_now) THEN
            ahead := perdure.unsettled_ahead(op, p_conversation, p_seq);
        ELSE
            ahead := perdure.unread_ahead(op, c);
        END IF;
        IF ahead.outcome IS NOT NULL THEN
            r := ahead;
        END IF;
        UPDATE perdure.conversation SET open_from = LEAST(open_from, p_seq)
        WHERE tenant = op.tenant AND conversation = p_conversation
          AND open_from IS DISTINCT FROM LEAST(open_from, p_seq);
        IF r.outcome IS NOT NULL THEN
            -- One that had failed is in line again.
            UPDATE perdure.turn SET state = 'pending', lease_until = v_now + op.lease_seconds
            WHERE tenant = op.tenant AND conversation = p_conversation AND seq = p_seq
              AND state IN ('pending', 'failed');
            RETURN r;
        END IF;
        IF op.lost IS NULL THEN
            t.first_position := t.first_position
                + perdure.move_to_end(
                    op.tenant, p_conversation, p_seq,
                    perdure.was_heard(op.tenant, p_conversation, p_seq));
        END IF;
    END IF;

    -- Take what an earlier attempt left: under a new epoch.
    UPDATE perdure.turn
    SET state = 'delivering', epoch = epoch + 1, lease_until = v_now + op.lease_seconds,
        reason = NULL,
        deadline = CASE WHEN op.retry THEN deadline ELSE v_now + op.deadline_seconds END,
        adopted = perdure.adopted_at_root(c)
    WHERE tenant = op.tenant AND conversation = p_conversation AND seq = p_seq
    RETURNING last_position INTO t.last_position;
    IF op.lost IS NOT NULL THEN
        -- What was shown of it goes, unless the thread that there is now was given it, or something
        -- stands behind it: an answer may have been made from it.
        UPDATE perdure.item AS part SET withdrawn = true
        WHERE part.tenant = op.tenant AND part.conversation = p_conversation
          AND part.position = ANY (t.shown_at) AND NOT part.withdrawn
          AND NOT (c.replica_state = 'live' AND c.primed_through >= part.position)
          AND NOT EXISTS (
              SELECT 1 FROM perdure.item AS behind
              WHERE behind.tenant = op.tenant AND behind.conversation = p_conversation
                AND behind.position > part.position AND behind.turn_seq IS DISTINCT FROM p_seq
                AND NOT behind.withdrawn AND behind.kind <> '');
        UPDATE perdure.turn SET shown_at = '{}', shown_of = '{}'
        WHERE tenant = op.tenant AND conversation = p_conversation AND seq = p_seq;
    END IF;
    UPDATE perdure.item SET withdrawn = false
    WHERE tenant = op.tenant AND conversation = p_conversation
      AND position >= t.first_position AND position <= t.last_position AND withdrawn;
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = op.tenant AND conversation = p_conversation;
    IF v_unknown AND t.dialect <> 'responses' AND NOT c.doubt THEN
        c.doubt := true;
        UPDATE perdure.conversation SET doubt = true
        WHERE tenant = op.tenant AND conversation = p_conversation;
    END IF;
    r := perdure.on_replica(c);
    r.outcome := 'deliver';
    r.conversation := p_conversation;
    r.seq := p_seq;
    r.epoch := t.epoch + 1;
    r.turn_id := COALESCE(t.turn_id, p_conversation || '.' || p_seq);
    r.through := CASE WHEN op.lost IS NULL THEN t.first_position - 1 ELSE c.last_position END;
    r.unread := (SELECT run_id FROM perdure.unread_run(op, c));
    SELECT conversation, kind, position, perdure.state_of(c, state, rebuilt_with) AS state,
           confirmed_at INTO h
    FROM perdure.handle
    WHERE tenant = op.tenant AND key = perdure.handle_key(op.upstream, t.handle);
    IF FOUND THEN
        r.handle_state := h.state;
        r.handle_age_seconds := v_now - h.confirmed_at;
    ELSE
        r.handle_age_seconds := v_now - c.confirmed_at;
        IF t.handle IS NOT NULL OR op.subject IS NOT NULL THEN
            r.handle_state := r.replica_state;
        END IF;
    END IF;
    IF r.replica_state = 'live' AND perdure.lacks_unanswered(op, c, r.through) THEN
        r.replica_state := 'lost';
        r.handle_state := 'lost';
    END IF;
    r.adopting := c.adopting IS NOT NULL AND p_seq = 1;
    r.accepted_items := t.last_position - t.first_position + 1;
    r.known_items := perdure.known_items(op, c);
    r.again := v_unknown;
    -- What goes on from another line has begun this one, with what is remembered there.
    IF h.conversation IS DISTINCT FROM p_conversation
       OR perdure.is_end(c, t.handle, h.kind, h.position) THEN
        r.history_tokens := c.history_tokens;
        r.history_reasoning := c.history_reasoning;
        r.history_model := c.history_model;
        r.history_fixed := c.history_fixed;
    END IF;
    RETURN r;
END $$;
