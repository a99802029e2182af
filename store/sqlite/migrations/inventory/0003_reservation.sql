-- What initiators asked to keep through a power loss (APTPL): one state for each
-- volume, as JSON, since it is only read and written whole.

-- +goose Up
CREATE TABLE reservation (
    volume INTEGER PRIMARY KEY REFERENCES volume (id) ON DELETE CASCADE,
    state  TEXT    NOT NULL
) STRICT;
