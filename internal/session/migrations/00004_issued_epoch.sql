-- +goose Up

-- The epoch that the last access token carries: a refresh that follows a change of roles is not too early.
ALTER TABLE session_grants ADD COLUMN issued_epoch BIGINT NOT NULL DEFAULT 0;
