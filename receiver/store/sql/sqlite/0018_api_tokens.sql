-- API tokens. A token itself is kept nowhere: 256 random bits need no salt and no slow hash.

CREATE TABLE api_tokens (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    project      TEXT,                           -- NULL: of all
    digest       BLOB    NOT NULL UNIQUE,        -- SHA-256
    hint         TEXT    NOT NULL,               -- the token's last characters
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER                         -- noted now and then, not at each request
) STRICT;
