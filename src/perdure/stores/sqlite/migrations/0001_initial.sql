-- The journal. One row of `conversation` is one log; everything else hangs on its number. Items and
-- turns are clustered by one integer key, (conversation << 32) + position or seq, so that a log lies
-- together and an entry needs no second index.
-- Times are seconds since the epoch as perdure_now() gives them; no statement takes a worker's time.

-- A conversation, or a branch of one: a branch continues another from origin_position and copies
-- nothing. The replica_ columns describe the provider's copy; generation counts its rebuilds and is
-- the compare-and-swap key of every change to it. doubt: an attempt whose outcome is unknown may
-- have changed the replica. root: where the line of a branch begins. adopted: how many items of
-- older history were copied. rebuilt_with: how many of them the log at the root had when the replica was
-- rebuilt, or what its newest answer goes on from (NULL: it never was); if it has more now, the replica
-- lacks what has come since, and is to be replaced.
-- open_from: every turn before that one is settled (NULL: all are).
-- unread: the turn of a run whose messages the app has not read yet, or of a response that is made in
-- the background. history_: a lower bound for what
-- the head's history amounts to in the provider's tokens, the model that counted it, and what marks the
-- instructions and tools that were counted along. shrunk: turns up to that one were accepted before
-- something was deleted, and say nothing of that. adopting:
-- the history before the log is still to be copied, and from when on somebody may take that up.
CREATE TABLE perdure_conversation (
    conversation INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    subject TEXT,
    upstream TEXT NOT NULL,
    dialect TEXT NOT NULL,
    origin_conversation INTEGER,
    origin_position INTEGER,
    root INTEGER,
    adopted INTEGER NOT NULL DEFAULT 0,
    adopting REAL,
    generation INTEGER NOT NULL DEFAULT 0,
    replica_state TEXT NOT NULL DEFAULT 'absent',
    replica_handle TEXT,
    primed_through INTEGER NOT NULL DEFAULT 0,
    confirmed_at REAL NOT NULL,
    doubt INTEGER NOT NULL DEFAULT 0,
    rebuilt_with INTEGER,
    unread INTEGER,
    history_tokens INTEGER,
    history_reasoning INTEGER,
    history_model TEXT,
    history_fixed TEXT,
    shrunk INTEGER NOT NULL DEFAULT 0,
    first_position INTEGER NOT NULL DEFAULT 1,
    last_position INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    open_from INTEGER,
    created_at REAL NOT NULL
);
CREATE UNIQUE INDEX perdure_conversation_subject
    ON perdure_conversation (tenant, subject) WHERE subject IS NOT NULL;
CREATE INDEX perdure_conversation_origin
    ON perdure_conversation (origin_conversation, origin_position, created_at)
    WHERE origin_conversation IS NOT NULL;
CREATE INDEX perdure_conversation_unused
    ON perdure_conversation (tenant, upstream, confirmed_at)
    WHERE last_seq = 1 AND subject IS NULL AND origin_conversation IS NULL;

-- One exchange. turn_id is the caller's name for it (NULL: <conversation>.<seq>); parent is the log
-- position before its items; epoch goes up each time somebody takes the turn, and only the holder of
-- the newest epoch may end it. last_position: the last of its own items. deadline: until when the
-- SDK may repeat it by itself. handed: the answer reached a caller. shown_of: items of an
-- answer that was cut after the caller had seen them: where each stands, and of which message it is a
-- part, as a JSON array of pairs. former_ids: ids under which
-- it was worked on before, oldest first, as a JSON array. left_at: the positions where its items began
-- before they were put at the log's end, a JSON array too; there they stay, as others were answered.
-- outputs_of: the calls whose outputs a run was given; outputs_at: where the log ended then;
-- outputs_unread: what the run had said by then was still to be read; outputs_again: they were given
-- more than once. adopted: how many older items the log at the root of its line had when somebody
-- took the turn.
CREATE TABLE perdure_turn (
    key INTEGER PRIMARY KEY,
    conversation INTEGER GENERATED ALWAYS AS (key >> 32) VIRTUAL,
    seq INTEGER GENERATED ALWAYS AS (key & 4294967295) VIRTUAL,
    tenant TEXT NOT NULL,
    turn_id TEXT,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    dialect TEXT NOT NULL,
    handle TEXT,
    parent INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    body_hash TEXT NOT NULL,
    request TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    lease_until REAL,
    deadline REAL NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0,
    response_id TEXT,
    answer INTEGER,
    model TEXT,
    input_tokens INTEGER,
    accepted_at REAL NOT NULL,
    answered_at REAL,
    shown_of TEXT,
    former_ids TEXT,
    left_at TEXT,
    outputs_of TEXT,
    outputs_at INTEGER,
    outputs_unread INTEGER NOT NULL DEFAULT 0,
    outputs_again INTEGER NOT NULL DEFAULT 0,
    adopted INTEGER NOT NULL
);
CREATE UNIQUE INDEX perdure_turn_id ON perdure_turn (tenant, turn_id) WHERE turn_id IS NOT NULL;
CREATE INDEX perdure_turn_unknown ON perdure_turn (key) WHERE state = 'unknown';

