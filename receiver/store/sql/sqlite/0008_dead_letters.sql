-- Dead letters are counted by endpoint and cause, in the order of an index, whatever their number.

ALTER TABLE deliveries ADD COLUMN last_status INTEGER;                    -- of the last attempt, as last_error is

UPDATE deliveries
   SET last_status = (SELECT a.status FROM attempts a
                       WHERE a.event_id = deliveries.event_id
                         AND a.endpoint_id = deliveries.endpoint_id
                         AND a.number = deliveries.attempts)
 WHERE state = 'dead';

CREATE INDEX deliveries_dead_by_cause
    ON deliveries (endpoint_id, last_error, last_status, event_id, created_at) WHERE state = 'dead';
