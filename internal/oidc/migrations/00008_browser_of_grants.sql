-- +goose Up

-- The session of the browser that a program with a session of its own (offline_access) was signed in to from, as the revocation feed
-- names it: its end is told the program, too. NULL where there is none, and once it was told.
ALTER TABLE oauth_grants ADD COLUMN browser_hash BYTEA;
CREATE INDEX oauth_grants_browser ON oauth_grants (browser_hash) WHERE browser_hash IS NOT NULL;
