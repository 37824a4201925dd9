-- Which signatures a delivery carries, and the Ed25519 keys of endpoints that asked for v1a. The
-- credentials among the values of secrets, private_keys and headers may be sealed: see
-- receiver/store/verbs/secrets.py.

ALTER TABLE endpoints ADD COLUMN signatures TEXT NOT NULL DEFAULT '["v1"]';
ALTER TABLE endpoints ADD COLUMN private_keys TEXT NOT NULL DEFAULT '[]'; -- as secrets
ALTER TABLE endpoints ADD COLUMN public_key TEXT;                         -- of the newest of them
