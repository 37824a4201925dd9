-- The schema of SQLite's migrations up to 0026, in PostgreSQL's types. Times are milliseconds since
-- 1970, money is micro-dollars, ids are 63-bit integers that sort by time (receiver/ids.py). A
-- task's id is the platform's taskUUID, 16 bytes. Flags are integers, as in SQLite, and texts sort
-- by their bytes: one set of statements serves both.

CREATE TABLE meta (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);

CREATE TABLE tasks (
    n                  BIGINT PRIMARY KEY,
    id                 BYTEA  NOT NULL UNIQUE,
    platform           TEXT COLLATE "C" NOT NULL,
    project            TEXT COLLATE "C" NOT NULL,
    status             TEXT COLLATE "C" NOT NULL,
    expected           BIGINT,                     -- NULL: a static key, not registered
    succeeded          BIGINT NOT NULL DEFAULT 0,
    failed             BIGINT NOT NULL DEFAULT 0,
    missed             BIGINT NOT NULL DEFAULT 0,  -- of failed: placeholders after giving up
    indexed            BIGINT NOT NULL DEFAULT 0,
    cost               BIGINT,
    closed             BIGINT NOT NULL DEFAULT 0,
    overdue            BIGINT NOT NULL DEFAULT 0,
    noise              BIGINT NOT NULL DEFAULT 0,
    duplicates         BIGINT NOT NULL DEFAULT 0,
    revision           BIGINT NOT NULL DEFAULT 1,
    created_at         BIGINT NOT NULL,
    completed_at       BIGINT,
    revoked_at         BIGINT,
    reconcile_at       BIGINT,
    deadline_at        BIGINT,
    give_up_at         BIGINT,
    submit_state       TEXT COLLATE "C" NOT NULL,
    submit_lease       BIGINT,                     -- until when another caller may not submit
    platform_id        TEXT COLLATE "C",
    model              TEXT COLLATE "C",
    client_ref         TEXT COLLATE "C",
    tags               TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    metadata           TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    request            TEXT COLLATE "C",
    reconcile_lease    BIGINT,                     -- until when nobody else polls it
    reconcile_attempts BIGINT NOT NULL DEFAULT 0,
    registered         BIGINT NOT NULL DEFAULT 0,  -- 0: known from a callback alone
    ttl                BIGINT,                     -- seconds, as the request has it
    asked_at           BIGINT,                     -- the platform was asked later; NULL: not known
    took               BIGINT,                     -- milliseconds; NULL: it says nothing of others
    expected_took      BIGINT,                     -- milliseconds, when it was registered
    deadline_named     BIGINT NOT NULL DEFAULT 0   -- 1: by who registered it
);

CREATE INDEX tasks_by_status ON tasks (status, n);
CREATE INDEX tasks_deadline ON tasks (deadline_at) WHERE completed_at IS NULL AND overdue = 0;
CREATE INDEX tasks_give_up ON tasks (give_up_at) WHERE completed_at IS NULL;
CREATE INDEX tasks_reconcile ON tasks (reconcile_at) WHERE reconcile_at IS NOT NULL;
CREATE INDEX tasks_strangers ON tasks (n) WHERE expected IS NULL AND completed_at IS NULL;
CREATE INDEX tasks_took ON tasks (platform, model, project, n, took) WHERE took IS NOT NULL;
CREATE INDEX tasks_by_project ON tasks (project, n);
CREATE INDEX tasks_overdue ON tasks (n) WHERE overdue = 1 AND completed_at IS NULL;
CREATE INDEX tasks_ever_overdue ON tasks (n) WHERE overdue = 1;

CREATE TABLE results (
    task_n      BIGINT NOT NULL,
    key         TEXT COLLATE "C" NOT NULL,
    id          BIGINT NOT NULL,
    idx         BIGINT NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    late        BIGINT NOT NULL,
    superseded  BIGINT NOT NULL DEFAULT 0,
    conflicts   BIGINT NOT NULL DEFAULT 0,
    source      TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    cost        BIGINT,                            -- also in told, in dollars
    told        TEXT COLLATE "C" NOT NULL,         -- JSON: media, seed, cost, nsfw, error
    raw         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (task_n, key)
);

