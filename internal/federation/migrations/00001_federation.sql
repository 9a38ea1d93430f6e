-- +goose Up
-- Who a provider knows under which subject, and whose account that opens. The authority is whoever gives the subjects out: a provider
-- of the same name at another address knows other people.
CREATE TABLE federated_identities (
    provider     TEXT   NOT NULL,
    authority    TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    account_id   TEXT   NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    label        TEXT   NOT NULL DEFAULT '',
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (provider, authority, subject),
    UNIQUE (account_id, provider)
);
