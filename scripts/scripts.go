// Package scripts makes the text that a machine's iPXE runs: a profile and the
// machine's facts go in, plain iPXE that a person can read comes out.
//
// It is pure: it knows no clock, socket or table. What it writes runs on an
// iPXE of 2019 (Debian's package), so it uses no poweroff, param, nslookup,
// console or ping. iPXE has no quoting: it splits a line at white space and then
// expands ${...}, so everything that comes from outside goes through Text or
// Word.
package scripts

import (
	"embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/template"

	"lunboot/services/boot"
	"lunboot/store"
)

//go:embed ipxe/*.tmpl
var files embed.FS

var templates = template.Must(template.ParseFS(files, "ipxe/*.tmpl"))

// Disk is one mapping of a machine.
type Disk struct {
	LUN    store.LUN
	Volume string // its name
}

// Facts are what a script may say of one machine and of the appliance.
type Facts struct {
	Machine   string // name
	MAC       store.MAC
	UUID      store.UUID
	Serial    string
	Asset     string
	Initiator store.IQN
	Auth      store.AuthMode
	CHAP      store.Credential
	Reverse   store.Credential

	Target store.IQN
	Portal netip.AddrPort // of the iSCSI target, as the machine reaches it
	Boot   netip.AddrPort // of the boot HTTP listener, as the machine reaches it
	Admin  string         // URL that people open

	Disk   *Disk // the boot mapping; nil when there is none
	Others []Disk
	Media  []store.Media // those that are kept

	Attempt store.AttemptID // zero: failures are not reported
	Key     string

	Platform string // what iPXE says: "pcbios" or "efi"
	Address  netip.Addr
}

// fill is what the templates see.
type fill struct {
	Machine, Volume, Portal, URI string
	LUN                          store.LUN
	Others                       []Disk
	Profile, Text                string

	Initiator                                string
	CHAP, Mutual                             bool
	User, Secret, ReverseUser, ReverseSecret string

	Kernel  string
	Initrds []initrd
	Steps   []step
	Hook    bool // the volume is hooked before the kernel is fetched

	Items           []menuItem
	Default, Choose string
	Drive           string // BIOS's number of the machine's own disk

	Why, Say, Wait, Base string
	Disk, Login          bool
	Lines                []string
	Millis               int
	Ask                  string
	Report               report
	End                  string // URL by which a custom script says that it has ended; empty: it does not
	Mark                 string // begins the script's own labels
}

// report is where a script says what failed, and what its screen says besides.
type report struct{ URL, Help, Mark string }

// initrd is a file that is handed to a kernel. On BIOS iPXE puts the words behind its
// URL before it as an archive with a file of that name: Wrap is for a kernel that
// looks files up by their names. A RAM disk would be spoilt by it.
type initrd struct{ Name, URL, Wrap string }

// wrapped is a file that its kernel looks up by its name: on BIOS in the archive, on
// UEFI in the file system that iPXE shows.
func wrapped(name, url string) initrd { return initrd{name, url, name} }

// step is where a script goes when one of its commands fails.
type step struct {
	Label, Say string
	Report     report
}

// Lines is what the screen says, in lines that it holds.
func (s step) Lines(machine string) []string { return wrap(machine + " " + s.Say) }

func execute(name string, f fill) (string, error) {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, f); err != nil {
		return "", &store.Error{Kind: store.KindInternal, Op: "make script", Subject: name, Err: err}
	}
	return tidy(b.String()), nil
}

// tidy takes out runs of empty lines that conditions leave behind.
func tidy(s string) string {
	for strings.Contains(s, "\n\n\n") {
		s = strings.ReplaceAll(s, "\n\n\n", "\n\n")
	}
	return strings.TrimRight(s, "\n") + "\n"
}

func fillFrom(f Facts) fill {
	out := fill{
		Machine:   Word(f.Machine),
		Portal:    Word(f.Portal.String()),
		Initiator: Word(string(f.Initiator)),
		CHAP:      f.Auth == store.AuthCHAP || f.Auth == store.AuthMutual,
		Mutual:    f.Auth == store.AuthMutual,
		User:      Word(f.CHAP.User), Secret: Word(f.CHAP.Secret),
		ReverseUser: Word(f.Reverse.User), ReverseSecret: Word(f.Reverse.Secret),
		Ask: boot.IdentityURL(f.Boot),
	}
	for _, d := range f.Others {
		out.Others = append(out.Others, Disk{LUN: d.LUN, Volume: Word(d.Volume)})
	}
	if f.Disk != nil {
		out.LUN, out.Volume = f.Disk.LUN, Word(f.Disk.Volume)
		out.URI = boot.SANURI(f.Portal, f.Disk.LUN, store.IQN(Word(string(f.Target))))
	}
	return out
}

