-- +goose Up
CREATE TABLE signing_keys (
    generation   BIGINT NOT NULL PRIMARY KEY,
    kid          TEXT   NOT NULL UNIQUE,
    algorithm    TEXT   NOT NULL,
    private_key  BYTEA  NOT NULL,
    published_at BIGINT NOT NULL,
    active_at    BIGINT NOT NULL,
    retire_at    BIGINT NOT NULL,
    expire_at    BIGINT NOT NULL,
    CHECK (published_at <= active_at AND active_at <= retire_at AND retire_at < expire_at)
);
