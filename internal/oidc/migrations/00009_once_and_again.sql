-- +goose Up

-- The grant that a device code gave, '' before: a code that comes again takes it back.
ALTER TABLE oauth_devices ADD COLUMN grant_id TEXT NOT NULL DEFAULT '';

-- A request that was left here is answered once: answered_at, 0 before. root is the hash of the one in whose place another came while its
-- person signed in, NULL for that one itself; keep_until is how long it may be needed by those.
ALTER TABLE oauth_requests ADD COLUMN root BYTEA;
ALTER TABLE oauth_requests ADD COLUMN answered_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE oauth_requests ADD COLUMN keep_until BIGINT NOT NULL DEFAULT 0;

-- The claims that were asked for by name in the ID token (JSON), '' for none: tokens of a refresh repeat them. asks_claims says of a client
-- whether that ever happened, so that the refreshes of all others need not look.
ALTER TABLE oauth_grants ADD COLUMN id_claims TEXT NOT NULL DEFAULT '';
ALTER TABLE oauth_clients ADD COLUMN asks_claims BIGINT NOT NULL DEFAULT 0;

-- When a client that registered itself first obtained something, 0 before: those that never do are removed. Whether those that are there
-- already have, nobody knows: they stay.
ALTER TABLE oauth_clients ADD COLUMN used_at BIGINT NOT NULL DEFAULT 0;
UPDATE oauth_clients SET used_at = created_at WHERE registration <> '';
CREATE INDEX oauth_clients_unused ON oauth_clients (updated_at) WHERE used_at = 0 AND registration <> '';
