-- +goose Up

-- One value sealed under the master key, so that a wrong one is noticed at the start and not in the middle of a request.
CREATE TABLE keyring_check (
    one    BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    sealed BYTEA  NOT NULL
);

-- The keys of every purpose. The newest is the current one; the older ones stay, as what they protect lives on.
CREATE TABLE keyring_keys (
    purpose    TEXT   NOT NULL,
    id         BIGINT NOT NULL CHECK (id > 0),
    sealed     BYTEA  NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (purpose, id)
);
