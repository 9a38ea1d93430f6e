-- +goose Up

-- What a client that registered itself may register (JSON): scope, grants, and the initial access token that it showed. '' for a client
-- that an operator has registered.
ALTER TABLE oauth_clients ADD COLUMN registration TEXT NOT NULL DEFAULT '';

-- An initial access token (RFC 7591, section 1.2), of which the hash is kept. scope and grants, space-separated, are all that clients may
-- register with it. An id is no secret.
CREATE TABLE oauth_initial_tokens (
    id         TEXT   NOT NULL PRIMARY KEY,
    hash       BYTEA  NOT NULL UNIQUE,
    scope      TEXT   NOT NULL,
    grants     TEXT   NOT NULL,
    uses       BIGINT NOT NULL CHECK (uses >= 0),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_initial_tokens_expires ON oauth_initial_tokens (expires_at);
