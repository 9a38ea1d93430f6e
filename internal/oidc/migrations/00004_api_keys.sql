-- +goose Up

-- A key with which a client calls services without asking for tokens itself. Of the key its hash is kept. scope and audience are
-- space-separated. used_at is right to the hour, 0 for never. An id is never used again: tokens that were given for the key carry it
-- as their grant, which is what dies with the key.
CREATE TABLE api_keys (
    id         TEXT   NOT NULL PRIMARY KEY,
    hash       BYTEA  NOT NULL,
    client_id  TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    scope      TEXT   NOT NULL,
    audience   TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL
);
CREATE INDEX api_keys_client ON api_keys (client_id);
CREATE INDEX api_keys_expires ON api_keys (expires_at);
