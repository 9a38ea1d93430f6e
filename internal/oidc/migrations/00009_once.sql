-- +goose Up

-- The grant that a device code gave, '' before: a code that comes again takes it back.
ALTER TABLE oauth_devices ADD COLUMN grant_id TEXT NOT NULL DEFAULT '';