-- A turn's answer as it was received. It is entered when its turn ends and (a run's metadata aside)
-- never changed, so answers
-- stand in the order of their arrival: appending one is cheap, and turns stay small beside each other.
CREATE TABLE perdure_answer (
    answer INTEGER PRIMARY KEY,
    status INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    body BLOB NOT NULL
);

-- One entry of the log. wire: the JSON as sent or received. input: its finished input form, NULL
-- where that is wire itself, empty where the item can never be part of a prime. Positions below
-- 1 belong to adopted history and run downwards. withdrawn: refused, or not sent (yet). One without a
-- kind is no item any more: it keeps the place of one that was moved, so that positions have no gaps.
CREATE TABLE perdure_item (
    key INTEGER PRIMARY KEY,
    conversation INTEGER GENERATED ALWAYS AS (key >> 32) VIRTUAL,
    position INTEGER GENERATED ALWAYS AS ((key & 4294967295) - 2147483648) VIRTUAL,
    turn_seq INTEGER,
    kind TEXT NOT NULL,
    role TEXT,
    call_id TEXT,
    provider_id TEXT,
    wire TEXT NOT NULL,
    input TEXT,
    tokens INTEGER NOT NULL,
    withdrawn INTEGER NOT NULL DEFAULT 0,
    tombstoned_at REAL,
    created_at REAL NOT NULL
);
CREATE INDEX perdure_item_hidden ON perdure_item (key)
    WHERE withdrawn OR tombstoned_at IS NOT NULL;
CREATE INDEX perdure_item_provider_id ON perdure_item (provider_id) WHERE provider_id IS NOT NULL;

-- Every id a provider issued for a replica, a response or a run, and where it points. replaced_by: a
-- run that was started again under another id. rebuilt_with: as that of a conversation, for a response:
-- a chain is continued from any of them.
CREATE TABLE perdure_handle (
    handle TEXT NOT NULL,
    upstream TEXT NOT NULL,
    tenant TEXT NOT NULL,
    conversation INTEGER NOT NULL,
    kind TEXT NOT NULL,
    position INTEGER NOT NULL,
    turn_seq INTEGER,
    state TEXT NOT NULL DEFAULT 'live',
    replaced_by TEXT,
    rebuilt_with INTEGER,
    body BLOB,
    confirmed_at REAL NOT NULL,
    PRIMARY KEY (handle, upstream, tenant)
) WITHOUT ROWID;

-- A response's id stands in its turn as well; the others are found by their conversation.
CREATE INDEX perdure_handle_conversation ON perdure_handle (conversation)
    WHERE kind <> 'response';

-- One rebuild of a replica.
CREATE TABLE perdure_recovery (
    tenant TEXT NOT NULL,
    conversation INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    turn_id TEXT,
    reason TEXT NOT NULL,
    lost_handle TEXT,
    new_handle TEXT,
    memory TEXT NOT NULL,
    primed INTEGER NOT NULL,
    left_out INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (conversation, generation)
) WITHOUT ROWID;

-- A pinned fact; every prime begins with them.
CREATE TABLE perdure_milestone (
    tenant TEXT NOT NULL,
    conversation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    text TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (conversation, number)
) WITHOUT ROWID;

-- A remote object that may exist and is no longer wanted; kept until its delete is confirmed. Before
-- each create an intent is written (handle NULL): a process that dies in between leaves a trace.
CREATE TABLE perdure_orphan (
    key INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    conversation INTEGER NOT NULL,
    upstream TEXT NOT NULL,
    dialect TEXT NOT NULL,
    handle TEXT,
    intent TEXT,
    reason TEXT NOT NULL,
    created_at REAL NOT NULL,
    deleted_at REAL
);
CREATE INDEX perdure_orphan_open ON perdure_orphan (tenant, upstream) WHERE deleted_at IS NULL;
CREATE INDEX perdure_orphan_handle ON perdure_orphan (handle) WHERE deleted_at IS NULL;
CREATE INDEX perdure_orphan_conversation ON perdure_orphan (conversation) WHERE deleted_at IS NULL;
CREATE INDEX perdure_orphan_intent ON perdure_orphan (intent) WHERE intent IS NOT NULL;

-- Until when an upstream wants no request that the app did not make.
CREATE TABLE perdure_throttle (
    tenant TEXT NOT NULL,
    upstream TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (tenant, upstream)
) WITHOUT ROWID;

-- What items say, for full-text search; its rows have the items' keys. It holds no text of its own.
-- indexed: which positions of a conversation are in it, from low through high (none: 1 and 0).
CREATE VIRTUAL TABLE perdure_search USING fts5 (
    text, content = '', columnsize = 0, detail = 'none',
    tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TABLE perdure_indexed (
    conversation INTEGER PRIMARY KEY,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL
);

-- A summary of a log through a position: derived, and made anew whenever it is missing. items: how
-- many it covers; maker: who wrote it. An item that is deleted takes all of them along.
CREATE TABLE perdure_snapshot (
    conversation INTEGER NOT NULL,
    through INTEGER NOT NULL,
    items INTEGER NOT NULL,
    text TEXT NOT NULL,
    maker TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (conversation, through)
) WITHOUT ROWID;
