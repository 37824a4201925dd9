-- A callback's body goes long before the callback. Empty with this set: it was dropped then.

ALTER TABLE callbacks ADD COLUMN body_dropped_at INTEGER;
