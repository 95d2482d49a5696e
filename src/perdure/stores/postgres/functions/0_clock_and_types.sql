-- The one clock: seconds since the epoch. A test may put another function in its place.
CREATE FUNCTION perdure.perdure_now() RETURNS double precision
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN extract(epoch FROM clock_timestamp())::double precision;

-- What a worker asks for when it accepts a turn (ops.Accept), but for what can be large; and what it
-- is told (ops.Accepted).
CREATE TYPE perdure.accepting AS (
    tenant text,
    upstream text,
    dialect text,
    kind text,
    turn_id text,
    body_hash text,
    handle text,
    subject text,
    sent_ids text[],
    looked text,
    lost text,
    interim boolean,
    lease_seconds double precision,
    shared boolean,
    retry boolean,
    once boolean,
    deadline_seconds double precision
);
CREATE TYPE perdure.accepted AS (
    outcome text,
    conversation bigint,
    seq bigint,
    epoch bigint,
    turn_id text,
    through bigint,
    handle_state text,
    handle_age_seconds double precision,
    dialect text,
    generation bigint,
    replica_state text,
    replica_handle text,
    primed_through bigint,
    replica_age_seconds double precision,
    doubtful boolean,
    adopting boolean,
    incomplete boolean,
    accepted_items bigint,
    known_items bigint,
    again boolean,
    history_tokens bigint,
    history_reasoning bigint,
    history_model text,
    history_fixed text,
    answer_status integer,
    answer_body bytea,
    answer_type text,
    unread text,
    unread_ended boolean
);

-- What a handle points to (ops.Found). foreign_handle: another tenant has it, and nothing else holds.
CREATE TYPE perdure.found AS (
    foreign_handle boolean,
    conversation bigint,
    position bigint,
    state text,
    age_seconds double precision,
    dialect text,
    generation bigint,
    replica_state text,
    replica_handle text,
    primed_through bigint,
    replica_age_seconds double precision,
    doubtful boolean,
    seq bigint,
    epoch bigint,
    turn_id text,
    ended boolean,
    request text,
    answer_status integer,
    answer_body bytea,
    answer_type text,
    replaced_by text,
    first_position bigint,
    last_position bigint,
    unread text,
    unread_ended boolean,
    history_tokens bigint,
    history_reasoning bigint,
    history_model text,
    history_fixed text
);

-- One item of a listing; one without a position says that the cursor names no item.
CREATE TYPE perdure.brought_in AS (
    outcome text,
    conversation bigint,
    items bigint,
    subject_taken boolean
);

CREATE TYPE perdure.listed AS (
    position bigint,
    kind text,
    role text,
    call_id text,
    provider_id text,
    wire text,
    input text,
    created_at double precision,
    turn_id text,
    tokens bigint
);

-- A conversation and a position in it.
CREATE TYPE perdure.stretch AS (conversation bigint, through bigint);

-- An item that has a word of a search, by the word's number.
CREATE TYPE perdure.hit AS (word bigint, position bigint);

-- One item that is read by its position.
CREATE TYPE perdure.excerpt AS (
    position bigint,
    kind text,
    role text,
    call_id text,
    provider_id text,
    wire text,
    input text,
    created_at double precision,
    tokens bigint
);

-- One item of a stretch of the log; the last row, without a position, says what belongs to it all.
CREATE TYPE perdure.recalled AS (
    position bigint,
    kind text,
    role text,
    call_id text,
    provider_id text,
    wire text,
    input text,
    created_at double precision,
    tokens bigint,
    older bigint,
    complete boolean,
    milestones text[],
    snapshot_through bigint,
    snapshot_items bigint,
    snapshot_text text,
    snapshot_maker text,
    snapshot_at double precision
);

-- One item of a turn in doubt; what precedes position is the same in every row of a turn, and after
-- and skip in all rows. A turn without items has one row without a position.
CREATE TYPE perdure.doubted AS (
    seq bigint,
    epoch bigint,
    turn_id text,
    kind text,
    request text,
    position bigint,
    item_kind text,
    role text,
    call_id text,
    provider_id text,
    wire text,
    input text,
    created_at double precision,
    tokens bigint,
    after text,
    skip bigint
);

-- One line of a history as people read it, with the rebuild of its turn if there was one.
CREATE TYPE perdure.entry AS (
    position bigint,
    turn_id text,
    seq bigint,
    role text,
    kind text,
    wire text,
    created_at double precision,
    state text,
    conversation bigint,
    recovered_turn_id text,
    reason text,
    generation bigint,
    lost_handle text,
    new_handle text,
    memory text,
    primed bigint,
    left_out bigint,
    requests bigint,
    tokens bigint
);

-- What was erased (ops.Forgotten); the arrays are the orphans, one at each index.
CREATE TYPE perdure.forgotten AS (
    conversations bigint,
    items bigint,
    turns bigint,
    milestones bigint,
    snapshots bigint,
    keys bigint[],
    upstreams text[],
    dialects text[],
    handles text[]
);
