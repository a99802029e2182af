-- A SANITIZE that an initiator began and that has not come to its end, as JSON: a
-- restart goes on with it, and one that failed stays failed.

-- +goose Up
CREATE TABLE wipe (
    volume INTEGER PRIMARY KEY REFERENCES volume (id) ON DELETE CASCADE,
    state  TEXT    NOT NULL
) STRICT;
