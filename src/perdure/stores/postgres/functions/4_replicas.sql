-- ops.Bind: make a created object the next generation's replica, if nobody was faster.
CREATE FUNCTION perdure.bind(
    p_tenant text, p_upstream text, p_dialect text, p_conversation bigint,
    p_generation bigint, p_handle text, p_intent text, p_primed_through bigint,
    p_primed_from bigint, p_turn_conversation bigint, p_turn_seq bigint, p_turn_epoch bigint, p_lost text,
    p_orphan boolean, p_doubtful boolean, p_recovery json, p_body bytea)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_first bigint;
    v_last bigint;
BEGIN
    SELECT first_position, last_position INTO v_first, v_last FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    DELETE FROM perdure.orphan WHERE tenant || '' = p_tenant AND intent = p_intent;
    -- Whether the created object has the id of another; it is not deleted under that id.
    IF EXISTS (SELECT 1 FROM perdure.handle
               WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)) THEN
        RETURN 'taken';
    END IF;
    -- A worker whose turn has been taken over: what it sends next nobody would know of.
    IF p_turn_seq IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_turn_conversation AND seq = p_turn_seq
          AND epoch = p_turn_epoch AND state = 'delivering') THEN
        PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, p_dialect, p_handle,
            'another worker has the turn');
        RETURN 'fenced';
    END IF;
    -- Whether the log has more than a thread was given and the turn brings.
    IF p_dialect = 'threads' AND (v_first < p_primed_from OR EXISTS (
        SELECT 1 FROM perdure.item
        WHERE tenant = p_tenant AND conversation = p_conversation AND position > p_primed_through
          AND NOT withdrawn AND tombstoned_at IS NULL
          AND turn_seq IS DISTINCT FROM COALESCE(p_turn_seq, 0))) THEN
        PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, p_dialect, p_handle,
            'the log had gone on');
        RETURN 'behind';
    END IF;
    UPDATE perdure.conversation
    SET replica_state = 'live', replica_handle = p_handle, generation = generation + 1,
        primed_through = p_primed_through, confirmed_at = perdure.perdure_now(), doubt = false,
        rebuilt_with = adopted, unread = NULL, history_tokens = NULL, dialect = p_dialect
    WHERE tenant = p_tenant AND conversation = p_conversation AND generation = p_generation
      AND (doubt OR NOT p_doubtful) AND (replica_state <> 'retired' OR dialect = 'responses');
    IF NOT FOUND THEN
        PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, p_dialect, p_handle,
            'another worker was faster');
        RETURN 'beaten';
    END IF;
    PERFORM perdure.new_handle(p_tenant, p_upstream, p_handle, p_conversation,
        perdure.kind_of(p_dialect), v_last, p_body);
    -- What nobody came back for before its replica was thrown away; the question stays in the log.
    UPDATE perdure.turn SET state = 'failed', reason = 'abandoned', epoch = epoch + 1
    WHERE tenant = p_tenant AND conversation = p_conversation AND unknown;
    IF p_lost IS NOT NULL THEN
        PERFORM perdure.mark_handle(p_tenant, p_upstream, p_lost, 'lost');
        IF p_orphan THEN
            PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, p_dialect, p_lost,
                'given up');
        END IF;
    END IF;
    IF p_recovery IS NOT NULL THEN
        PERFORM perdure.record_recovery(p_tenant, p_conversation,
            (p_recovery ->> 'generation')::bigint, p_recovery);
    END IF;
    RETURN 'bound';
END $$;

-- ops.BindNew: enter a replica that the app created, with its first items.
CREATE FUNCTION perdure.bind_new(
    p_tenant text, p_upstream text, p_dialect text, p_handle text, p_items json,
    p_body bytea, p_intent text, p_subject text, p_primed_through bigint, p_recovery json)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