CREATE TABLE callbacks (
    id               BIGINT PRIMARY KEY,
    task_n           BIGINT,                       -- NULL: came with a static key, names no task
    outcome          TEXT COLLATE "C" NOT NULL,
    reason           TEXT COLLATE "C",
    platform         TEXT COLLATE "C" NOT NULL,
    source           TEXT COLLATE "C" NOT NULL,
    jti              BYTEA,
    size             BIGINT NOT NULL,
    sha256           BYTEA  NOT NULL,
    received_at      BIGINT NOT NULL,
    repeats          BIGINT NOT NULL DEFAULT 0,
    last_received_at BIGINT NOT NULL,
    remote           TEXT COLLATE "C" NOT NULL,
    body             BYTEA  NOT NULL,
    tags             TEXT COLLATE "C",             -- of the URL, while no task has them
    body_dropped_at  BIGINT
);

CREATE INDEX callbacks_by_task ON callbacks (task_n, sha256);
CREATE INDEX callbacks_odd ON callbacks (outcome, id) WHERE outcome <> 'recorded';
CREATE INDEX callbacks_repeated ON callbacks (last_received_at) WHERE repeats > 0;

CREATE TABLE endpoints (
    id           BIGINT PRIMARY KEY,
    project      TEXT COLLATE "C" NOT NULL,
    state        TEXT COLLATE "C" NOT NULL,
    reason       TEXT COLLATE "C",
    url          TEXT COLLATE "C" NOT NULL,
    description  TEXT COLLATE "C" NOT NULL,
    event_types  TEXT COLLATE "C" NOT NULL,
    filters      TEXT COLLATE "C" NOT NULL,
    headers      TEXT COLLATE "C" NOT NULL,        -- values may be sealed
    rate_limit   DOUBLE PRECISION,
    concurrency  BIGINT NOT NULL,
    schedule     TEXT COLLATE "C",
    secrets      TEXT COLLATE "C" NOT NULL,        -- JSON, newest first: [{"secret", "until"}]
    created_at   BIGINT NOT NULL,
    deleted_at   BIGINT,
    signatures   TEXT COLLATE "C" NOT NULL DEFAULT '["v1"]',
    private_keys TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    public_key   TEXT COLLATE "C",                 -- of the newest of them
    ordered      BIGINT NOT NULL DEFAULT 0,
    revision     BIGINT NOT NULL DEFAULT 0
);

-- Places are given while one transaction at a time may give them (Held.EVENTS), so they are in the
-- order of the commits, and who reads behind a place misses nothing.
CREATE TABLE events (
    seq        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    id         BIGINT NOT NULL UNIQUE,
    type       TEXT COLLATE "C" NOT NULL,
    task_n     BIGINT,
    project    TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    payload    BYTEA  NOT NULL
);

CREATE INDEX events_by_task ON events (task_n) WHERE task_n IS NOT NULL;
CREATE INDEX events_by_project ON events (project, seq);
CREATE INDEX events_rare ON events (type, seq)
 WHERE type NOT IN ('result.succeeded', 'task.completed');
CREATE INDEX events_rare_by_id ON events (type, id)
 WHERE type NOT IN ('result.succeeded', 'task.completed');

CREATE TABLE deliveries (
    event_id           BIGINT NOT NULL,
    endpoint_id        BIGINT NOT NULL,
    state              TEXT COLLATE "C" NOT NULL,
    attempts           BIGINT NOT NULL DEFAULT 0,
    round              BIGINT NOT NULL DEFAULT 0,  -- attempts when the schedule last began
    next_attempt_at    BIGINT,
    lease_until        BIGINT,
    first_succeeded_at BIGINT,
    created_at         BIGINT NOT NULL,
    settled_at         BIGINT,
    last_error         TEXT COLLATE "C",
    last_status        BIGINT,
    lane               BIGINT,                     -- whose order it keeps
    leased_by          BIGINT,                     -- the process, while it is sending
    PRIMARY KEY (event_id, endpoint_id)
);

CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_id, event_id);
CREATE INDEX deliveries_due ON deliveries (endpoint_id, next_attempt_at) WHERE state = 'pending';
CREATE INDEX deliveries_sending ON deliveries (endpoint_id, lease_until) WHERE state = 'sending';
CREATE INDEX deliveries_dead ON deliveries (event_id, endpoint_id) WHERE state = 'dead';
CREATE INDEX deliveries_canceled ON deliveries (event_id, endpoint_id) WHERE state = 'canceled';
CREATE INDEX deliveries_dead_by_cause
    ON deliveries (endpoint_id, last_error, last_status, event_id, created_at) WHERE state = 'dead';
CREATE INDEX deliveries_lanes ON deliveries (endpoint_id, lane, event_id)
 WHERE lane IS NOT NULL AND state IN ('pending', 'sending');

CREATE TABLE attempts (
    event_id        BIGINT NOT NULL,
    endpoint_id     BIGINT NOT NULL,
    number          BIGINT NOT NULL,
    at              BIGINT NOT NULL,
    duration_ms     BIGINT NOT NULL,
    status          BIGINT,
    error           TEXT COLLATE "C",
    detail          TEXT COLLATE "C" NOT NULL,
    request_headers TEXT COLLATE "C" NOT NULL,
    response_body   BYTEA NOT NULL,
    truncated       BIGINT NOT NULL,
    PRIMARY KEY (event_id, endpoint_id, number)
);

CREATE TABLE processes (
    id         BIGINT PRIMARY KEY,
    role       TEXT COLLATE "C" NOT NULL,
    host       TEXT COLLATE "C" NOT NULL,
    pid        BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL
);

CREATE TABLE endpoint_health (
    endpoint_id     BIGINT PRIMARY KEY,
    breaker         TEXT COLLATE "C" NOT NULL,
    failures        BIGINT NOT NULL,
    strikes         BIGINT NOT NULL,
    failing_since   BIGINT,
    held_until      BIGINT,                        -- nothing is sent before
    pause           BIGINT NOT NULL,               -- milliseconds before the last probe
    width           BIGINT,                        -- at most so many at once; NULL: as set
    throttled_at    BIGINT,
    last_success_at BIGINT,
    last_failure_at BIGINT,
    refused_at      BIGINT
);

CREATE INDEX endpoint_health_short ON endpoint_health (endpoint_id)
 WHERE breaker <> 'closed' OR width IS NOT NULL OR held_until IS NOT NULL;

CREATE TABLE endpoint_hours (
    endpoint_id BIGINT NOT NULL,
    hour        BIGINT NOT NULL,
    ok          BIGINT NOT NULL,
    within_ms   BIGINT NOT NULL,
    attempts    BIGINT NOT NULL,
    PRIMARY KEY (endpoint_id, hour, ok, within_ms)
);

CREATE INDEX endpoint_hours_by_age ON endpoint_hours (hour);

-- What is left of each endpoint's rate, whichever process claims; SQLite's one keeps it in memory.
CREATE TABLE endpoint_allowances (
    endpoint_id BIGINT PRIMARY KEY,
    held        DOUBLE PRECISION NOT NULL,
    at          BIGINT NOT NULL
);

CREATE TABLE jobs (
    id              BIGINT PRIMARY KEY,
    kind            TEXT COLLATE "C" NOT NULL,
    state           TEXT COLLATE "C" NOT NULL,
    project         TEXT COLLATE "C",              -- NULL: of all
    asked           TEXT COLLATE "C" NOT NULL,     -- JSON: receiver.repair.Repair
    idempotency_key TEXT COLLATE "C",
    total           BIGINT,
    done            BIGINT NOT NULL DEFAULT 0,
    place           TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    note            TEXT COLLATE "C",
    next_at         BIGINT NOT NULL,               -- of its next step
    created_at      BIGINT NOT NULL,
    started_at      BIGINT,
    finished_at     BIGINT
);

CREATE INDEX jobs_open ON jobs (next_at) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_by_key ON jobs (coalesce(project, ''), idempotency_key)
 WHERE idempotency_key IS NOT NULL;

CREATE TABLE alerts (
    event_id BIGINT PRIMARY KEY
);

CREATE TABLE login_codes (
    digest     BYTEA PRIMARY KEY,
    expires_at BIGINT NOT NULL,
    holder     TEXT COLLATE "C" NOT NULL DEFAULT 'admin'
);

