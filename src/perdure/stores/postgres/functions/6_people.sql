-- ops.Pin: keep a fact; a subject without a conversation gets one.
CREATE FUNCTION perdure.pin(p_tenant text, p_subject text, p_text text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    c perdure.conversation;
    v_number bigint;
BEGIN
    SELECT * INTO c FROM perdure.conversation
    WHERE tenant || '' = p_tenant AND subject = p_subject
      AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject) FOR UPDATE;
    IF NOT FOUND THEN
        c := perdure.new_conversation(p_tenant, p_subject, '', 'responses', false, 'absent', NULL,
            NULL, NULL, NULL);
    END IF;
    INSERT INTO perdure.milestone (tenant, conversation, number, text, created_at)
    SELECT p_tenant, c.conversation, COALESCE(max(number), 0) + 1, p_text, perdure.perdure_now()
    FROM perdure.milestone WHERE tenant = p_tenant AND conversation = c.conversation
    RETURNING number INTO v_number;
    RETURN v_number;
END $$;

-- Whether a withdrawn item is what was shown of an answer that stands in the log whole, or is being
-- made again. What was refused is told, with its state.
CREATE FUNCTION perdure.is_told_otherwise(
    p_tenant text, p_conversation bigint, p_seq bigint, p_position bigint)
RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = p_conversation AND seq = p_seq
          AND (state = 'answered' OR (state <> 'failed'
               AND p_position NOT BETWEEN first_position AND last_position)))
$$;

-- ops.ReadHistory: a page of what was said before a position, or after one, newest first, with the
-- rebuilds where they happened.
CREATE FUNCTION perdure.read_history(
    p_tenant text, p_subject text, p_limit bigint, p_before bigint, p_after bigint)
RETURNS SETOF perdure.entry
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_conversation bigint;
BEGIN
    SELECT conversation INTO v_conversation FROM perdure.conversation
    WHERE tenant || '' = p_tenant AND subject = p_subject
      AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject);
    RETURN QUERY
    SELECT i.position, t.turn_id, t.seq, i.role, i.kind, i.wire, i.created_at, t.state,
           r.conversation, r.turn_id, r.reason, r.generation, r.lost_handle, r.new_handle, r.memory,
           r.primed, r.left_out, r.requests, i.tokens
    FROM ((
        SELECT i.position, i.turn_seq, i.role, i.kind, i.wire, i.created_at, i.tokens
        FROM perdure.item i
        WHERE i.tenant = p_tenant AND i.conversation = v_conversation AND p_after IS NULL
          AND i.position < COALESCE(p_before, 9223372036854775807) AND i.tombstoned_at IS NULL
          AND NOT (i.withdrawn AND perdure.is_told_otherwise(
              p_tenant, v_conversation, i.turn_seq, i.position))
        ORDER BY i.position DESC LIMIT p_limit)
        UNION ALL (
        SELECT i.position, i.turn_seq, i.role, i.kind, i.wire, i.created_at, i.tokens
        FROM perdure.item i
        WHERE i.tenant = p_tenant AND i.conversation = v_conversation AND i.position > p_after
          AND i.position < COALESCE(p_before, 9223372036854775807) AND i.tombstoned_at IS NULL
          AND NOT (i.withdrawn AND perdure.is_told_otherwise(
              p_tenant, v_conversation, i.turn_seq, i.position))
        ORDER BY i.position LIMIT p_limit)) AS i
    LEFT JOIN LATERAL (
        SELECT seq, state, COALESCE(turn_id, conversation || '.' || seq) AS turn_id
        FROM perdure.turn
        WHERE tenant = p_tenant AND conversation = v_conversation AND seq = i.turn_seq
        LIMIT 1) AS t ON true
    LEFT JOIN LATERAL (
        SELECT * FROM perdure.recovery
        WHERE tenant = p_tenant AND conversation = v_conversation AND turn_id = t.turn_id
        ORDER BY generation DESC LIMIT 1) AS r ON true
    ORDER BY i.position DESC;
END $$;

-- ops.Forget: erase a subject's conversation and its branches; live replicas become orphans. A
-- branch is opened under the lock on its origin, so once all are locked there will be no more.
CREATE FUNCTION perdure.forget(p_tenant text, p_subject text) RETURNS perdure.forgotten
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_family bigint[] := '{}';
    v_found bigint[];
    r perdure.forgotten;
