-- A boot that has fired owes its machine's volumes a new beginning: set in the
-- transaction of the boot, cleared in that of the new layer. A crash between
-- the two, or a full disk, forgets nothing and does nothing twice.

-- +goose Up
ALTER TABLE volume ADD COLUMN reset_due INTEGER NOT NULL DEFAULT 0;
