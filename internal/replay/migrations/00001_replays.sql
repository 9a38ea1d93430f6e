-- +goose Up

-- Hashes of ids that were used, until nobody would accept them any more.
CREATE TABLE replays (
    id         BYTEA  NOT NULL PRIMARY KEY,
    keep_until BIGINT NOT NULL
);
CREATE INDEX replays_keep_until ON replays (keep_until);
