-- What attempts are searched by, in an index: a row is long, for its script, and
-- a search that finds little would read all of them. A word is looked for in one
-- text that holds every other.

-- +goose Up
ALTER TABLE attempt ADD COLUMN told TEXT NOT NULL DEFAULT '';
ALTER TABLE attempt ADD COLUMN words TEXT NOT NULL DEFAULT '';
UPDATE attempt SET told = coalesce((SELECT group_concat(json_extract(value, '$.code') || ' ' || json_extract(value, '$.title'), char(10)) FROM json_each(diagnoses)), '')
    WHERE diagnoses NOT IN ('[]', 'null');
UPDATE attempt SET words = machine_name || char(10) || coalesce(mac, '') || char(10) || replace(coalesce(mac, ''), ':', '') || char(10) || address || char(10) || firmware || ' ' || arch || char(10) || told;
CREATE INDEX attempt_list ON attempt (id, started, outcome, stage, machine_name, mac, address, firmware, arch, told, words);
