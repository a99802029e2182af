-- What became of each machine of a job on many, as JSON; empty for other jobs.

-- +goose Up
ALTER TABLE job ADD COLUMN verdicts TEXT NOT NULL DEFAULT '';
