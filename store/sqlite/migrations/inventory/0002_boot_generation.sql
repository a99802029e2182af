-- A boot is armed when a machine is given a script that boots its volume, and
-- fires when the firmware's initiator then logs in.

-- +goose Up
ALTER TABLE machine ADD COLUMN boot_armed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machine ADD COLUMN boot_fired INTEGER NOT NULL DEFAULT 0;
