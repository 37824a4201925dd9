-- What a model took is learned project by project: nobody is told, by a deadline or by a figure, how
-- long another project's tasks took.

DROP INDEX tasks_took;
CREATE INDEX tasks_took ON tasks (platform, model, project, n, took) WHERE took IS NOT NULL;
