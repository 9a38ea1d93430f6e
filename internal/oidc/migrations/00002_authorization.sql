-- +goose Up

-- What a person has agreed to give a client, until they take it back. scope is all of it, space-separated.
CREATE TABLE oauth_consents (
    subject    TEXT   NOT NULL,
    client_id  TEXT   NOT NULL,
    scope      TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    used_at    BIGINT NOT NULL,
    PRIMARY KEY (subject, client_id)
);
CREATE INDEX oauth_consents_used ON oauth_consents (used_at);

-- An authorization code, of which the hash is kept. challenge is that of PKCE, '' without. The row stays for a while after its code
-- was used, so that a second use is noticed and what the first one gave is taken back: grant_id and grant_session name that.
CREATE TABLE oauth_codes (
    hash          BYTEA  NOT NULL PRIMARY KEY,
    client_id     TEXT   NOT NULL,
    redirect_uri  TEXT   NOT NULL,
    challenge     TEXT   NOT NULL,
    subject       TEXT   NOT NULL,
    session_id    TEXT   NOT NULL,
    request       TEXT   NOT NULL,
    expires_at    BIGINT NOT NULL,
    consumed_at   BIGINT NOT NULL,
    grant_id      TEXT   NOT NULL,
    grant_session TEXT   NOT NULL
);
CREATE INDEX oauth_codes_expires ON oauth_codes (expires_at);

-- A grant that was given, for whoever has to find it by client, person or session: logout tells clients, a person takes back what they
-- allowed. own says that the grant has a session to itself (offline_access). session_hash is that of the revocation feed.
CREATE TABLE oauth_grants (
    id           TEXT   NOT NULL PRIMARY KEY,
    client_id    TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    session_id   TEXT   NOT NULL,
    session_hash BYTEA  NOT NULL,
    own          BIGINT NOT NULL,
    scope        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ended_at     BIGINT NOT NULL,
    notify_at    BIGINT NOT NULL,
    attempts     BIGINT NOT NULL
);
CREATE INDEX oauth_grants_session ON oauth_grants (session_hash);
CREATE INDEX oauth_grants_subject ON oauth_grants (subject, client_id);
CREATE INDEX oauth_grants_expires ON oauth_grants (expires_at);
CREATE INDEX oauth_grants_notify ON oauth_grants (notify_at) WHERE notify_at > 0;
