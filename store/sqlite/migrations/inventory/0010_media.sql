-- Media: discs, kernels and other files that are kept on the appliance. The
-- bytes lie in the data folder under their hash.

-- +goose Up
CREATE TABLE media (
    name     TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    sha256   TEXT    NOT NULL,
    file     TEXT    NOT NULL,
    contents TEXT    NOT NULL,
    created  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
