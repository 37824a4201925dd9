-- An ordered endpoint gets the events of one task one after the other. Which task's order a delivery
-- keeps is its lane; NULL for those that keep none. While an earlier one of its lane is not settled,
-- a delivery has no next_attempt_at, so that a claim never meets it.

ALTER TABLE endpoints ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN lane INTEGER;

CREATE INDEX deliveries_lanes ON deliveries (endpoint_id, lane, event_id)
 WHERE lane IS NOT NULL AND state IN ('pending', 'sending');
