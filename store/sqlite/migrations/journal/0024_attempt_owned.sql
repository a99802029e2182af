-- Whether a boot's script, by a profile for one boot only, went to an address that
-- was shown to be the machine's: what is said in its name elsewhere proves nothing.

-- +goose Up
ALTER TABLE attempt ADD COLUMN owned INTEGER NOT NULL DEFAULT 0;
