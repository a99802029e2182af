-- Requests of the API that were done under a key of whoever asked, so that one that
-- is sent again is not done again, also after a restart. Only hashes are kept, and
-- what was done: an answer may hold a secret.

-- +goose Up
CREATE TABLE repeat (
    id      BLOB    PRIMARY KEY, -- of who asked, and the key
    who     BLOB    NOT NULL,
    request BLOB    NOT NULL,
    did     TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX repeat_who ON repeat (who, at);
CREATE INDEX repeat_at ON repeat (at);
