-- What a machine's boot volume held when it was first given an installer that was
-- chosen for one boot only: digests of what each firmware would have run, empty when
-- nothing. When the machine comes back and they differ, something was installed. The
-- row goes with the choice, however that ends.

-- +goose Up
CREATE TABLE baseline (
    machine INTEGER PRIMARY KEY REFERENCES machine (id) ON DELETE CASCADE,
    volume  INTEGER NOT NULL REFERENCES volume (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL, -- that the installer was given to first
    bios    TEXT    NOT NULL,
    uefi    TEXT    NOT NULL
) STRICT;
CREATE INDEX baseline_volume ON baseline (volume);
-- +goose StatementBegin
CREATE TRIGGER baseline_goes AFTER UPDATE OF once_profile ON machine WHEN OLD.once_profile IS NOT NEW.once_profile BEGIN
    DELETE FROM baseline WHERE machine = NEW.id;
END;
-- +goose StatementEnd
