-- Whose session a login link begins: `admin`, or the id of an API token.

ALTER TABLE login_codes ADD COLUMN holder TEXT NOT NULL DEFAULT 'admin';
