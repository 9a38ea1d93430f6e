-- +goose Up
CREATE TABLE audit_events (
    id         TEXT   NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    account    TEXT   NOT NULL,
    actor      TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    user_agent TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    detail     TEXT   NOT NULL,
    keep_until BIGINT NOT NULL
);
CREATE INDEX audit_events_account ON audit_events (account, at DESC, id DESC);
CREATE INDEX audit_events_keep_until ON audit_events (keep_until);
