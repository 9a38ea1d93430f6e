-- +goose Up

-- One row per person. It is locked first by whatever changes a person's sessions, so that those changes queue. roles is NULL
-- until somebody says them; epoch never falls while a token that carries it can live.
CREATE TABLE session_subjects (
    subject  TEXT   NOT NULL PRIMARY KEY,
    routing  TEXT   NOT NULL,
    epoch    BIGINT NOT NULL,
    roles    TEXT,
    purge_at BIGINT NOT NULL
);
CREATE INDEX session_subjects_purge ON session_subjects (purge_at);

-- Somebody signed in on a device. cookie_hash is NULL and idle_expires_at 0 when our own pages have no part in it: then the
-- session lives as long as its grants. ended_at is 0 while it has not been ended.
CREATE TABLE sessions (
    id              TEXT   NOT NULL PRIMARY KEY,
    subject         TEXT   NOT NULL REFERENCES session_subjects (subject),
    label           TEXT   NOT NULL,
    user_agent      TEXT   NOT NULL,
    address         TEXT   NOT NULL,
    amr             TEXT   NOT NULL,
    acr             TEXT   NOT NULL,
    auth_time       BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    last_used_at    BIGINT NOT NULL,
    cookie_hash     BYTEA,
    idle_expires_at BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    ended_at        BIGINT NOT NULL,
    end_reason      TEXT   NOT NULL,
    purge_at        BIGINT NOT NULL
);
CREATE INDEX sessions_subject ON sessions (subject);
CREATE INDEX sessions_purge ON sessions (purge_at);

-- A client's refresh family. status is theft from the moment a stolen token shows until the consequences have been drawn.
-- outcome is what came of the last token presented; it is written so that RETURNING can tell. A refresh changes no indexed
-- column, except purge_at once a day.
CREATE TABLE session_grants (
    id               TEXT   NOT NULL PRIMARY KEY,
    session_id       TEXT   NOT NULL REFERENCES sessions (id),
    subject          TEXT   NOT NULL,
    client_id        TEXT   NOT NULL,
    scope            TEXT   NOT NULL,
    audience         TEXT   NOT NULL,
    roles            TEXT   NOT NULL,
    epoch            BIGINT NOT NULL,
    auth_time        BIGINT NOT NULL,
    acr              TEXT   NOT NULL,
    amr              TEXT   NOT NULL,
    generation       BIGINT NOT NULL,
    current_hash     BYTEA  NOT NULL,
    previous_hash    BYTEA,
    successor_sealed BYTEA,
    window_until     BIGINT NOT NULL,
    idle_expires_at  BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    refreshed_at     BIGINT NOT NULL,
    address          TEXT   NOT NULL,
    user_agent       TEXT   NOT NULL,
    status           TEXT   NOT NULL CHECK (status IN ('live', 'theft', 'ended')),
    end_reason       TEXT   NOT NULL,
    ended_at         BIGINT NOT NULL,
    outcome          TEXT   NOT NULL,
    purge_at         BIGINT NOT NULL
);
CREATE INDEX session_grants_session ON session_grants (session_id);
CREATE INDEX session_grants_purge ON session_grants (purge_at);
CREATE INDEX session_grants_theft ON session_grants (id) WHERE status = 'theft';

-- The feed. Its one counter is raised by the transaction that writes the entries: the row lock makes the order of commits the
-- order of numbers, without gaps.
CREATE TABLE revocation_feed (
    id  BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL
);
INSERT INTO revocation_feed (id, seq) VALUES (1, 0);

CREATE TABLE revocations (
    seq        BIGINT NOT NULL PRIMARY KEY,
    kind       TEXT   NOT NULL,
    hash       BYTEA  NOT NULL,
    epoch      BIGINT NOT NULL,
    keep_until BIGINT NOT NULL
);
