-- What attempts are searched by, in an index: a row is long, for its script, and
-- a search that finds little would read all of them.

-- +goose Up
ALTER TABLE attempt ADD COLUMN told TEXT NOT NULL DEFAULT '';
UPDATE attempt SET told = coalesce((SELECT group_concat(json_extract(value, '$.code') || ' ' || json_extract(value, '$.title'), char(10)) FROM json_each(diagnoses)), '')
    WHERE diagnoses NOT IN ('[]', 'null');
CREATE INDEX attempt_list ON attempt (id, started, outcome, stage, machine_name, mac, address, firmware, arch, told);
