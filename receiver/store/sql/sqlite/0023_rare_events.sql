-- Who looks for the few must not read through the many. Results and completions, which are nearly
-- all there is, are not in it, so that ingest has no index to keep.

CREATE INDEX events_rare ON events (type, seq)
 WHERE type NOT IN ('result.succeeded', 'result.failed', 'task.completed');
