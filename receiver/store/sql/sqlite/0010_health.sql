-- How endpoints fare: throttle, circuit breaker, and since when one fails. No row: well, so far.

CREATE TABLE endpoint_health (
    endpoint_id     INTEGER PRIMARY KEY,
    breaker         TEXT    NOT NULL,
    failures        INTEGER NOT NULL,
    strikes         INTEGER NOT NULL,
    failing_since   INTEGER,
    held_until      INTEGER,                     -- nothing is sent before
    pause           INTEGER NOT NULL,            -- milliseconds before the last probe
    width           INTEGER,                     -- at most so many at once; NULL: as set
    grown           INTEGER NOT NULL,
    throttled_at    INTEGER,
    last_success_at INTEGER,
    last_failure_at INTEGER
) STRICT;

-- A claim looks at those alone that get less than they were set to.
CREATE INDEX endpoint_health_short ON endpoint_health (endpoint_id)
 WHERE breaker <> 'closed' OR width IS NOT NULL OR held_until IS NOT NULL;
