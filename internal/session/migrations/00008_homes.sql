-- +goose Up

-- home says which store owns a person's sessions: 'sql' or 'redis'; '' while nobody has said, which means the configured one.
-- ended_seq is seq as it was raised when all sessions last ended: a sign-in that was decided before is overtaken.
ALTER TABLE session_subjects ADD COLUMN home TEXT NOT NULL DEFAULT '';
ALTER TABLE session_subjects ADD COLUMN ended_seq BIGINT NOT NULL DEFAULT 0;
UPDATE session_subjects SET home = 'sql' WHERE subject IN (SELECT subject FROM sessions);
CREATE INDEX session_subjects_home ON session_subjects (home, subject);
CREATE UNIQUE INDEX session_subjects_routing ON session_subjects (routing);

-- A person whose sessions are on their way between two stores, with what is being carried. number is seq as the departure
-- raised it. Who has arrived is under way no more; there is something to clear away where they came from.
CREATE TABLE session_transits (
    subject    TEXT   NOT NULL PRIMARY KEY,
    number     BIGINT NOT NULL,
    target     TEXT   NOT NULL CHECK (target IN ('sql', 'redis')),
    payload    BYTEA,
    arrived    BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The latest move, in one row: where people belong (NULL before the first), and what has been moved by whichever process.
-- installation is the name under which servers of this database make themselves known in Redis.
CREATE TABLE session_moves (
    id           BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    installation TEXT   NOT NULL,
    target       TEXT   CHECK (target IN ('sql', 'redis')),
    started_at   BIGINT NOT NULL,
    finished_at  BIGINT NOT NULL,
    people       BIGINT NOT NULL,
    sessions     BIGINT NOT NULL,
    skipped      BIGINT NOT NULL
);
INSERT INTO session_moves (id, installation, target, started_at, finished_at, people, sessions, skipped)
    VALUES (1, '', NULL, 0, 0, 0, 0, 0);
