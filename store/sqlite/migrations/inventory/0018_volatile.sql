-- A clone that begins anew at each boot may be volatile: nothing that its machine
-- writes is waited for to be on the disk. What a layer is was decided when it was
-- made; the volume says what the next one will be.

-- +goose Up
ALTER TABLE volume ADD COLUMN volatile INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer ADD COLUMN volatile INTEGER NOT NULL DEFAULT 0;
