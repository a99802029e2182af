-- Logouts that the provider told of, by a hash of its name and the token's (jti), for
-- as long as the token is good: told again after a restart, it ends nothing.

-- +goose Up
CREATE TABLE logout (
    id    BLOB    PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT;
CREATE INDEX logout_until ON logout (until);
