package store

import (
	"maps"
	"slices"
	"strings"
)

// ProfileKind says which generator makes a machine's script.
type ProfileKind string

// The kinds of profiles.
const (
	ProfileSAN     ProfileKind = "san"     // boot the machine's boot mapping over iSCSI
	ProfileInstall ProfileKind = "install" // hook the volume, then run an installer
	ProfileKernel  ProfileKind = "kernel"  // kernel and initrd over HTTP
	ProfileMenu    ProfileKind = "menu"
	ProfileLocal   ProfileKind = "local"  // leave iPXE: the machine's own disk
	ProfileCustom  ProfileKind = "custom" // the operator's own text with {{ }} variables
)

// ParseProfileKind reads a kind's name.
func ParseProfileKind(s string) (ProfileKind, error) {
	switch k := ProfileKind(s); k {
	case ProfileSAN, ProfileInstall, ProfileKernel, ProfileMenu, ProfileLocal, ProfileCustom:
		return k, nil
	}
	return "", Invalid("kind", "%q is not a kind of profile; choose san, kernel, local or custom", s)
}

// Profile is the rule that makes a machine's boot script.
type Profile struct {
	ID       int64             `json:"id"`
	Revision int64             `json:"revision"`
	Name     string            `json:"name"`
	Kind     ProfileKind       `json:"kind"`
	Fields   map[string]string `json:"fields,omitempty"` // by kind: kernel, initrd, cmdline
	Text     string            `json:"text,omitempty"`   // custom: the script's text
	BuiltIn  bool              `json:"built_in"`         // cannot be removed or changed
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
