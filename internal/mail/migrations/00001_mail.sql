-- +goose Up
CREATE TABLE mail_letters (
    id            TEXT   NOT NULL PRIMARY KEY,
    kind          TEXT   NOT NULL,
    address       TEXT   NOT NULL,
    account       TEXT   NOT NULL,
    locale        TEXT   NOT NULL,
    data          TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    next_at       BIGINT NOT NULL,
    attempts      BIGINT NOT NULL DEFAULT 0,
    claimed_until BIGINT NOT NULL DEFAULT 0,
    parked_at     BIGINT NOT NULL DEFAULT 0,
    last_error    TEXT   NOT NULL DEFAULT ''
);
CREATE INDEX mail_letters_due ON mail_letters (next_at, id) WHERE parked_at = 0;
CREATE INDEX mail_letters_parked ON mail_letters (parked_at) WHERE parked_at > 0;

CREATE TABLE mail_mailbox (
    id          TEXT   NOT NULL PRIMARY KEY,
    recipient   TEXT   NOT NULL,
    subject     TEXT   NOT NULL,
    text        TEXT   NOT NULL,
    html        TEXT   NOT NULL,
    received_at BIGINT NOT NULL
);
CREATE INDEX mail_mailbox_newest ON mail_mailbox (received_at DESC, id DESC);
