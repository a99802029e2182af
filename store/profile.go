package store

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ProfileKind says which generator makes a machine's script.
type ProfileKind string

// The kinds of profiles.
const (
	ProfileSAN     ProfileKind = "san"     // boot the machine's boot mapping over iSCSI
	ProfileInstall ProfileKind = "install" // hook the volume, then run an installer
	ProfileKernel  ProfileKind = "kernel"  // kernel and initrd over HTTP
	ProfileWimboot ProfileKind = "wimboot" // Windows setup
	ProfileMenu    ProfileKind = "menu"    // somebody at the machine chooses another profile
	ProfileLocal   ProfileKind = "local"   // leave iPXE: the machine's own disk
	ProfileCustom  ProfileKind = "custom"  // the operator's own text with {{ }} variables
)

// Installs reports whether scripts of the kind start an installer.
func (k ProfileKind) Installs() bool { return k == ProfileInstall || k == ProfileWimboot }

// ParseProfileKind reads a kind's name.
func ParseProfileKind(s string) (ProfileKind, error) {
	switch k := ProfileKind(s); k {
	case ProfileSAN, ProfileInstall, ProfileKernel, ProfileWimboot, ProfileMenu, ProfileLocal, ProfileCustom:
		return k, nil
	}
	return "", Invalid("kind", "%q is not a kind of profile; choose san, install, kernel, wimboot, menu, local or custom", s)
}

// Profile is the rule that makes a machine's boot script.
type Profile struct {
	ID       int64             `json:"id"`
	Revision int64             `json:"revision"`
	Name     string            `json:"name"`
	Kind     ProfileKind       `json:"kind"`
	Fields   map[string]string `json:"fields,omitempty"` // by kind: media, kernel, initrd, cmdline, …
	Text     string            `json:"text,omitempty"`   // custom: the script's text; install and wimboot: the answers
	BuiltIn  bool              `json:"built_in"`         // cannot be removed or changed
}

// Menu is what a profile of kind menu offers.
type Menu struct {
	Items   []MenuItem
	Default string // the profile that is started when nobody chooses
	Timeout int    // seconds until then; 0: for ever
}

// MenuItem is one profile that can be chosen.
type MenuItem struct{ Profile, Label string }

// Bounds of a menu: iPXE's screen has 25 lines.
const (
	maxMenuItems   = 20
	maxMenuTimeout = 3600
)

// Menu reads the fields of a menu: a profile a line, with a label behind "=".
func (p *Profile) Menu() (m Menu, err error) {
	for n, line := range strings.Split(p.Fields["items"], "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, label, _ := strings.Cut(line, "=")
		i := MenuItem{strings.TrimSpace(name), strings.TrimSpace(label)}
		if i.Label == "" {
			i.Label = i.Profile
		}
		if err := ValidateName("items", i.Profile); err != nil {
			return m, Invalid("items", "line %d is no profile's name, with = and a label behind it: %v", n+1, err)
		}
		if m.Offers(i.Profile) {
			return m, Invalid("items", "line %d offers %s again", n+1, i.Profile)
		}
		m.Items = append(m.Items, i)
	}
	if len(m.Items) == 0 || len(m.Items) > maxMenuItems {
		return m, Invalid("items", "a menu offers between 1 and %d profiles, one a line, not %d", maxMenuItems, len(m.Items))
	}
	if m.Default = strings.TrimSpace(p.Fields["default"]); m.Default != "" && !m.Offers(m.Default) {
		return m, Invalid("default", "the menu does not offer %s", m.Default)
	}
	if t := strings.TrimSpace(p.Fields["timeout"]); t != "" {
		if m.Timeout, err = strconv.Atoi(t); err != nil || m.Timeout < 1 || m.Timeout > maxMenuTimeout {
			return m, Invalid("timeout", "%q is no time-out; write seconds, from 1 to %d", t, maxMenuTimeout)
		}
		if m.Default == "" {
			return m, Invalid("default", "a menu with a time-out needs the profile that is started then")
		}
	}
	return m, nil
}

// Offers reports whether a profile can be chosen from the menu.
func (m Menu) Offers(profile string) bool {
	return slices.ContainsFunc(m.Items, func(i MenuItem) bool { return i.Profile == profile })
}

// Gives reports whether a boot by the profile of that name is one by this
// profile: it is the same, or its menu offers it. A menu that cannot be shown
// offers nothing.
func (p *Profile) Gives(name string) bool {
	if p.Name == name {
		return true
	}
	menu, err := p.Menu()
	return p.Kind == ProfileMenu && err == nil && menu.Offers(name)
}

// Uses reports whether the profile's scripts name a media file: as its media, or
// as the first word of a path below /files/.
func (p *Profile) Uses(media string) bool {
	names := func(word string) bool {
		first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "/files"), "/"), "/")
		return first == media
	}
	for _, text := range p.Fields {
		if slices.ContainsFunc(strings.Fields(text), names) {
			return true
		}
	}
	for _, text := range append(slices.Collect(maps.Values(p.Fields)), p.Text) {
		for _, rest := range strings.Split(text, "/files/")[1:] {
			end := strings.IndexFunc(rest, func(r rune) bool {
				return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
			})
			if end < 0 {
				end = len(rest)
			}
			if strings.TrimRight(rest[:end], ".") == media {
				return true
			}
		}
	}
	return false
}

// maxProfileText bounds a custom script; iPXE 2019 holds scripts in RAM.
const maxProfileText = 64 << 10

// Validate checks the profile's own fields; scripts checks that it renders.
func (p *Profile) Validate() error {
	var errs []error
	errs = append(errs, ValidateName("name", p.Name))
	if _, err := ParseProfileKind(string(p.Kind)); err != nil {
		errs = append(errs, err)
	}
	if p.Kind == ProfileCustom && p.Text == "" {
		errs = append(errs, Invalid("text", "a custom profile needs its script's text"))
	}
	errs = append(errs, validateText("text", p.Text, maxProfileText))
	return joinFields(errs...)
}
