package scripts

import (
	"slices"
	"strconv"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// variable is one name that a profile's text may hold in {{ }}.
type variable struct {
	name string
	help string
	disk bool // needs a boot mapping
	of   func(Facts) string
}

// variables is the fixed list, in the order in which pages show it.
var variables = []variable{
	{"hostname", "the machine's name", false, func(f Facts) string { return f.Machine }},
	{"mac", "the MAC that it boots by", false, func(f Facts) string { return f.MAC.String() }},
	{"uuid", "its UUID; a row of zeros where it has none", false, func(f Facts) string { return f.UUID.String() }},
	{"serial", "its serial number, or nothing", false, func(f Facts) string { return f.Serial }},
	{"asset", "its asset tag, or nothing", false, func(f Facts) string { return f.Asset }},
	{"address", "the IP address from which it asks", false, func(f Facts) string { return f.Address.String() }},
	{"platform", "what its iPXE runs on: pcbios or efi", false, func(f Facts) string { return f.Platform }},
	{"initiator", "its initiator IQN", false, func(f Facts) string { return string(f.Initiator) }},
	{"username", "its CHAP user", false, func(f Facts) string { return f.CHAP.User }},
	{"password", "its CHAP secret: a script or an answer with it is given to the machine alone", false, func(f Facts) string { return f.CHAP.Secret }},
	{"reverse_username", "the user by which the target proves itself to it", false, func(f Facts) string { return f.Reverse.User }},
	{"reverse_password", "the secret to that; given to the machine alone, too", false, func(f Facts) string { return f.Reverse.Secret }},
	{"target", "the name of the appliance's iSCSI target", false, func(f Facts) string { return string(f.Target) }},
	{"portal_ip", "the address of the iSCSI target, as the machine reaches it", false, portalIP},
	{"portal_port", "the port of the iSCSI target", false, func(f Facts) string { return strconv.Itoa(int(f.Portal.Port())) }},
	{"lun", "the LUN that it boots from, in decimal; needs a boot volume", true, func(f Facts) string { return strconv.Itoa(int(f.Disk.LUN)) }},
	{"lun_hex", "the same as iPXE wants it in a URI; needs a boot volume", true, func(f Facts) string { return f.Disk.LUN.URI() }},
	{"volume", "the name of that volume; needs a boot volume", true, func(f Facts) string { return f.Disk.Volume }},
	{"san_uri", "all of it in one: what sanboot and sanhook take; needs a boot volume", true, func(f Facts) string { return boot.SANURI(f.Portal, f.Disk.LUN, f.Target) }},
	{"boot_url", "the appliance's HTTP for machines, without a slash at the end", false, func(f Facts) string { return strings.TrimSuffix(boot.ScriptURL(f.Boot), boot.ScriptPath) }},
	{"script_url", "where the machine's own script is: chain to it to begin anew", false, func(f Facts) string { return boot.IdentityURL(f.Boot) }},
	{"report_url", "chain to it to report that a script failed; the boot's page shows it", false, func(f Facts) string { return f.report("custom").URL }},
	{"files_url", "where media lie: add the name of a disc, and a path inside it", false, func(f Facts) string { return f.files("") }},
	{"done_url", "fetched once, it says that an installer has ended, and a profile for one boot goes", false, func(f Facts) string { return boot.DoneURL(f.Boot, f.Attempt, f.Key) }},
	{"admin_url", "the pages, for people", false, func(f Facts) string { return f.Admin }},
}

func portalIP(f Facts) string {
	if f.Portal.Addr().Is6() {
		return "[" + f.Portal.Addr().String() + "]"
	}
	return f.Portal.Addr().String()
}

// ours are variables whose value is iPXE text of our own making, with ${...}
// that iPXE must expand.
var ours = []string{"script_url", "report_url"}

// Variable is one name that profiles' texts may hold in {{ }}, with what it is and
// what it would be for a made-up machine.
type Variable struct{ Name, Help, Example string }

// Variables lists what profiles may use.
func Variables() []Variable {
	var out []Variable
	for _, v := range variables {
		out = append(out, Variable{v.name, v.help, v.of(sample())})
	}
	return out
}

func names() string {
	var out []string
	for _, v := range variables {
		out = append(out, v.name)
	}
	return strings.Join(out, ", ")
}

// expand replaces each {{name}} of text that iPXE will read. field names the
// input in errors.
func expand(field, text string, f Facts) (string, error) {
	return expandWith(field, text, f, func(v variable) string { return v.value(f) })
}

// expandWith replaces each {{name}} of text by what value says.
func expandWith(field, text string, f Facts, value func(variable) string) (string, error) {
	var b strings.Builder
	line := 1
	for {
		before, rest, found := strings.Cut(text, "{{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		line += strings.Count(before, "\n")
		name, after, closed := strings.Cut(rest, "}}")
		if !closed || strings.Contains(name, "\n") {
			return "", onLine(line, store.Invalid(field, "line %d has {{ without }} on the same line", line))
		}
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(variables, func(v variable) bool { return v.name == name })
		if i < 0 {
			return "", onLine(line, store.Invalid(field, "line %d: there is no variable {{%s}}; known are %s", line, name, names()))
		}
		v := variables[i]
		if v.disk && f.Disk == nil {
			return "", ErrNoDisk
		}
		b.WriteString(value(v))
		text = after
	}
}

func onLine(n int, e *store.Error) *store.Error {
	e.Line = n
	return e
}

func (v variable) value(f Facts) string {
	s := v.of(f)
	if s == "" || slices.Contains(ours, v.name) {
		return s
	}
	return Word(s)
}

// located are variables that are URLs, or the part of one that says where.
var located = []string{"portal_ip", "portal_port", "san_uri", "boot_url", "script_url", "report_url", "files_url", "done_url", "admin_url"}

// inURL is a variable's value where a URL is written: what a machine says of itself
// ends no path and no query, and is fetched as it is.
func (v variable) inURL(f Facts) string {
	if slices.Contains(located, v.name) {
		return v.value(f)
	}
	return escapeURL(v.of(f))
}

// fileURL takes a URL as it is and a path as one below /files/.
func (f Facts) fileURL(field, s string) (string, error) {
	if strings.ContainsAny(s, " \t") || strings.HasPrefix(s, "#") || strings.HasPrefix(s, "-") {
		return "", store.Invalid(field, "%q is not a URL or path; write a space as %%20", s)
	}
	if strings.Contains(s, "://") {
		return s, nil
	}
	return strings.TrimSuffix(boot.ScriptURL(f.Boot), boot.ScriptPath) + boot.FilesRoot +
		strings.TrimPrefix(strings.TrimPrefix(s, boot.FilesRoot), "/"), nil
}
