-- Figures that never read all that is kept.

-- How many attempts of an endpoint ended well (ok 1) or badly (ok 0) in an hour since 1970, by the
-- width of time that they took. Hours that are no longer asked for go with the next one.
CREATE TABLE endpoint_hours (
    endpoint_id INTEGER NOT NULL,
    hour        INTEGER NOT NULL,
    ok          INTEGER NOT NULL,
    within_ms   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    PRIMARY KEY (endpoint_id, hour, ok, within_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX endpoint_hours_by_age ON endpoint_hours (hour);

-- A repeat writes its callback's row anyhow; whatever is new has no place in this.
CREATE INDEX callbacks_repeated ON callbacks (last_received_at) WHERE repeats > 0;

CREATE INDEX tasks_overdue ON tasks (n) WHERE overdue = 1 AND completed_at IS NULL;
