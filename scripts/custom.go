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
	disk bool // needs a boot mapping
	of   func(Facts) string
}

// variables is the fixed list, in the order in which pages show it.
var variables = []variable{
	{"hostname", false, func(f Facts) string { return f.Machine }},
	{"mac", false, func(f Facts) string { return f.MAC.String() }},
	{"uuid", false, func(f Facts) string { return f.UUID.String() }},
	{"serial", false, func(f Facts) string { return f.Serial }},
	{"asset", false, func(f Facts) string { return f.Asset }},
	{"address", false, func(f Facts) string { return f.Address.String() }},
	{"platform", false, func(f Facts) string { return f.Platform }},
	{"initiator", false, func(f Facts) string { return string(f.Initiator) }},
	{"username", false, func(f Facts) string { return f.CHAP.User }},
	{"password", false, func(f Facts) string { return f.CHAP.Secret }},
	{"reverse_username", false, func(f Facts) string { return f.Reverse.User }},
	{"reverse_password", false, func(f Facts) string { return f.Reverse.Secret }},
	{"target", false, func(f Facts) string { return string(f.Target) }},
	{"portal_ip", false, portalIP},
	{"portal_port", false, func(f Facts) string { return strconv.Itoa(int(f.Portal.Port())) }},
	{"lun", true, func(f Facts) string { return strconv.Itoa(int(f.Disk.LUN)) }},
	{"lun_hex", true, func(f Facts) string { return f.Disk.LUN.URI() }},
	{"volume", true, func(f Facts) string { return f.Disk.Volume }},
	{"san_uri", true, func(f Facts) string { return boot.SANURI(f.Portal, f.Disk.LUN, f.Target) }},
	{"boot_url", false, func(f Facts) string { return strings.TrimSuffix(boot.ScriptURL(f.Boot), boot.ScriptPath) }},
	{"script_url", false, func(f Facts) string { return boot.IdentityURL(f.Boot) }},
	{"report_url", false, func(f Facts) string { return f.report("custom").URL }},
	{"files_url", false, func(f Facts) string { return f.files("") }},
	{"done_url", false, func(f Facts) string { return boot.DoneURL(f.Boot, f.Attempt, f.Key) }},
	{"admin_url", false, func(f Facts) string { return f.Admin }},
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

// Variables lists the names that a custom profile may use.
func Variables() []string {
	var out []string
	for _, v := range variables {
		out = append(out, v.name)
	}
	return out
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
			return "", onLine(line, store.Invalid(field, "line %d: there is no variable {{%s}}; known are %s", line, name, strings.Join(Variables(), ", ")))
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
