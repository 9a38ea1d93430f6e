-- +goose Up

-- A name under which tokens say who a person is, or which session they are of, to a client that must not learn the true one. What is
-- revoked under hash is revoked under alias, too, by the same transaction. Rows outlive the tokens that carry the alias.
CREATE TABLE session_aliases (
    kind       TEXT   NOT NULL CHECK (kind IN ('session', 'subject')),
    hash       BYTEA  NOT NULL,
    alias      BYTEA  NOT NULL,
    keep_until BIGINT NOT NULL,
    PRIMARY KEY (kind, hash, alias)
);
CREATE INDEX session_aliases_keep ON session_aliases (keep_until);
