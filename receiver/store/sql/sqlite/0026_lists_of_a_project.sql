-- Lists of one project, of one endpoint and of rare types stop when a page is full, or when what they
-- list is at its end: they never read through what is of others.

CREATE INDEX tasks_by_project ON tasks (project, n);
CREATE INDEX events_by_project ON events (project, seq);
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint_id, event_id);

-- Failures are rare where most succeeds. Lists of events are in the order of `seq`, those of
-- deliveries in that of events' ids.
DROP INDEX events_rare;
CREATE INDEX events_rare ON events (type, seq)
 WHERE type NOT IN ('result.succeeded', 'task.completed');
CREATE INDEX events_rare_by_id ON events (type, id)
 WHERE type NOT IN ('result.succeeded', 'task.completed');