// report is where the script reports a step that failed. A boot without an
// attempt reports nothing, and its screen names the page alone.
func (f Facts) report(step string) report {
	out := report{Help: Help{Admin: f.Admin}.line()}
	if f.Attempt != 0 {
		out.Help = Help{Case: strconv.FormatInt(int64(f.Attempt), 10), Admin: f.Admin}.line()
		out.URL = boot.ReportURL(f.Boot, f.Attempt, f.Key, step)
	}
	return out
}

// ErrNoDisk is returned for a machine that has no boot mapping and a profile
// that needs one; NoDisk is the script that says so.
var ErrNoDisk = &store.Error{Kind: store.KindInvalid, Op: "make script", Msg: "the machine has no volume to boot from; map one and mark it as the boot volume"}

// SAN makes the script that boots a machine's boot mapping.
func SAN(f Facts) (string, error) {
	if f.Disk == nil {
		return "", ErrNoDisk
	}
	if f.Initiator == "" || f.Target == "" || !f.Portal.IsValid() || !f.Boot.IsValid() {
		return "", &store.Error{Kind: store.KindInternal, Op: "make script", Subject: f.Machine, Msg: "the initiator, target or address is missing"}
	}
	in := fillFrom(f)
	in.Report = f.report("sanboot")
	return execute("san.tmpl", in)
}

// Render makes a machine's script by its profile. The error is ErrNoDisk, or
// says what is wrong with the profile.
func Render(p store.Profile, f Facts) (string, error) {
	switch p.Kind {
	case store.ProfileSAN:
		if err := allowed(p); err != nil {
			return "", err
		}
		return SAN(f)
	case store.ProfileLocal:
		return local(p, f)
	case store.ProfileInstall:
		return install(p, f)
	case store.ProfileWimboot:
		return wimboot(p, f)
	case store.ProfileMenu:
		return menu(p, f)
	case store.ProfileKernel:
		return kernel(p, f)
	case store.ProfileCustom:
		return custom(p, f)
	}
	return "", store.Invalid("kind", "a profile of kind %q cannot be made into a script; choose san, install, kernel, wimboot, menu, local or custom", p.Kind)
}

// Check renders a profile with made-up facts and the media that are kept, so that
// a profile that cannot work is refused when it is saved and not when a machine
// boots.
func Check(p store.Profile, kept []store.Media) error {
	f := sample()
	f.Media = kept
	_, err := Render(p, f)
	return err
}

func sample() Facts {
	return Facts{
		Machine: "lab-03", MAC: store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}, UUID: store.UUID{1},
		Serial: "SN1", Asset: "A1", Initiator: "iqn.2026-11.lunboot:lab-03", Auth: store.AuthMutual,
		CHAP:    store.Credential{User: "lab-03", Secret: "SampleSecretOne1"},
		Reverse: store.Credential{User: "lunboot", Secret: "SampleSecretTwo2"},
		Target:  "iqn.2026-11.lunboot:target", Portal: netip.MustParseAddrPort("192.0.2.1:3260"),
		Boot: netip.MustParseAddrPort("192.0.2.1:80"), Admin: "http://192.0.2.1:8080/",
		Disk: &Disk{LUN: 2, Volume: "debian"}, Attempt: 1, Key: "sample", Platform: "efi",
		Address: netip.MustParseAddr("192.0.2.100"),
	}
}

// NeedsSecret reports whether the script of a profile carries one of the
// machine's secrets, so that it may be shown to the machine alone.
func NeedsSecret(p store.Profile, f Facts) bool {
	text, err := Render(p, f)
	f.Key = "" // it is the boot's own, and no password
	return err == nil && Redact(text, f) != text
}

// Redact replaces a machine's secrets in a script, for logs, pages and events, and
// the key by which the machine reports: who holds it may speak for the machine.
// A line that sets a password is emptied whatever it holds.
func Redact(text string, f Facts) string {
	const mask = "(secret)"
	for _, s := range []string{f.CHAP.Secret, f.Reverse.Secret, f.Key} {
		if s != "" {
			text = strings.ReplaceAll(text, s, mask)
		}
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		for _, name := range []string{"password", "reverse-password"} {
			fields := strings.Fields(line)
			if len(fields) > 2 && fields[0] == "set" && (fields[1] == name || strings.HasPrefix(fields[1], name+":")) {
				lines[i] = fmt.Sprintf("set %s %s", fields[1], mask)
			}
		}
	}
	return strings.Join(lines, "\n")
}
