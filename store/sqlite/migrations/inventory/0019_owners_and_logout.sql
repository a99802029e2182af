-- A token belongs to the person who made it, and may do no more than they may now.
-- Those that were made at the appliance's own socket, or by a token of nobody's,
-- belong to nobody. A person is known by name and by when they were added: who is
-- added later under a name that was given up is somebody else.

-- +goose Up
ALTER TABLE token ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE token ADD COLUMN owner_since INTEGER NOT NULL DEFAULT 0;

-- Who made the tokens that there are is in the audit log; people's names have no
-- spaces, what else makes tokens has one in its name. Whose maker is not there any
-- more has an owner since never, who is nobody.
UPDATE token SET owner = coalesce((SELECT actor FROM audit WHERE action = 'token.create' AND subject = token.name ORDER BY id DESC LIMIT 1), '');
UPDATE token SET owner = '' WHERE instr(owner, ' ') > 0 OR owner IN ('system', 'flag', 'auto-enroll');
UPDATE token SET owner_since = coalesce((SELECT user.created FROM user WHERE user.name = token.owner AND user.created <= token.created), 0) WHERE owner <> '';

-- To whom the provider's last word gave no role: they come in again when it gives
-- one.
ALTER TABLE user ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;

-- Whether logging out here ends the person's session at the provider too.
ALTER TABLE oidc ADD COLUMN logout INTEGER NOT NULL DEFAULT 0;
