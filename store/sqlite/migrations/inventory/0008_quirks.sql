-- What a machine's firmware needs in its boot answers: a JSON list.

-- +goose Up
ALTER TABLE machine ADD COLUMN quirks TEXT NOT NULL DEFAULT '[]';
