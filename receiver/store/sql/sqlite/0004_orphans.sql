-- What came without a word of ours: bodies that name no task, and tasks that nobody registered.

ALTER TABLE callbacks ADD COLUMN tags TEXT;                               -- of the URL, while there is no task to have them
ALTER TABLE tasks ADD COLUMN registered INTEGER NOT NULL DEFAULT 0;       -- 0: known from a callback alone

UPDATE tasks SET registered = 1
 WHERE submit_lease IS NOT NULL OR submit_state <> 'submitted' OR metadata <> '{}'
    OR coalesce(model, platform_id, client_ref, request) IS NOT NULL;

CREATE INDEX tasks_strangers ON tasks (n) WHERE expected IS NULL AND completed_at IS NULL;
