-- What requests with an Idempotency-Key were answered. An answer may hold a secret, so all of them
-- are sealed with a key that is not in this file.

CREATE TABLE answers (
    owner    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    asked    BLOB    NOT NULL,                   -- SHA-256 of method, path, query and body
    begun_at INTEGER NOT NULL,
    changed  INTEGER NOT NULL DEFAULT 0,         -- 1: it did its work, answered or not
    status   INTEGER,                            -- NULL: not answered yet
    answer   TEXT,
    PRIMARY KEY (owner, key)
) STRICT;

CREATE INDEX answers_begun ON answers (begun_at);
