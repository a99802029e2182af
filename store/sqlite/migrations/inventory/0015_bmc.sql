-- The controller of a machine that works while the machine is off. Its secret is
-- kept as the CHAP secrets are: in this file, whose mode is 0600, and nowhere else.

-- +goose Up
ALTER TABLE machine ADD COLUMN bmc_protocol TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN bmc_address TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN bmc_user TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN bmc_secret TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN bmc_trust TEXT NOT NULL DEFAULT '';
ALTER TABLE machine ADD COLUMN bmc_fingerprint TEXT NOT NULL DEFAULT '';
