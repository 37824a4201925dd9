-- What somebody did by hand, each row in the transaction of the change itself.

CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY,              -- in commit order; the newest row is never dropped
    at         INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    actor_name TEXT    NOT NULL,                 -- as it was then
    action     TEXT    NOT NULL,
    target     TEXT,
    project    TEXT,                             -- NULL: of all
    request_id TEXT,
    details    TEXT    NOT NULL                  -- JSON, without secrets
) STRICT;

CREATE INDEX audit_by_target ON audit (target, seq) WHERE target IS NOT NULL;
