-- A volume's bytes lie in layers: one, until a clone or a snapshot puts another
-- upon it. What nothing names any more, no volume as its top, no snapshot, no
-- version and no layer above, is a file to be removed.

-- +goose Up
CREATE TABLE layer (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid    TEXT    NOT NULL UNIQUE,
    volume  INTEGER NOT NULL REFERENCES volume (id),
    kind    TEXT    NOT NULL,
    path    TEXT    NOT NULL UNIQUE,
    below   INTEGER REFERENCES layer (id),
    size    INTEGER NOT NULL,
    frozen  INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX layer_volume ON layer (volume);
CREATE INDEX layer_below ON layer (below) WHERE below IS NOT NULL;

CREATE TABLE snapshot (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    volume  INTEGER NOT NULL REFERENCES volume (id),
    name    TEXT    NOT NULL,
    layer   INTEGER NOT NULL REFERENCES layer (id),
    note    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    UNIQUE (volume, name)
) STRICT;
CREATE INDEX snapshot_layer ON snapshot (layer);

CREATE TABLE volume_version (
    volume  INTEGER NOT NULL REFERENCES volume (id),
    number  INTEGER NOT NULL,
    layer   INTEGER NOT NULL REFERENCES layer (id),
    note    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (volume, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX volume_version_layer ON volume_version (layer);

ALTER TABLE volume ADD COLUMN top INTEGER REFERENCES layer (id);
ALTER TABLE volume ADD COLUMN golden INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volume ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
CREATE INDEX volume_top ON volume (top);

-- A volume without a file had none to lose; it gets the name of one.
INSERT INTO layer (uuid, volume, kind, path, below, size, frozen, created)
    SELECT uuid, id, kind, CASE path WHEN '' THEN name || '-' || substr(uuid, 1, 8) || '.raw' ELSE path END, NULL, size, 0, created
    FROM volume WHERE kind IN ('raw', 'device');
UPDATE volume SET top = (SELECT layer.id FROM layer WHERE layer.volume = volume.id);

DROP INDEX volume_path;
ALTER TABLE volume DROP COLUMN path;
