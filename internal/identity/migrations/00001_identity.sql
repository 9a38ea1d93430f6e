-- +goose Up
CREATE TABLE accounts (
    id                  TEXT   PRIMARY KEY,
    email               TEXT   NOT NULL,
    email_key           TEXT   NOT NULL UNIQUE,
    email_verified_at   BIGINT NOT NULL DEFAULT 0,
    user_name           TEXT,
    user_name_key       TEXT   UNIQUE,
    name                TEXT   NOT NULL,
    locale              TEXT   NOT NULL DEFAULT '',
    password_hash       TEXT   NOT NULL,
    password_changed_at BIGINT NOT NULL,
    status              TEXT   NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    roles               TEXT   NOT NULL DEFAULT '',
    version             BIGINT NOT NULL DEFAULT 1,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    last_sign_in_at     BIGINT NOT NULL DEFAULT 0
);
-- Few accounts have roles; this finds the administrators among millions who have none.
CREATE INDEX accounts_with_roles ON accounts (roles) WHERE roles <> '';

-- Passwords an account may not return to.
CREATE TABLE account_passwords (
    account_id    TEXT   NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    password_hash TEXT   NOT NULL,
    replaced_at   BIGINT NOT NULL,
    PRIMARY KEY (account_id, replaced_at, password_hash)
);

-- Devices an account has signed in from; the token itself is only in the device's hands.
CREATE TABLE account_devices (
    account_id   TEXT   NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    token_hash   BYTEA  NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    PRIMARY KEY (account_id, token_hash)
);
CREATE INDEX account_devices_expiry ON account_devices (expires_at);

-- One-time links: the hash of the token, and what holding it allows.
CREATE TABLE confirmations (
    token_hash BYTEA  PRIMARY KEY,
    purpose    TEXT   NOT NULL CHECK (purpose IN ('sign_up', 'recovery', 'address', 'setup')),
    account_id TEXT,
    email      TEXT   NOT NULL DEFAULT '',
    email_key  TEXT   NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX confirmations_account ON confirmations (account_id);
CREATE INDEX confirmations_expiry ON confirmations (expires_at);

-- Password attempts by the hash of what they were aimed at or came from: leaky buckets, empty at drained_at.
CREATE TABLE attempts (
    subject    BYTEA  PRIMARY KEY,
    drained_at BIGINT NOT NULL,
    next_at    BIGINT NOT NULL
);
CREATE INDEX attempts_drained ON attempts (drained_at);
