-- Jobs send many deliveries again, a few in each transaction that keeps how far they are.

CREATE TABLE jobs (
    id              INTEGER PRIMARY KEY,
    kind            TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    project         TEXT,                        -- NULL: of all
    asked           TEXT    NOT NULL,            -- JSON: receiver.repair.Repair
    idempotency_key TEXT,
    total           INTEGER,
    done            INTEGER NOT NULL DEFAULT 0,
    place           TEXT    NOT NULL DEFAULT '[]',
    note            TEXT,
    next_at         INTEGER NOT NULL,            -- of its next step
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER
) STRICT;

CREATE INDEX jobs_open ON jobs (next_at) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_by_key ON jobs (coalesce(project, ''), idempotency_key)
 WHERE idempotency_key IS NOT NULL;
