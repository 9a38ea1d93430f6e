-- +goose Up

-- The key whose proof a grant's refreshes need (RFC 9449), by its thumbprint; '' for none.
ALTER TABLE session_grants ADD COLUMN thumbprint TEXT NOT NULL DEFAULT '';
