-- The deadline that nobody named follows from what the last tasks of a model took. What was complete
-- before is not known well enough to say: nobody noted which of them were registered first.

ALTER TABLE tasks ADD COLUMN took INTEGER;                                -- milliseconds from asked_at; NULL: it says nothing of others
ALTER TABLE tasks ADD COLUMN expected_took INTEGER;                       -- milliseconds, when it was registered
ALTER TABLE tasks ADD COLUMN deadline_named INTEGER NOT NULL DEFAULT 0;   -- 1: by who registered it

UPDATE tasks SET deadline_named = 1
 WHERE completed_at IS NULL AND deadline_at <> created_at + 900000;

-- All that a registration reads, and nothing that ingest writes but once in a task's life.
CREATE INDEX tasks_took ON tasks (platform, model, n, took) WHERE took IS NOT NULL;
