-- Times are milliseconds since 1970, money is micro-dollars, ids are 63-bit integers that sort by
-- time (receiver/ids.py). A task's id is the platform's taskUUID, 16 bytes.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    n                INTEGER PRIMARY KEY,
    id               BLOB    NOT NULL UNIQUE,
    platform         TEXT    NOT NULL,
    project          TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    expected         INTEGER,                    -- NULL: a static key, not registered
    succeeded        INTEGER NOT NULL DEFAULT 0,
    failed           INTEGER NOT NULL DEFAULT 0,
    missed           INTEGER NOT NULL DEFAULT 0, -- of failed: placeholders after giving up
    indexed          INTEGER NOT NULL DEFAULT 0,
    cost             INTEGER,
    closed           INTEGER NOT NULL DEFAULT 0,
    overdue          INTEGER NOT NULL DEFAULT 0,
    noise            INTEGER NOT NULL DEFAULT 0,
    duplicates       INTEGER NOT NULL DEFAULT 0,
    revision         INTEGER NOT NULL DEFAULT 1,
    created_at       INTEGER NOT NULL,
    completed_at     INTEGER,
    revoked_at       INTEGER,
    reconcile_at     INTEGER,
    deadline_at      INTEGER,
    give_up_at       INTEGER,
    submit_state     TEXT    NOT NULL,
    submit_lease     INTEGER,                    -- until when another caller may not submit
    platform_id      TEXT,
    model            TEXT,
    client_ref       TEXT,
    tags             TEXT    NOT NULL DEFAULT '{}',
    metadata         TEXT    NOT NULL DEFAULT '{}',
    request          TEXT
) STRICT;

CREATE INDEX tasks_by_status ON tasks (status, n);
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE completed_at IS NULL AND overdue = 0;
CREATE INDEX tasks_give_up ON tasks (give_up_at) WHERE completed_at IS NULL;
CREATE INDEX tasks_reconcile ON tasks (reconcile_at) WHERE reconcile_at IS NOT NULL;

CREATE TABLE results (
    task_n      INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    id          INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    late        INTEGER NOT NULL,
    superseded  INTEGER NOT NULL DEFAULT 0,
    conflicts   INTEGER NOT NULL DEFAULT 0,
    source      TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    cost        INTEGER,
    seed        TEXT,                            -- platforms give seeds beyond 64 bits
    nsfw        INTEGER,
    media       TEXT    NOT NULL,
    error       TEXT,
    raw         TEXT    NOT NULL,
    PRIMARY KEY (task_n, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE callbacks (
    id               INTEGER PRIMARY KEY,
    task_n           INTEGER,                    -- NULL: came with a static key, names no task
    outcome          TEXT    NOT NULL,
    reason           TEXT,
    platform         TEXT    NOT NULL,
    source           TEXT    NOT NULL,
    jti              BLOB,
    size             INTEGER NOT NULL,
    sha256           BLOB    NOT NULL,
    received_at      INTEGER NOT NULL,
    repeats          INTEGER NOT NULL DEFAULT 0,
    last_received_at INTEGER NOT NULL,
    remote           TEXT    NOT NULL,
    body             BLOB    NOT NULL
) STRICT;

CREATE INDEX callbacks_by_task ON callbacks (task_n, sha256);
CREATE INDEX callbacks_odd ON callbacks (outcome, id) WHERE outcome <> 'recorded';

CREATE TABLE endpoints (
    id           INTEGER PRIMARY KEY,
    project      TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    reason       TEXT,
    url          TEXT    NOT NULL,
    description  TEXT    NOT NULL,
    event_types  TEXT    NOT NULL,
    filters      TEXT    NOT NULL,
    headers      TEXT    NOT NULL,
    rate_limit   REAL,
    concurrency  INTEGER NOT NULL,
    schedule     TEXT,
    secrets      TEXT    NOT NULL,               -- JSON, newest first: [{"secret", "until"}]
    created_at   INTEGER NOT NULL,
    deleted_at   INTEGER
) STRICT;

CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,              -- in commit order; cursors and streams use it
    id         INTEGER NOT NULL UNIQUE,
    type       TEXT    NOT NULL,
    task_n     INTEGER,
    project    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    payload    BLOB    NOT NULL
) STRICT;

CREATE INDEX events_by_task ON events (task_n) WHERE task_n IS NOT NULL;

CREATE TABLE deliveries (
    event_id           INTEGER NOT NULL,
    endpoint_id        INTEGER NOT NULL,
    state              TEXT    NOT NULL,
    attempts           INTEGER NOT NULL DEFAULT 0,
    round              INTEGER NOT NULL DEFAULT 0, -- attempts when the schedule last began
    next_attempt_at    INTEGER,
    lease_until        INTEGER,
    first_succeeded_at INTEGER,
    created_at         INTEGER NOT NULL,
    settled_at         INTEGER,
    last_error         TEXT,
    PRIMARY KEY (event_id, endpoint_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE state = 'pending';
CREATE INDEX deliveries_sending ON deliveries (endpoint_id, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_dead ON deliveries (event_id, endpoint_id) WHERE state = 'dead';

CREATE TABLE attempts (
    event_id        INTEGER NOT NULL,
    endpoint_id     INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    at              INTEGER NOT NULL,
    duration_ms     INTEGER NOT NULL,
    status          INTEGER,
    error           TEXT,
    detail          TEXT    NOT NULL,
    request_headers TEXT    NOT NULL,
    response_body   BLOB    NOT NULL,
    truncated       INTEGER NOT NULL,
    PRIMARY KEY (event_id, endpoint_id, number)
) STRICT, WITHOUT ROWID;
