-- Loaders that the operator supplied, a machine's own choice of one, and what
-- was learnt of loaders on which hardware.

-- +goose Up
ALTER TABLE machine ADD COLUMN loader TEXT NOT NULL DEFAULT '';

CREATE TABLE loader (
    chain    TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    role     TEXT    NOT NULL,
    firmware TEXT    NOT NULL,
    arch     TEXT    NOT NULL,
    version  TEXT    NOT NULL,
    features TEXT    NOT NULL,
    opaque   INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    sha256   TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    PRIMARY KEY (chain, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE loader_trial (
    key     TEXT    NOT NULL,
    loader  TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    times   INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    PRIMARY KEY (key, loader)
) STRICT, WITHOUT ROWID;
CREATE INDEX loader_trial_last ON loader_trial (last);
