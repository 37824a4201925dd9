-- One-time login links and sessions that were ended by hand: digests alone, nothing here opens a door.

CREATE TABLE login_codes (
    digest BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ended_sessions (
    id TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
