-- The journal: what happened, and the attempts that are folded from it.

-- +goose Up
CREATE TABLE event (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    mac     TEXT,
    addr    TEXT,
    machine INTEGER,
    attempt INTEGER,
    detail  TEXT    NOT NULL
) STRICT;
CREATE INDEX event_machine ON event (machine, seq) WHERE machine IS NOT NULL;
CREATE INDEX event_mac ON event (mac, seq) WHERE mac IS NOT NULL;
CREATE INDEX event_attempt ON event (attempt, seq) WHERE attempt IS NOT NULL;

CREATE TABLE attempt (
    id           INTEGER PRIMARY KEY,
    machine      INTEGER,
    machine_name TEXT    NOT NULL,
    mac          TEXT,
    key          TEXT    NOT NULL,
    started      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    outcome      TEXT    NOT NULL,
    stage        TEXT    NOT NULL,
    stages       TEXT    NOT NULL,
    diagnoses    TEXT    NOT NULL,
    firmware     TEXT    NOT NULL,
    arch         TEXT    NOT NULL,
    address      TEXT    NOT NULL,
    script       TEXT    NOT NULL,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL
) STRICT;
CREATE INDEX attempt_machine ON attempt (machine, id) WHERE machine IS NOT NULL;
CREATE INDEX attempt_mac ON attempt (mac, id) WHERE mac IS NOT NULL;
