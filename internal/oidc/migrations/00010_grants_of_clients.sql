-- +goose Up
-- Which grants a client has: a removed one is remembered until the last of them is over.
CREATE INDEX oauth_grants_client ON oauth_grants (client_id);
