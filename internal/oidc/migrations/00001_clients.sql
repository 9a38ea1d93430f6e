-- +goose Up

-- A program that asks for tokens. What it registered about itself, under the names of RFC 7591, is metadata (JSON): no statement
-- decides on it. epoch never falls while a token that carries it can live, so the row of a removed client stays for a while.
-- previous_hash works until previous_until, so that a secret can be replaced without a gap. registration_hash is that of the token
-- with which a client that registered itself may change itself (RFC 7592).
CREATE TABLE oauth_clients (
    id                TEXT   NOT NULL PRIMARY KEY,
    kind              TEXT   NOT NULL CHECK (kind IN ('public', 'confidential')),
    metadata          TEXT   NOT NULL,
    secret_hash       BYTEA,
    previous_hash     BYTEA,
    previous_until    BIGINT NOT NULL,
    registration_hash BYTEA,
    epoch             BIGINT NOT NULL,
    created_at        BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL,
    disabled_at       BIGINT NOT NULL,
    removed_at        BIGINT NOT NULL
);
CREATE INDEX oauth_clients_removed ON oauth_clients (removed_at) WHERE removed_at > 0;