BEGIN
    LOOP
        v_found := perdure.family(p_tenant, (
            SELECT conversation FROM perdure.conversation
            WHERE tenant || '' = p_tenant AND subject = p_subject
              AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject)));
        EXIT WHEN v_found = v_family;
        v_family := v_found;
        PERFORM 1 FROM perdure.conversation
        WHERE tenant = p_tenant AND conversation = ANY (v_family)
        ORDER BY conversation FOR UPDATE;
    END LOOP;
    r.conversations := cardinality(v_family);
    SELECT count(*) INTO r.items FROM perdure.item
    WHERE tenant = p_tenant AND conversation = ANY (v_family) AND kind <> '';
    SELECT count(*) INTO r.turns FROM perdure.turn
    WHERE tenant = p_tenant AND conversation = ANY (v_family);
    SELECT count(*) INTO r.milestones FROM perdure.milestone
    WHERE tenant = p_tenant AND conversation = ANY (v_family);
    SELECT count(*) INTO r.snapshots FROM perdure.snapshot
    WHERE tenant = p_tenant AND conversation = ANY (v_family);
    INSERT INTO perdure.orphan (tenant, conversation, upstream, dialect, handle, reason, created_at)
        SELECT p_tenant, conversation, upstream,
               CASE kind WHEN 'response' THEN 'responses' WHEN 'conversation' THEN 'conversations'
                         ELSE 'threads' END,
               handle, 'forgotten', perdure.perdure_now()
        FROM perdure.handle
        WHERE tenant || '' = p_tenant AND conversation = ANY (v_family)
          AND state <> 'retired' AND NOT EXISTS (
            SELECT 1 FROM perdure.orphan
            WHERE tenant || '' = p_tenant
              AND perdure.handle_key(orphan.upstream, orphan.handle) = handle.key
              AND orphan.handle IS NOT NULL AND deleted_at IS NULL)
          AND kind IN ('response', 'conversation', 'thread')
        ORDER BY conversation, handle;
    SELECT COALESCE(array_agg(key ORDER BY key), '{}'),
           COALESCE(array_agg(upstream ORDER BY key), '{}'),
           COALESCE(array_agg(dialect ORDER BY key), '{}'),
           COALESCE(array_agg(handle ORDER BY key), '{}')
    INTO r.keys, r.upstreams, r.dialects, r.handles
    FROM perdure.orphan
    WHERE tenant || '' = p_tenant AND conversation = ANY (v_family) AND deleted_at IS NULL
      AND handle IS NOT NULL;
    PERFORM perdure.erase(p_tenant, v_family);
    RETURN r;
END $$;

-- ops.Unused: erase conversations of one turn that nobody continued; returns how many. One that
-- somebody has locked is not unused, and not waited for.
CREATE FUNCTION perdure.unused(
    p_tenant text, p_upstream text, p_idle_seconds double precision, p_limit bigint)
RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_until CONSTANT double precision := perdure.perdure_now() - p_idle_seconds;
    v_number bigint;
    v_unused bigint[] := '{}';
BEGIN
    FOR v_number IN
        SELECT conversation FROM perdure.conversation
        WHERE tenant = p_tenant AND single AND created_at < v_until
          AND upstream = p_upstream AND last_seq = 1 AND confirmed_at < v_until
        ORDER BY created_at FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN cardinality(v_unused) >= p_limit;
        -- Looked at only now: a branch is opened under the lock on its origin.
        IF EXISTS (SELECT 1 FROM perdure.turn
                   WHERE tenant = p_tenant AND conversation = v_number AND seq = 1
                     AND handle IS NULL AND state IN ('answered', 'failed'))
            AND NOT EXISTS (SELECT 1 FROM perdure.conversation
                            WHERE tenant || '' = p_tenant
                              AND origin_conversation = v_number)
            AND NOT EXISTS (SELECT 1 FROM perdure.milestone
                            WHERE tenant = p_tenant AND conversation = v_number) THEN
            v_unused := v_unused || v_number;
        END IF;
    END LOOP;
    PERFORM perdure.erase(p_tenant, v_unused);
    RETURN cardinality(v_unused);
END $$;
