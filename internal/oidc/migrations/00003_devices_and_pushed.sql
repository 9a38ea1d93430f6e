-- +goose Up

-- A request that a client has left here before it sends the person (RFC 9126). hash is that of the reference.
CREATE TABLE oauth_requests (
    hash       BYTEA  NOT NULL PRIMARY KEY,
    client_id  TEXT   NOT NULL,
    params     TEXT   NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_requests_expires ON oauth_requests (expires_at);

-- A device that waits for its person to agree elsewhere (RFC 8628). hash is that of the device code. The one who polls learns what has
-- become of it; approved becomes consumed in one statement.
CREATE TABLE oauth_devices (
    hash       BYTEA  NOT NULL PRIMARY KEY,
    user_code  TEXT   NOT NULL UNIQUE,
    client_id  TEXT   NOT NULL,
    request    TEXT   NOT NULL,
    status     TEXT   NOT NULL CHECK (status IN ('pending', 'approved', 'denied', 'consumed')),
    subject    TEXT   NOT NULL,
    session_id TEXT   NOT NULL,
    early      BIGINT NOT NULL DEFAULT 0,
    pause      BIGINT NOT NULL,
    poll_at    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX oauth_devices_expires ON oauth_devices (expires_at);
