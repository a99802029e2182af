-- The inventory: what the operator decided, and the leases.
-- Times are nanoseconds since 1970 in UTC, 0 is never. AUTOINCREMENT, since an
-- id identifies its noun for good and is never given twice.

-- +goose Up
CREATE TABLE profile (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    revision INTEGER NOT NULL,
    name     TEXT    NOT NULL UNIQUE,
    kind     TEXT    NOT NULL,
    fields   TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    built_in INTEGER NOT NULL
) STRICT;

INSERT INTO profile (revision, name, kind, fields, text, built_in) VALUES
    (1, 'san',   'san',   '{}', '', 1),
    (1, 'local', 'local', '{}', '', 1);

CREATE TABLE machine (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    revision       INTEGER NOT NULL,
    name           TEXT    NOT NULL UNIQUE,
    uuid           TEXT    UNIQUE,
    serial         TEXT    NOT NULL,
    asset_tag      TEXT    NOT NULL,
    initiator      TEXT    NOT NULL UNIQUE,
    auth           TEXT    NOT NULL,
    chap_user      TEXT    NOT NULL,
    chap_secret    TEXT    NOT NULL,
    reverse_user   TEXT    NOT NULL,
    reverse_secret TEXT    NOT NULL,
    pinned         INTEGER NOT NULL,
    address        TEXT    UNIQUE,
    profile        TEXT    NOT NULL REFERENCES profile (name),
    once_profile   TEXT    REFERENCES profile (name),
    tags           TEXT    NOT NULL,
    notes          TEXT    NOT NULL,
    firmware       TEXT    NOT NULL,
    arch           TEXT    NOT NULL,
    last_seen      INTEGER NOT NULL,
    created        INTEGER NOT NULL,
    updated        INTEGER NOT NULL
) STRICT;
CREATE INDEX machine_serial ON machine (serial) WHERE serial <> '';
CREATE INDEX machine_asset_tag ON machine (asset_tag) WHERE asset_tag <> '';
CREATE INDEX machine_profile ON machine (profile);
CREATE INDEX machine_once_profile ON machine (once_profile) WHERE once_profile IS NOT NULL;

CREATE TABLE machine_mac (
    mac      TEXT    PRIMARY KEY,
    machine  INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX machine_mac_machine ON machine_mac (machine, position);

CREATE TABLE unknown_machine (
    mac        TEXT    PRIMARY KEY,
    uuid       TEXT,
    hostname   TEXT    NOT NULL,
    vendor     TEXT    NOT NULL,
    firmware   TEXT    NOT NULL,
    arch       TEXT    NOT NULL,
    address    TEXT,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    ignored    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unknown_machine_age ON unknown_machine (ignored, last_seen);

CREATE TABLE volume (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    revision     INTEGER NOT NULL,
    name         TEXT    NOT NULL UNIQUE,
    uuid         TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    block_size   INTEGER NOT NULL,
    parent       INTEGER REFERENCES volume (id),
    read_only    INTEGER NOT NULL,
    shared       INTEGER NOT NULL,
    reset        INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    progress     INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    path         TEXT    NOT NULL,
    created_from TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL
) STRICT;
CREATE INDEX volume_parent ON volume (parent) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX volume_path ON volume (path) WHERE path <> '';

CREATE TABLE mapping (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    revision  INTEGER NOT NULL,
    machine   INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
    volume    INTEGER NOT NULL REFERENCES volume (id),
    lun       INTEGER NOT NULL CHECK (lun BETWEEN 0 AND 16383),
    read_only INTEGER NOT NULL,
    boot      INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    UNIQUE (machine, lun)
) STRICT;
CREATE INDEX mapping_volume ON mapping (volume);
CREATE UNIQUE INDEX mapping_boot ON mapping (machine) WHERE boot = 1;

CREATE TABLE subnet (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    revision   INTEGER NOT NULL,
    interface  TEXT    NOT NULL,
    prefix     TEXT    NOT NULL,
    mode       TEXT    NOT NULL,
    range      TEXT    NOT NULL,
    router     TEXT,
    dns        TEXT    NOT NULL,
    domain     TEXT    NOT NULL,
    lease_time INTEGER NOT NULL,
    UNIQUE (interface, prefix)
) STRICT;

-- A lease names its machine without a foreign key: a machine that is removed
-- while it asks for an address must not cost the answer.
CREATE TABLE lease (
    address   TEXT    PRIMARY KEY,
    mac       TEXT    NOT NULL,
    client_id TEXT    NOT NULL,
    hostname  TEXT    NOT NULL,
    machine   INTEGER NOT NULL,
    interface TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    expires   INTEGER NOT NULL,
    updated   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_mac ON lease (mac);

CREATE TABLE setting (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    done     INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    error    TEXT    NOT NULL,
    started  INTEGER NOT NULL,
    finished INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    detail  TEXT    NOT NULL
) STRICT;

CREATE TABLE user (
    name    TEXT    PRIMARY KEY,
    hash    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name      TEXT    NOT NULL UNIQUE,
    hash      TEXT    NOT NULL UNIQUE,
    scope     TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) STRICT;

CREATE TABLE web_session (
    token   TEXT    PRIMARY KEY,
    data    BLOB    NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX web_session_expires ON web_session (expires);
