-- +goose Up

-- The claims that were asked for by name at the userinfo endpoint (JSON), '' for none.
ALTER TABLE oauth_grants ADD COLUMN claims TEXT NOT NULL DEFAULT '';