BEGIN
    DELETE FROM perdure.orphan WHERE tenant || '' = p_tenant AND intent = p_intent;
    IF EXISTS (SELECT 1 FROM perdure.handle
               WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)) THEN
        RETURN 'taken';
    END IF;
    IF p_subject IS NOT NULL THEN
        SELECT * INTO c FROM perdure.conversation
        WHERE tenant || '' = p_tenant AND subject = p_subject
          AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject) FOR UPDATE;
    END IF;
    IF c.conversation IS NULL THEN
        c := perdure.new_conversation(p_tenant, p_subject, p_upstream, p_dialect, false, 'live',
            p_handle, NULL, NULL, NULL);
        PERFORM perdure.new_handle(p_tenant, p_upstream, p_handle, c.conversation,
            perdure.kind_of(p_dialect), 0, p_body);
        PERFORM perdure.append_items(p_tenant, c.conversation, 1, NULL, p_items);
        UPDATE perdure.conversation SET last_position = json_array_length(p_items)
        WHERE tenant = p_tenant AND conversation = c.conversation;
        RETURN 'bound';
    END IF;
    -- The subject's conversation gets its replica of this dialect, unless it has a live one.
    IF c.replica_state = 'live' AND c.dialect = p_dialect THEN
        PERFORM perdure.new_orphan(p_tenant, c.conversation, p_upstream, p_dialect, p_handle,
            'the subject has a replica');
        RETURN 'beaten';
    END IF;
    UPDATE perdure.conversation
    SET replica_state = 'live', replica_handle = p_handle, dialect = p_dialect,
        confirmed_at = perdure.perdure_now(), generation = generation + 1,
        primed_through = p_primed_through, doubt = false, rebuilt_with = adopted, unread = NULL,
        history_tokens = NULL, upstream = p_upstream
    WHERE tenant = p_tenant AND conversation = c.conversation;
    PERFORM perdure.new_handle(p_tenant, p_upstream, p_handle, c.conversation,
        perdure.kind_of(p_dialect), c.last_position, p_body);
    IF p_recovery IS NOT NULL THEN
        PERFORM perdure.record_recovery(p_tenant, c.conversation, c.generation + 1, p_recovery);
    END IF;
    RETURN 'bound';
END $$;

-- ops.Refresh: keep a conversation's or thread's own object, or a run, as it was shown.
CREATE FUNCTION perdure.refresh(p_tenant text, p_upstream text, p_handle text, p_body bytea)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    h record;
BEGIN
    PERFORM perdure.locked_by_handle(p_tenant, p_upstream, p_handle);
    UPDATE perdure.handle SET body = p_body
    WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)
      AND kind IN ('conversation', 'thread', 'run')
    RETURNING conversation, kind, turn_seq INTO h;
    IF h.kind = 'run' THEN
        UPDATE perdure.turn SET answer_body = p_body
        WHERE tenant = p_tenant AND conversation = h.conversation AND seq = h.turn_seq
          AND answer_body IS NOT NULL AND response_id = p_handle;
    END IF;
END $$;

-- ops.MarkLost: note that a handle is dead.
CREATE FUNCTION perdure.mark_lost(p_tenant text, p_upstream text, p_handle text) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM perdure.locked_by_handle(p_tenant, p_upstream, p_handle);
    PERFORM perdure.mark(p_tenant, p_upstream, p_handle, 'lost');
END $$;

-- Lock the conversation that a handle points to.
CREATE FUNCTION perdure.locked_by_handle(p_tenant text, p_upstream text, p_handle text)
RETURNS perdure.conversation
LANGUAGE plpgsql AS $$
DECLARE
    c perdure.conversation;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = (
        SELECT conversation FROM perdure.handle
        WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)) FOR UPDATE;
    RETURN c;
END $$;

-- ops.Discard: note an object that nobody wants; one that was the replica is lost.
CREATE FUNCTION perdure.discard(
    p_tenant text, p_conversation bigint, p_upstream text, p_dialect text, p_handle text,
    p_replica boolean)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
