-- A clone that begins anew at each boot may be volatile: nothing that its machine
-- writes is waited for to be on the disk. What a layer is was decided when it was
-- made; the volume says what the next one will be.

-- +goose Up
ALTER TABLE volume ADD COLUMN volatile INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer ADD COLUMN volatile INTEGER NOT NULL DEFAULT 0;

-- How much room there was for volumes, for the forecast: a day of it, a row each
-- ten minutes.
CREATE TABLE room (
    at   INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    free INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
