-- A Retry-After is over for an endpoint that takes what was sent after the refused attempt began.
-- What it gets at once grows with every success, so that they need not be counted.

ALTER TABLE endpoint_health ADD COLUMN refused_at INTEGER;
ALTER TABLE endpoint_health DROP COLUMN grown;
