-- The network card of an unknown machine, as iPXE knows it.

-- +goose Up
ALTER TABLE unknown_machine ADD COLUMN nic TEXT NOT NULL DEFAULT '';
ALTER TABLE unknown_machine ADD COLUMN chip TEXT NOT NULL DEFAULT '';
