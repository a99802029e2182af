-- When the profile for one boot only was chosen: a boot that was given its script
-- before that uses nothing up. 0 for those of before.

-- +goose Up
ALTER TABLE machine ADD COLUMN once_chosen INTEGER NOT NULL DEFAULT 0;
-- +goose StatementBegin
CREATE TRIGGER once_is_chosen AFTER UPDATE OF once_profile ON machine WHEN OLD.once_profile IS NOT NEW.once_profile BEGIN
    UPDATE machine SET once_chosen = NEW.updated WHERE id = NEW.id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER once_came_chosen AFTER INSERT ON machine WHEN NEW.once_profile IS NOT NULL BEGIN
    UPDATE machine SET once_chosen = NEW.updated WHERE id = NEW.id;
END;
-- +goose StatementEnd
