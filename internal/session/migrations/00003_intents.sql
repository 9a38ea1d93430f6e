-- +goose Up

-- seq counts the intents of a person: what SQL has decided about sessions that are kept elsewhere.
ALTER TABLE session_subjects ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;

-- An intent is written in the transaction that decides, and carried out after it, as often as need be. applied_at is 0 until
-- it has been.
CREATE TABLE session_intents (
    subject    TEXT   NOT NULL,
    seq        BIGINT NOT NULL,
    kind       TEXT   NOT NULL CHECK (kind IN ('roles', 'end_all', 'end_one', 'end_grant')),
    payload    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (subject, seq)
);
CREATE INDEX session_intents_created ON session_intents (created_at);
CREATE INDEX session_intents_pending ON session_intents (created_at) WHERE applied_at = 0;
