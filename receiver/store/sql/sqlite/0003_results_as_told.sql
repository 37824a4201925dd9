-- What endpoints are told of a result is rendered once and kept: a completed task repeats it in
-- task.completed, and parsing the parts only to render them again was a tenth of ingest.

CREATE TABLE results_as_told (
    task_n      INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    id          INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    late        INTEGER NOT NULL,
    superseded  INTEGER NOT NULL DEFAULT 0,
    conflicts   INTEGER NOT NULL DEFAULT 0,
    source      TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    cost        INTEGER,                         -- also in told, in dollars
    told        TEXT    NOT NULL,                -- JSON: media, seed, cost, nsfw, error if it failed
    raw         TEXT    NOT NULL,
    PRIMARY KEY (task_n, key)
) STRICT, WITHOUT ROWID;

INSERT INTO results_as_told
SELECT task_n, key, id, idx, kind, late, superseded, conflicts, source, received_at, cost,
       json_object(
           'media', json((
               SELECT json_group_array(json_object(
                          'kind', json_extract(value, '$[0]'), 'id', json_extract(value, '$[1]'),
                          'url', json_extract(value, '$[2]'), 'expires_at', NULL))
                 FROM json_each(media))),
           'seed', json(coalesce(seed, 'null')),
           'cost', cost / 1000000.0,
           'nsfw', json(iif(nsfw IS NULL, 'null', iif(nsfw, 'true', 'false')))),
       raw
  FROM results;

UPDATE results_as_told
   SET told = json_set(told, '$.error', json_object(
                  'code', json_extract(r.error, '$[0]'),
                  'category', json_extract(r.error, '$[1]'),
                  'message', json_extract(r.error, '$[2]'),
                  'retryable', json(iif(json_extract(r.error, '$[1]')
                      IN ('rate_limit', 'timeout', 'provider', 'server'), 'true', 'false'))))
  FROM results r
 WHERE r.task_n = results_as_told.task_n AND r.key = results_as_told.key AND r.error IS NOT NULL;

DROP TABLE results;
ALTER TABLE results_as_told RENAME TO results;
