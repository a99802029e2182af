-- Whether an initiator may wipe the volume with SANITIZE.

-- +goose Up
ALTER TABLE volume ADD COLUMN sanitize INTEGER NOT NULL DEFAULT 0;