CREATE TABLE ended_sessions (
    id         TEXT COLLATE "C" PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE TABLE resends (
    n         BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    after_seq BIGINT NOT NULL,                     -- the newest event's, when it was asked for
    event_id  BIGINT NOT NULL,
    at        BIGINT NOT NULL
);

CREATE INDEX resends_by_place ON resends (after_seq, n);
CREATE INDEX resends_by_event ON resends (event_id);

CREATE TABLE api_tokens (
    id           BIGINT PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL,
    scope        TEXT COLLATE "C" NOT NULL,
    project      TEXT COLLATE "C",                 -- NULL: of all
    digest       BYTEA  NOT NULL UNIQUE,           -- SHA-256
    hint         TEXT COLLATE "C" NOT NULL,        -- the token's last characters
    created_at   BIGINT NOT NULL,
    created_by   TEXT COLLATE "C" NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT                            -- noted now and then, not at each request
);

CREATE TABLE audit (
    seq        BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT COLLATE "C" NOT NULL,
    actor_name TEXT COLLATE "C" NOT NULL,          -- as it was then
    action     TEXT COLLATE "C" NOT NULL,
    target     TEXT COLLATE "C",
    project    TEXT COLLATE "C",                   -- NULL: of all
    request_id TEXT COLLATE "C",
    details    TEXT COLLATE "C" NOT NULL           -- JSON, without secrets
);

CREATE INDEX audit_by_target ON audit (target, seq) WHERE target IS NOT NULL;

CREATE TABLE answers (
    owner    TEXT COLLATE "C" NOT NULL,
    key      TEXT COLLATE "C" NOT NULL,
    asked    BYTEA  NOT NULL,                      -- SHA-256 of method, path, query and body
    begun_at BIGINT NOT NULL,
    changed  BIGINT NOT NULL DEFAULT 0,            -- 1: it did its work, answered or not
    status   BIGINT,                               -- NULL: not answered yet
    answer   TEXT COLLATE "C",
    PRIMARY KEY (owner, key)
);

CREATE INDEX answers_begun ON answers (begun_at);

-- What SQLite has built in, and the statements of both stores use. A minimum or maximum of several
-- values is NULL if one of them is (sqlite.org/lang_corefunc.html).

CREATE FUNCTION min(a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE
 RETURN CASE WHEN b < a THEN b WHEN b IS NOT NULL THEN a END;
CREATE FUNCTION min(a NUMERIC, b NUMERIC) RETURNS NUMERIC LANGUAGE sql IMMUTABLE PARALLEL SAFE
 RETURN CASE WHEN b < a THEN b WHEN b IS NOT NULL THEN a END;
CREATE FUNCTION max(a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE
 RETURN CASE WHEN b > a THEN b WHEN b IS NOT NULL THEN a END;
CREATE FUNCTION max(a BIGINT, b BIGINT, c BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE
 RETURN max(max(a, b), c);
CREATE FUNCTION iif(condition BOOLEAN, a BIGINT, b BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE
 PARALLEL SAFE RETURN CASE WHEN condition THEN a ELSE b END;
CREATE FUNCTION iif(condition BOOLEAN, a TEXT, b TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE
 PARALLEL SAFE RETURN CASE WHEN condition THEN a ELSE b END;

-- A JSON text may hold \u0000, or half of a character, which no text of PostgreSQL can: either is
-- found as U+FFFD. A backslash that stands for itself is written otherwise before they are sought.
CREATE FUNCTION json_extract(doc TEXT, path TEXT) RETURNS TEXT LANGUAGE plpgsql IMMUTABLE
 PARALLEL SAFE AS $$
BEGIN
    RETURN nullif(jsonb_path_query_first(doc::jsonb, path::jsonpath), 'null') #>> '{}';
EXCEPTION WHEN untranslatable_character OR invalid_text_representation THEN
    doc := replace(replace(doc, '\\', '\u005c'), '\u0000', '\ufffd');
    doc := regexp_replace(
        doc, '\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})', '\\ufffd', 'g'
    );
    doc := regexp_replace(
        doc, '(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}', '\\ufffd', 'g'
    );
    RETURN nullif(jsonb_path_query_first(doc::jsonb, path::jsonpath), 'null') #>> '{}';
END
$$;

INSERT INTO meta (name, value) VALUES ('directory', '1');
