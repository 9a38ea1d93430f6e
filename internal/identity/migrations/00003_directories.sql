-- +goose Up
-- Whose password a directory keeps: which directory, under which permanent name it knows the person, what the person last typed to
-- sign in, and when the directory was last asked. Such an account has no password here.
ALTER TABLE accounts ADD COLUMN directory TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN directory_subject TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN directory_login TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN directory_checked_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX accounts_to_check ON accounts (directory_checked_at) WHERE directory <> '';
CREATE UNIQUE INDEX accounts_of_directories ON accounts (directory, directory_subject) WHERE directory <> '';
