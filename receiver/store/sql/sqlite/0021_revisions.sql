-- What an endpoint was when somebody read it, so that two who change it at once see each other.

ALTER TABLE endpoints ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
