package boot

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"lunboot/store"
)

// Paths on the boot listener.
const (
	ScriptPath = "/boot.ipxe" // the script, by query
	ReportPath = "/report"    // a machine's own word
	LoaderRoot = "/loaders/"  // UEFI HTTP boot
	FilesRoot  = "/files/"    // kernels, initrds, ISOs
)

// base prints "http://IP" and the port when it is not 80.
func base(boot netip.AddrPort) string {
	if boot.Port() == 80 {
		if boot.Addr().Is6() {
			return "http://[" + boot.Addr().String() + "]"
		}
		return "http://" + boot.Addr().String()
	}
	return "http://" + boot.String()
}

// ScriptURL is the URL that DHCP names to an iPXE. It is bare: the boot file
// name field holds 127 bytes (RFC 2131 §2), and the script that it answers
// chains to IdentityURL.
func ScriptURL(boot netip.AddrPort) string { return base(boot) + ScriptPath }

// LoaderURL is the URL that DHCP names to an HTTPClient. It has no machine's
// folder: a shim keeps the folder of its own URL for its second stage, and that
// is the chain's.
func LoaderURL(boot netip.AddrPort, l Loader) string { return base(boot) + LoaderRoot + string(l) }

// IdentityURL is the script's URL with iPXE's settings for the machine's
// identity, to be expanded by iPXE itself. uristring escapes what a URL cannot
// carry.
func IdentityURL(boot netip.AddrPort) string {
	return base(boot) + ScriptPath + "?mac=${netX/mac}&uuid=${uuid}&hostname=${hostname:uristring}" +
		"&serial=${serial:uristring}&asset=${asset:uristring}&manufacturer=${manufacturer:uristring}" +
		"&product=${product:uristring}&platform=${platform}&buildarch=${buildarch}&ip=${netX/ip}&version=${version:uristring}" +
		"&busid=${netX/busid}&chip=${netX/chip:uristring}"
}

// ReportURL is where a script's failing step reports to; iPXE appends its own
// ${errno:hexraw}.
func ReportURL(boot netip.AddrPort, id store.AttemptID, key, step string) string {
	q := url.Values{"attempt": {formatInt(int64(id))}, "key": {key}, "step": {step}}
	return base(boot) + ReportPath + "?" + q.Encode() + "&code=${errno:hexraw}"
}

// ChoiceURL is the script's URL with what somebody chose from a menu.
func ChoiceURL(boot netip.AddrPort, choice string) string {
	return IdentityURL(boot) + "&choice=" + choice
}

// DoneURL is where an installer reports that it has finished.
func DoneURL(boot netip.AddrPort, id store.AttemptID, key string) string {
	q := url.Values{"attempt": {formatInt(int64(id))}, "key": {key}, "done": {"1"}}
	return base(boot) + ReportPath + "?" + q.Encode()
}

// Identity is what an iPXE says of the machine that it runs on. Empty fields
// were not said, or said as an unset setting.
type Identity struct {
	Hostname     string
	UUID         store.UUID
	MAC          store.MAC
	Serial       string
	Asset        string
	Manufacturer string
	Product      string
	Platform     string // "pcbios", "efi"
	BuildArch    string // "i386", "x86_64"
	Version      string // iPXE's
	NIC          NIC    // the card that iPXE boots from
	Chip         string // iPXE's name for the card's kind: "82540em", "snponly"
}

// IsZero reports whether nothing identifies a machine.
func (id Identity) IsZero() bool {
	return id.Hostname == "" && id.UUID.IsZero() && id.MAC.IsZero() && id.Serial == "" && id.Asset == ""
}

// maxIdentityField bounds what a query may put into one field.
const maxIdentityField = 128

// ParseIdentity reads the query of ScriptPath. A field that cannot be read is
// an error that names it, except that an unexpanded "${…}" and an empty value
// count as not said, and so does a card's id that cannot be read: it names no
// machine.
func ParseIdentity(q url.Values) (Identity, error) {
	get := func(key string) string {
		v := strings.TrimSpace(q.Get(key))
		if strings.HasPrefix(v, "${") {
			return ""
		}
		if len(v) > maxIdentityField {
			v = v[:maxIdentityField]
		}
		return v
	}
	id := Identity{
		Hostname:     strings.ToLower(get("hostname")),
		Serial:       get("serial"),
		Asset:        get("asset"),
		Manufacturer: get("manufacturer"),
		Product:      get("product"),
		Platform:     get("platform"),
		BuildArch:    get("buildarch"),
		Version:      get("version"),
		Chip:         get("chip"),
	}
	id.NIC, _ = ParseNIC(get("busid"))
	if v := get("uuid"); v != "" {
		u, err := store.ParseUUID(v)
		if err != nil {
			return Identity{}, err
		}
		id.UUID = u
	}
	if v := get("mac"); v != "" {
		m, err := store.ParseMAC(v)
		if err != nil {
			return Identity{}, err
		}
		id.MAC = m
	}
	return id, nil
}

// ParseScriptFile reads the file-name forms /hostname-<h>.ipxe,
// /uuid-<uuid>.ipxe and /mac-<12 hex>.ipxe that an operator's own iPXE may walk
// in that order. ok is false when path is none of them.
func ParseScriptFile(path string) (id Identity, ok bool) {
	name, found := strings.CutSuffix(strings.TrimPrefix(path, "/"), ".ipxe")
	if !found {
		return Identity{}, false
	}
	kind, value, found := strings.Cut(name, "-")
	if !found || value == "" || strings.Contains(value, "/") || len(value) > maxIdentityField {
		return Identity{}, false
	}
	switch kind {
	case "hostname":
		return Identity{Hostname: strings.ToLower(value)}, true
	case "uuid":
		u, err := store.ParseUUID(value)
		return Identity{UUID: u}, err == nil
	case "mac":
		m, err := store.ParseMAC(value)
		return Identity{MAC: m}, err == nil
	}
	return Identity{}, false
}

// SANURI is the iPXE URI of one LUN (RFC 4173 §5). The LUN is always there, in
// hexadecimal: an empty field would ask for LUN 0.
func SANURI(portal netip.AddrPort, lun store.LUN, target store.IQN) string {
	host := portal.Addr().String()
	if portal.Addr().Is6() {
		host = "[" + host + "]"
	}
	return "iscsi:" + host + "::" + formatInt(int64(portal.Port())) + ":" + lun.URI() + ":" + string(target)
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }
