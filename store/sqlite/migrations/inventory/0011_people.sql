-- People with roles, and what each change was before and after. Whoever could
-- log in before could do everything.

-- +goose Up
ALTER TABLE user ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE user ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE user ADD COLUMN last_login INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN changes TEXT NOT NULL DEFAULT '[]';
CREATE INDEX audit_actor ON audit (actor);
CREATE INDEX audit_subject ON audit (subject);
