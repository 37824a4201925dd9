-- A task that is due for reconcile (tasks.reconcile_at) is leased to one poller at a time.

ALTER TABLE tasks ADD COLUMN reconcile_lease INTEGER;                     -- until when nobody else polls it
ALTER TABLE tasks ADD COLUMN reconcile_attempts INTEGER NOT NULL DEFAULT 0;

-- A completed task is due only when it is asked for by hand, and nobody could ask until now.
UPDATE tasks SET reconcile_at = NULL WHERE completed_at IS NOT NULL;

-- Tasks that a callback created had no deadline, so they never became overdue.
UPDATE tasks SET deadline_at = coalesce(deadline_at, created_at + 900000),
                 give_up_at = coalesce(give_up_at, created_at + 86400000)
 WHERE completed_at IS NULL;
