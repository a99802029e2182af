package pages

import "strings"

// deed is what somebody did, as the audit log calls it and in words: what it was done
// to stands right behind them.
type deed struct{ Action, Words string }

// deedNouns are the kinds of things of which the audit log tells, by what its actions
// begin with, in the order in which the filter offers them.
func deedNouns() []deed {
	return []deed{
		{"machine", "machines"}, {"mapping", "LUN mappings"},
		{"volume", "volumes"}, {"snapshot", "snapshots"}, {"version", "versions of golden volumes"},
		{"profile", "profiles"}, {"media", "media"}, {"loader", "loaders"},
		{"session", "sessions"}, {"lease", "leases"}, {"subnet", "subnets"}, {"setting", "settings"},
		{"user", "people"}, {"oidc", "single sign-on"}, {"token", "tokens"},
		{"backup", "backups"}, {"support", "support bundles"},
	}
}

func deeds() []deed {
	return []deed{
		{"machine.create", "Added the machine"},
		{"machine.update", "Changed the machine"},
		{"machine.delete", "Removed the machine"},
		{"machine.once", "Used up the next-boot profile of"},
		{"machine.ignore", "Ignored the unknown machine"},
		{"machine.unignore", "No longer ignored the unknown machine"},
		{"machine.wake", "Woke"},
		{"machine.power", "Switched the power of"},
		{"mapping.create", "Mapped a volume to"},
		{"mapping.update", "Changed a LUN of"},
		{"mapping.delete", "Unmapped a volume from"},
		{"volume.create", "Made the volume"},
		{"volume.update", "Changed the volume"},
		{"volume.delete", "Deleted the volume"},
		{"volume.freeze", "Made golden the volume"},
		{"volume.snapshot", "Took a snapshot of"},
		{"volume.rollback", "Rolled back the volume"},
		{"volume.reset", "Began anew the volume"},
		{"volume.flatten", "Flattened the volume"},
		{"volume.merge", "Merged layers of the volume"},
		{"volume.promote", "Added a version to"},
		{"snapshot.delete", "Removed a snapshot of"},
		{"version.current", "Chose another version of"},
		{"version.note", "Changed the note of a version of"},
		{"version.delete", "Removed a version of"},
		{"profile.put", "Saved the profile"},
		{"profile.delete", "Removed the profile"},
		{"media.create", "Added the media"},
		{"media.delete", "Removed the media"},
		{"loader.put", "Saved the loader"},
		{"loader.delete", "Removed the loader"},
		{"session.drop", "Dropped the session"},
		{"lease.drop", "Dropped the lease of"},
		{"lease.move", "Moved a lease to"},
		{"subnet.put", "Saved the subnet"},
		{"subnet.delete", "Removed the subnet"},
		{"setting.put", "Changed the setting"},
		{"user.create", "Added the user"},
		{"user.update", "Changed the user"},
		{"user.delete", "Removed the user"},
		{"user.login", "Logged in as"},
		{"user.logout", "Logged out"},
		{"user.refuse", "Refused"},
		{"oidc.update", "Changed the single sign-on"},
		{"oidc.delete", "Removed the single sign-on"},
		{"token.create", "Made the token"},
		{"token.delete", "Removed the token"},
		{"backup.create", "Wrote the backup"},
		{"support.create", "Made a"},
	}
}

// deedWords says what was done. What an appliance of another version wrote, which has
// no words here, is told by its code.
func deedWords(action string) string {
	for _, d := range deeds() {
		if d.Action == action {
			return d.Words
		}
	}
	noun, verb, _ := strings.Cut(action, ".")
	return upperFirst(strings.TrimSpace(noun + " " + verb))
}
