-- Finding old items: a full-text search inside one conversation, and summaries of its log.

-- A branch and each of its origins, the branch first, with the position up to which each counts.
CREATE FUNCTION perdure.line(p_tenant text, p_conversation bigint, p_through bigint)
RETURNS SETOF perdure.stretch
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    c record;
    v_conversation bigint := p_conversation;
    v_through bigint := p_through;
BEGIN
    WHILE v_conversation IS NOT NULL LOOP
        SELECT origin_conversation, origin_position INTO c FROM perdure.conversation
        WHERE tenant = p_tenant AND conversation = v_conversation;
        EXIT WHEN NOT FOUND;
        RETURN NEXT ROW(v_conversation, v_through)::perdure.stretch;
        v_conversation := c.origin_conversation;
        v_through := LEAST(v_through, c.origin_position);
    END LOOP;
END $$;

-- ops.Search: a row for each item that has a word, by the word's number, newest first; then the row
-- of the number 0, with the size of the log. A word that says nothing has no row.
CREATE FUNCTION perdure.search(
    p_tenant text, p_conversation bigint, p_through bigint, p_words text[], p_most bigint)
RETURNS SETOF perdure.hit
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    s record;
    v_query tsquery;
    v_left bigint;
    v_rows bigint;
    v_size bigint := 0;
BEGIN
    FOR v_word IN 1..cardinality(p_words) LOOP
        v_query := plainto_tsquery('pg_catalog.english', p_words[v_word]);
        CONTINUE WHEN numnode(v_query) = 0;
        v_left := p_most + 1;
        FOR s IN SELECT conversation, through FROM perdure.line(p_tenant, p_conversation, p_through)
        LOOP
            RETURN QUERY
            SELECT v_word::bigint, i.position FROM perdure.item i
            WHERE i.tenant || '' = p_tenant
              AND i.conversation + 0 = s.conversation
              AND i.said @@ (v_query && ('''#' || s.conversation || '''')::tsquery)
              AND i.position + 0 <= s.through
            ORDER BY i.position DESC LIMIT v_left;
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            v_left := v_left - v_rows;
            EXIT WHEN v_left <= 0;
        END LOOP;
    END LOOP;
    FOR s IN SELECT conversation, through FROM perdure.line(p_tenant, p_conversation, p_through)
    LOOP
        v_size := v_size + perdure.items_before(p_tenant, s.conversation, s.through + 1);
    END LOOP;
    RETURN NEXT ROW(0, v_size)::perdure.hit;
END $$;

-- ops.Excerpts: the items in ranges of positions, the newest first or the oldest.
CREATE FUNCTION perdure.excerpts(
    p_tenant text, p_conversation bigint, p_through bigint, p_firsts bigint[], p_lasts bigint[],
    p_limit bigint, p_oldest boolean, p_wire text)
RETURNS SETOF perdure.excerpt
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    s record;
    v_left bigint := p_limit;
    v_rows bigint;
BEGIN
    FOR s IN
        SELECT l.conversation, l.through, r.first, r.last
        FROM perdure.line(p_tenant, p_conversation, p_through)
             WITH ORDINALITY AS l (conversation, through, place)
        CROSS JOIN unnest(p_firsts, p_lasts) WITH ORDINALITY AS r (first, last, number)
        ORDER BY CASE WHEN p_oldest THEN -l.place ELSE l.place END,
                 CASE WHEN p_oldest THEN r.number ELSE -r.number END
    LOOP
        RETURN QUERY
        SELECT i.position, i.kind, i.role, i.call_id, i.provider_id,
               CASE WHEN position(p_wire IN i.wire) > 0 THEN i.wire ELSE '' END, COALESCE(i.input, i.wire), i.created_at,
               i.tokens
        FROM perdure.item i
        WHERE i.tenant = p_tenant AND i.conversation = s.conversation
          AND i.position BETWEEN s.first AND LEAST(s.last, s.through)
          AND NOT i.withdrawn AND i.tombstoned_at IS NULL AND i.kind <> ''
        ORDER BY CASE WHEN p_oldest THEN i.position ELSE -i.position END LIMIT v_left;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_left := v_left - v_rows;
        EXIT WHEN v_left <= 0;
    END LOOP;
END $$;

-- The newest summary of what stands through a position, of a branch or its origins.
CREATE FUNCTION perdure.newest_snapshot(p_tenant text, p_conversation bigint, p_through bigint)
RETURNS perdure.snapshot
LANGUAGE plpgsql STABLE
SET enable_seqscan = off AS $$
DECLARE
    s record;
    r perdure.snapshot;
BEGIN
    FOR s IN SELECT conversation, through FROM perdure.line(p_tenant, p_conversation, p_through)
    LOOP
        SELECT * INTO r FROM perdure.snapshot
        WHERE tenant = p_tenant AND conversation = s.conversation AND through <= s.through
        ORDER BY through DESC LIMIT 1;
        IF FOUND THEN
            RETURN r;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- ops.KeepSnapshot: keep a summary, unless what it was made from has changed.
CREATE FUNCTION perdure.keep_snapshot(
    p_tenant text, p_conversation bigint, p_through bigint, p_items bigint, p_text text,
    p_maker text)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    PERFORM 1 FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = p_conversation FOR UPDATE;
    IF NOT FOUND OR p_items <> (
        SELECT sum(perdure.items_before(p_tenant, l.conversation, l.through + 1))
        FROM perdure.line(p_tenant, p_conversation, p_through) AS l) THEN
        RETURN;
    END IF;
    INSERT INTO perdure.snapshot (tenant, conversation, through, items, text, maker, created_at)
    VALUES (p_tenant, p_conversation, p_through, p_items, p_text, p_maker, perdure.perdure_now())
    ON CONFLICT (tenant, conversation, through) DO UPDATE
    SET items = excluded.items, text = excluded.text, maker = excluded.maker,
        created_at = excluded.created_at;
END $$;

-- ops.DropSnapshots: delete the summaries of a conversation and of every branch that hangs on it.
CREATE FUNCTION perdure.drop_snapshots(p_tenant text, p_conversation bigint) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
    v_family CONSTANT bigint[] := perdure.family(p_tenant, p_conversation);
    v_rows bigint;
BEGIN
    -- A branch may be summarised just now, of what is being deleted.
    PERFORM 1 FROM perdure.conversation
    WHERE tenant = p_tenant AND conversation = ANY (v_family) ORDER BY conversation FOR UPDATE;
    DELETE FROM perdure.snapshot WHERE tenant = p_tenant AND conversation = ANY (v_family);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_rows;
END $$;

-- ops.Unsummarised: conversations that have grown since they were summarised.
CREATE FUNCTION perdure.unsummarised(p_tenant text, p_items bigint, p_limit bigint, p_after bigint)
RETURNS SETOF perdure.stretch
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT c.conversation, c.last_position FROM perdure.conversation c
    WHERE c.tenant = p_tenant AND c.conversation > p_after AND c.last_position - COALESCE((
            SELECT max(s.through) FROM perdure.snapshot s
            WHERE s.tenant = p_tenant AND s.conversation = c.conversation), 0) >= p_items
    ORDER BY c.conversation LIMIT p_limit;
END $$;