BEGIN
    IF p_replica THEN
        c := perdure.locked_by_handle(p_tenant, p_upstream, p_handle);
        IF NOT EXISTS (SELECT 1 FROM perdure.handle
                       WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)
                         AND perdure.state_of(c, state, rebuilt_with) = 'live') THEN
            RETURN;
        END IF;
        PERFORM perdure.mark(p_tenant, p_upstream, p_handle, 'lost');
    END IF;
    PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, p_dialect, p_handle,
        'answered without the history');
END $$;

-- Let nobody go on from a replica; a shared one is to be deleted. A response is a link of what others
-- may continue.
CREATE FUNCTION perdure.give_up(
    p_tenant text, p_upstream text, p_dialect text, p_conversation bigint, p_handle text)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_handle IS NOT NULL AND p_dialect = 'responses' THEN
        PERFORM perdure.mark(p_tenant, p_upstream, p_handle, 'lost');
    ELSIF p_handle IS NOT NULL THEN
        PERFORM perdure.discard(p_tenant, p_conversation, p_upstream, p_dialect, p_handle, true);
    END IF;
END $$;

-- ops.Retire: take a handle out of use; a response's own output goes with it.
CREATE FUNCTION perdure.retire(p_tenant text, p_upstream text, p_handle text) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c CONSTANT perdure.conversation := perdure.locked_by_handle(p_tenant, p_upstream, p_handle);
    h record;
BEGIN
    SELECT kind, turn_seq INTO h FROM perdure.handle
    WHERE tenant = p_tenant AND key = perdure.handle_key(p_upstream, p_handle)
      AND conversation + 0 = c.conversation;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM perdure.mark(p_tenant, p_upstream, p_handle, 'retired');
    IF h.kind = 'response' AND h.turn_seq IS NOT NULL THEN
        UPDATE perdure.item SET tombstoned_at = perdure.perdure_now()
        WHERE tenant = p_tenant AND conversation = c.conversation AND position > (
                SELECT last_position FROM perdure.turn
                WHERE tenant = p_tenant AND conversation = c.conversation AND seq = h.turn_seq)
          AND turn_seq = h.turn_seq AND provider_id IS NOT NULL AND tombstoned_at IS NULL;
        PERFORM perdure.drop_snapshots(p_tenant, c.conversation);
    ELSIF h.kind <> 'response' AND c.replica_handle <> p_handle THEN
        IF perdure.state_of_replica(c) = 'live' THEN  -- nobody could name it to delete it again if that fails
            PERFORM perdure.new_orphan(p_tenant, c.conversation, p_upstream, c.dialect,
                c.replica_handle, 'given up');
        END IF;
        PERFORM perdure.mark(p_tenant, p_upstream, c.replica_handle, 'retired');
    END IF;
END $$;

-- Note a deleted id in a hidden place in front of the log, once.
CREATE FUNCTION perdure.bury(p_tenant text, p_conversation bigint, p_provider_id text)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_note CONSTANT text := perdure.buried(p_provider_id);
    v_position bigint;
BEGIN
    IF perdure.item_position(p_tenant, p_conversation, v_note) IS NOT NULL THEN
        RETURN;
    END IF;
    UPDATE perdure.conversation SET first_position = LEAST(first_position, 1) - 1
    WHERE tenant = p_tenant AND conversation = p_conversation
    RETURNING first_position INTO v_position;
    INSERT INTO perdure.item (tenant, conversation, position, kind, provider_id, wire, tokens,
        created_at, tombstoned_at)
    VALUES (p_tenant, p_conversation, v_position, '', v_note, '', 0, perdure.perdure_now(),
        perdure.perdure_now());
END $$;

