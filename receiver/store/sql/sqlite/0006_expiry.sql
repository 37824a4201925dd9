-- When media expire follows from the ttl of their request, and from when they can have been made.

ALTER TABLE tasks ADD COLUMN ttl INTEGER;                                 -- seconds, as the request has it
ALTER TABLE tasks ADD COLUMN asked_at INTEGER;                            -- the platform was asked later; NULL: not known

-- Of what is still open. Where nothing has come yet, the PUT was first.
UPDATE tasks SET ttl = min(json_extract(request, '$.ttl'), 3153600000)
 WHERE completed_at IS NULL AND json_type(request, '$.ttl') = 'integer'
   AND json_extract(request, '$.ttl') > 0;
UPDATE tasks SET asked_at = created_at
 WHERE completed_at IS NULL AND registered = 1
   AND NOT EXISTS (SELECT 1 FROM callbacks WHERE task_n = n);
