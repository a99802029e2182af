-- People may sign in through an OpenID Connect provider. Who does is known by the
-- provider's name of itself and its name for them, which never changes (OpenID
-- Connect Core 1.0 §5.7), and has no password. The client's secret is kept as the
-- CHAP secrets are: in this file, whose mode is 0600, and nowhere else.

-- +goose Up
ALTER TABLE user ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE user ADD COLUMN subject TEXT NOT NULL DEFAULT '';
ALTER TABLE user ADD COLUMN known_as TEXT NOT NULL DEFAULT '';
ALTER TABLE user ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX user_identity ON user (issuer, subject) WHERE subject <> '';

-- One row: an empty issuer is nobody.
CREATE TABLE oidc (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    revision     INTEGER NOT NULL,
    issuer       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    client_id    TEXT    NOT NULL,
    secret       TEXT    NOT NULL,
    url          TEXT    NOT NULL,
    ca           TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    claim        TEXT    NOT NULL,
    roles        TEXT    NOT NULL,
    default_role TEXT    NOT NULL
) STRICT;
INSERT INTO oidc VALUES (1, 1, '', '', '', '', '', '', '[]', '', '[]', '');
