-- What was asked to be sent again, so that streams tell of it too: behind which event, in the order
-- of commits. A number is never used twice, since cursors name it.

CREATE TABLE resends (
    n         INTEGER PRIMARY KEY AUTOINCREMENT,
    after_seq INTEGER NOT NULL,                  -- the newest event's, when it was asked for
    event_id  INTEGER NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX resends_by_place ON resends (after_seq, n);
CREATE INDEX resends_by_event ON resends (event_id);
