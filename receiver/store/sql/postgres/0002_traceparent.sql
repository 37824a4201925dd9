-- The trace that a task is of, in W3C's form; deliveries of the task are spans of it.

ALTER TABLE tasks ADD COLUMN traceparent TEXT COLLATE "C";
