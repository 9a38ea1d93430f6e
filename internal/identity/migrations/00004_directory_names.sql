-- +goose Up
-- Who last signed in to a directory under a name: asked at every sign-in with such a name.
CREATE INDEX accounts_by_directory_name ON accounts (directory, directory_login) WHERE directory <> '';
