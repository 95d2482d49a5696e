-- ops.BringIn: enter a portion where the log ends behind the one before it, and nothing else is there.
CREATE FUNCTION perdure.bring_in(
    p_tenant text, p_upstream text, p_dialect text, p_handle text, p_items json, p_behind bigint,
    p_subject text, p_facts text[])
RETURNS perdure.brought_in
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_key CONSTANT bytea := perdure.handle_key(p_upstream, p_handle);
    v_count CONSTANT bigint := json_array_length(p_items);
    v_state text;
    c perdure.conversation;
    r perdure.brought_in;
BEGIN
    r.outcome := 'known';
    r.conversation := 0;
    r.items := 0;
    r.subject_taken := false;
    c := perdure.locked_by_handle(p_tenant, p_upstream, p_handle);
    IF c.conversation IS NULL THEN
        IF EXISTS (SELECT 1 FROM perdure.handle WHERE key = v_key AND tenant <> p_tenant) THEN
            r.outcome := 'foreign';
            RETURN r;
        END IF;
        IF p_behind <> 0 THEN
            RETURN r;
        END IF;
        r.subject_taken := p_subject IS NOT NULL AND EXISTS (
            SELECT 1 FROM perdure.conversation
            WHERE tenant || '' = p_tenant AND subject = p_subject
              AND perdure.digest(tenant, subject) = perdure.digest(p_tenant, p_subject));
        c := perdure.new_conversation(p_tenant, CASE WHEN NOT r.subject_taken THEN p_subject END,
            p_upstream, p_dialect, false, 'lost', p_handle, NULL, NULL, NULL);
        PERFORM perdure.new_handle(p_tenant, p_upstream, p_handle, c.conversation,
            perdure.kind_of(p_dialect), 0, NULL);
        PERFORM perdure.mark_handle(p_tenant, p_upstream, p_handle, 'lost');
        INSERT INTO perdure.milestone (tenant, conversation, number, text, created_at)
        SELECT p_tenant, c.conversation, number, p_facts[number], perdure.perdure_now()
        FROM generate_subscripts(p_facts, 1) AS number;
    ELSE
        SELECT state INTO v_state FROM perdure.handle WHERE tenant = p_tenant AND key = v_key;
        r.conversation := c.conversation;
        r.items := c.last_position - c.first_position + 1;
        IF v_state = 'retired' OR c.last_seq <> 0 OR c.last_position <> p_behind OR v_count = 0 THEN
            RETURN r;
        END IF;
        IF c.generation = 0 THEN  -- of a later one it is known how far the replica was told
            PERFORM perdure.mark(p_tenant, p_upstream, p_handle, 'lost');
        END IF;
    END IF;
    PERFORM perdure.append_items(p_tenant, c.conversation, p_behind + 1, NULL, p_items);
    UPDATE perdure.conversation SET last_position = p_behind + v_count
    WHERE tenant = p_tenant AND conversation = c.conversation;
    r.outcome := 'entered';
    r.conversation := c.conversation;
    r.items := p_behind + v_count - c.first_position + 1;
    RETURN r;
END $$;