-- One of a turn's own items stands wherever its turn has stood, as far from where that began. What was
-- shown of an answer before it was cut stays where others were answered, too.
CREATE FUNCTION perdure.tombstone_elsewhere(
    p_tenant text, p_conversation bigint, p_seq bigint, p_position bigint)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    SELECT left_at || first_position AS begun, last_position - first_position AS length INTO t
    FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq AND left_at <> '{}';
    IF t.begun IS NULL THEN
        RETURN;
    END IF;
    UPDATE perdure.item SET tombstoned_at = perdure.perdure_now()
    WHERE tenant = p_tenant AND conversation = p_conversation AND position IN (
            SELECT other + p_position - here FROM unnest(t.begun) AS here, unnest(t.begun) AS other
            WHERE p_position BETWEEN here AND here + t.length)
      AND tombstoned_at IS NULL;
    IF FOUND OR EXISTS (SELECT 1 FROM unnest(t.begun) AS here
                        WHERE p_position BETWEEN here AND here + t.length) THEN
        RETURN;
    END IF;
    UPDATE perdure.item SET tombstoned_at = perdure.perdure_now()
    WHERE tenant = p_tenant AND conversation = p_conversation
      AND position > t.begun[1] AND position < p_position AND turn_seq = p_seq
      AND role = 'assistant' AND provider_id IS NULL AND tombstoned_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM unnest(t.begun) AS here
                      WHERE position BETWEEN here AND here + t.length);
END $$;

-- ops.Tombstone: mark one item as deleted through us.
CREATE FUNCTION perdure.tombstone(
    p_tenant text, p_upstream text, p_conversation bigint, p_provider_id text, p_gone text)
RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
    i record;
    v_known boolean := false;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    FOR i IN
        UPDATE perdure.item SET tombstoned_at = perdure.perdure_now()
        WHERE tenant || '' = p_tenant AND conversation = p_conversation
          AND perdure.item_key(tenant, provider_id) = perdure.item_key(p_tenant, p_provider_id)
          AND provider_id = p_provider_id AND tombstoned_at IS NULL
        RETURNING position, turn_seq
    LOOP
        v_known := true;
        PERFORM perdure.tombstone_elsewhere(p_tenant, p_conversation, i.turn_seq, i.position);
    END LOOP;
    IF c.conversation IS NULL THEN
        RETURN 'unknown';
    END IF;
    -- Also where the log does not have it: it is deleted at the provider.
    UPDATE perdure.conversation SET history_tokens = NULL, shrunk = last_seq
    WHERE tenant = p_tenant
      AND conversation = ANY (perdure.family(p_tenant, p_conversation));
    IF NOT v_known AND p_gone IS NULL THEN
        IF perdure.item_position(p_tenant, p_conversation, p_provider_id) IS NOT NULL THEN
            RETURN 'before';
        END IF;
        IF c.adopting IS NOT NULL THEN  -- a page that was read before may bring it yet
            PERFORM perdure.bury(p_tenant, p_conversation, p_provider_id);
        END IF;
        RETURN 'unknown';
    END IF;
    PERFORM perdure.drop_snapshots(p_tenant, p_conversation);
    IF c.generation = 0 AND perdure.state_of_replica(c) = 'live'
       AND c.replica_handle IS DISTINCT FROM p_gone THEN
        IF c.dialect = 'threads' THEN  -- one that is being made with the item is behind now
            PERFORM perdure.bury(p_tenant, p_conversation, p_provider_id);
        END IF;
        RETURN 'there';
    END IF;
    -- The replica has the item under an id of its own, so it is given up.
    IF perdure.state_of_replica(c) = 'live' AND c.replica_handle IS NOT NULL THEN
        PERFORM perdure.mark(p_tenant, p_upstream, c.replica_handle, 'lost');
        IF c.replica_handle IS DISTINCT FROM p_gone AND c.dialect <> 'responses' THEN
            PERFORM perdure.new_orphan(p_tenant, p_conversation, p_upstream, c.dialect,
                c.replica_handle, 'has what was deleted');
        END IF;
    END IF;
    UPDATE perdure.conversation SET generation = generation + 1
    WHERE tenant = p_tenant AND conversation = p_conversation;
    RETURN 'replaced';
END $$;
