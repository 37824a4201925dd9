-- Where a process runs, so that its neighbours on the same machine see at once that it ended
-- (receiver/whereabouts.py). NULL: it does not know, or it is of the release before.

ALTER TABLE processes ADD COLUMN machine TEXT COLLATE "C";
ALTER TABLE processes ADD COLUMN born BIGINT;
