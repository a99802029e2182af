-- Whether a device is used past the page cache.

-- +goose Up
ALTER TABLE volume ADD COLUMN direct INTEGER NOT NULL DEFAULT 0;
