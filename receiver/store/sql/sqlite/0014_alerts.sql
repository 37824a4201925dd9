-- Operational events that whoever runs the receiver has not heard of yet: a line in the log, and a
-- POST to REELHOOK_ALERT_URL if that is set.

CREATE TABLE alerts (
    event_id INTEGER PRIMARY KEY
) STRICT;
