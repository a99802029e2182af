-- Time servers, search list and next server of a subnet; where machines are
-- plugged in, as their switch or relay says in option 82.

-- +goose Up
ALTER TABLE subnet ADD COLUMN ntp TEXT NOT NULL DEFAULT '[]';
ALTER TABLE subnet ADD COLUMN search TEXT NOT NULL DEFAULT '[]';
ALTER TABLE subnet ADD COLUMN next_server TEXT;
ALTER TABLE lease ADD COLUMN relay TEXT;
ALTER TABLE lease ADD COLUMN port TEXT NOT NULL DEFAULT '';
ALTER TABLE lease ADD COLUMN port_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machine ADD COLUMN port TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN port_seen INTEGER NOT NULL DEFAULT 0;
ALTER TABLE unknown_machine ADD COLUMN port TEXT NOT NULL DEFAULT '';
ALTER TABLE unknown_machine ADD COLUMN port_seen INTEGER NOT NULL DEFAULT 0;
