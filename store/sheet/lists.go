package sheet

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
)

func field[T any, V any](name string, cell func(T) V) Column[T] {
	return Column[T]{name, func(item T) any { return cell(item) }}
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func macText(m store.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}

// Machines is the table of machines that comes back, as a table that is only
// written.
func Machines() Table[Row] {
	var out Table[Row]
	for _, c := range columns() {
		out = append(out, field(c.name, c.write))
	}
	return out
}

// Volumes is the table of volumes.
func Volumes() Table[listing.Volume] {
	type v = listing.Volume
	return Table[v]{
		field("id", func(x v) int64 { return int64(x.ID) }),
		field("name", func(x v) string { return x.Name }),
		field("kind", func(x v) string { return string(x.Kind) }),
		field("size", func(x v) int64 { return x.Size }),
		{"takes", func(x v) any {
			if x.Takes < 0 {
				return nil
			}
			return x.Takes
		}},
		field("block_size", func(x v) int { return x.BlockSize }),
		field("state", func(x v) string { return string(x.State) }),
		field("golden", func(x v) bool { return x.Golden }),
		field("version", func(x v) int { return x.Version }),
		field("read_only", func(x v) bool { return x.ReadOnly }),
		field("shared", func(x v) bool { return x.Shared }),
		field("reset_at_boot", func(x v) bool { return x.Reset }),
		field("parent", func(x v) string { return x.Parent }),
		field("machines", func(x v) []string { return x.Machines }),
		field("from", func(x v) string { return x.From }),
		{"created", func(x v) any { return x.Created }},
	}
}

// UnknownMachines is the table of unknown machines.
func UnknownMachines() Table[listing.UnknownMachine] {
	type u = listing.UnknownMachine
	return Table[u]{
		field("mac", func(x u) string { return macText(x.MAC) }),
		field("maker", func(x u) string { return x.Maker }),
		field("vendor", func(x u) string { return x.Vendor }),
		field("firmware", func(x u) string { return x.Firmware }),
		field("arch", func(x u) string { return x.Arch }),
		field("chip", func(x u) string { return x.Chip }),
		field("nic", func(x u) string { return x.NIC }),
		field("hostname", func(x u) string { return x.Hostname }),
		field("address", func(x u) string { return addressText(x.Address) }),
		field("port", func(x u) string { return x.Port }),
		field("asked", func(x u) int64 { return x.Count }),
		{"first_seen", func(x u) any { return x.FirstSeen }},
		{"last_seen", func(x u) any { return x.LastSeen }},
		field("ignored", func(x u) bool { return x.Ignored }),
	}
}

// Leases is the table of leases.
func Leases() Table[listing.Lease] {
	type l = listing.Lease
	return Table[l]{
		field("address", func(x l) string { return addressText(x.Address) }),
		field("mac", func(x l) string { return macText(x.MAC) }),
		field("machine", func(x l) string { return x.Name }),
		field("hostname", func(x l) string { return x.Hostname }),
		field("state", l.Standing),
		field("interface", func(x l) string { return x.Interface }),
		field("relay", func(x l) string { return addressText(x.Relay) }),
		field("port", func(x l) string { return x.Port }),
		{"port_seen", func(x l) any { return x.PortSeen }},
		{"expires", func(x l) any { return x.Expires }},
	}
}

// Sessions is the table of sessions.
func Sessions() Table[listing.Session] {
	type s = listing.Session
	return Table[s]{
		field("id", func(x s) string { return x.ID }),
		field("machine", func(x s) string { return x.Name }),
		field("initiator", func(x s) string { return string(x.Initiator) }),
		field("ipxe", func(x s) bool { return x.IPXE }),
		field("address", func(x s) string { return x.Addr }),
		field("portal", func(x s) string { return x.Portal }),
		field("auth", func(x s) string { return string(x.Auth) }),
		field("luns", func(x s) (out []string) {
			for _, l := range x.LUNs {
				out = append(out, strconv.Itoa(int(l)))
			}
			return out
		}),
		{"since", func(x s) any { return x.Since }},
		{"last_io", func(x s) any { return x.LastIO }},
		field("read", func(x s) int64 { return x.Read }),
		field("written", func(x s) int64 { return x.Written }),
	}
}

// Jobs is the table of jobs.
func Jobs() Table[store.Job] {
	type j = store.Job
	return Table[j]{
		field("id", func(x j) int64 { return x.ID }),
		field("kind", func(x j) string { return x.Kind }),
		field("subject", func(x j) string { return x.Subject }),
		field("state", func(x j) string { return string(x.State) }),
		field("done", func(x j) int64 { return x.Done }),
		field("total", func(x j) int64 { return x.Total }),
		field("error", func(x j) string { return x.Error }),
		{"started", func(x j) any { return x.Started }},
		{"finished", func(x j) any { return x.Finished }},
	}
}

// Profiles is the table of profiles, without their texts: these hold what an
// installer is told, passwords among it.
func Profiles() Table[store.Profile] {
	type p = store.Profile
	return Table[p]{
		field("name", func(x p) string { return x.Name }),
		field("kind", func(x p) string { return string(x.Kind) }),
		field("fields", func(x p) (out []string) {
			for _, k := range slices.Sorted(maps.Keys(x.Fields)) {
				out = append(out, k+"="+x.Fields[k])
			}
			return out
		}),
		field("builtin", func(x p) bool { return x.BuiltIn }),
	}
}

// Media is the table of media.
func Media() Table[store.Media] {
	type m = store.Media
	return Table[m]{
		field("name", func(x m) string { return x.Name }),
		field("kind", func(x m) string { return string(x.Kind) }),
		field("size", func(x m) int64 { return x.Size }),
		field("sha256", func(x m) string { return x.SHA256 }),
		field("file", func(x m) string { return x.File }),
		field("os", func(x m) string { return string(x.Contents.OS) }),
		field("title", func(x m) string { return x.Contents.Title }),
		field("arch", func(x m) string { return x.Contents.Arch }),
		field("label", func(x m) string { return x.Contents.Label }),
		{"added", func(x m) any { return x.Created }},
	}
}

// Attempts is the table of boot attempts, with the first diagnosis of each.
func Attempts() Table[store.Attempt] {
	type a = store.Attempt
	first := func(text func(store.Diagnosis) string) func(a) string {
		return func(x a) string {
			if len(x.Diagnoses) == 0 {
				return ""
			}
			return text(x.Diagnoses[0])
		}
	}
	return Table[a]{
		field("id", func(x a) int64 { return int64(x.ID) }),
		field("machine", func(x a) string { return x.Name }),
		field("mac", func(x a) string { return macText(x.MAC) }),
		{"started", func(x a) any { return x.Started }},
		{"updated", func(x a) any { return x.Updated }},
		field("outcome", func(x a) string { return string(x.Outcome) }),
		field("stage", func(x a) string { return string(x.Stage) }),
		field("code", first(func(d store.Diagnosis) string { return d.Code })),
		field("why", first(func(d store.Diagnosis) string { return d.Title })),
		field("firmware", func(x a) string { return x.Firmware }),
		field("arch", func(x a) string { return x.Arch }),
		field("address", func(x a) string { return x.Address }),
	}
}

// Audit is the table of changes.
func Audit() Table[store.Audit] {
	type a = store.Audit
	return Table[a]{
		field("id", func(x a) int64 { return x.ID }),
		{"at", func(x a) any { return x.At }},
		field("who", func(x a) string { return string(x.Actor) }),
		field("what", func(x a) string { return x.Action }),
		field("subject", func(x a) string { return x.Subject }),
		field("detail", func(x a) string { return x.Detail }),
		field("changes", func(x a) string {
			parts := make([]string, len(x.Changes))
			for i, c := range x.Changes {
				parts[i] = c.Field + ": " + c.Before + " → " + c.After
			}
			return strings.Join(parts, "; ")
		}),
	}
}

func addressTexts(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

// Subnets is the table of subnets.
func Subnets() Table[listing.Subnet] {
	type s = listing.Subnet
	return Table[s]{
		field("id", func(x s) int64 { return x.ID }),
		field("network", func(x s) string { return x.Prefix.String() }),
		field("interface", func(x s) string { return x.Interface }),
		field("mode", func(x s) string { return string(x.Mode) }),
		field("range", func(x s) string {
			if !x.Range.From.IsValid() {
				return ""
			}
			return x.Range.String()
		}),
		field("addresses", func(x s) int { return x.Range.Size() }),
		field("given", func(x s) int { return x.Given }),
		field("router", func(x s) string { return addressText(x.Router) }),
		field("dns", func(x s) []string { return addressTexts(x.DNS) }),
		field("domain", func(x s) string { return x.Domain }),
		field("search", func(x s) []string { return x.Search }),
		field("ntp", func(x s) []string { return addressTexts(x.NTP) }),
		field("lease_seconds", func(x s) int64 { return int64(x.LeaseTime / time.Second) }),
		field("next_server", func(x s) string { return addressText(x.NextServer) }),
	}
}

// Mappings is the table of mappings.
func Mappings() Table[store.MappingView] {
	type m = store.MappingView
	return Table[m]{
		field("machine", func(x m) string { return x.MachineName }),
		field("lun", func(x m) int64 { return int64(x.LUN) }),
		field("volume", func(x m) string { return x.VolumeName }),
		field("size", func(x m) int64 { return x.VolumeSize }),
		field("boot", func(x m) bool { return x.Boot }),
		field("read_only", func(x m) bool { return x.ReadOnly }),
		{"created", func(x m) any { return x.Created }},
	}
}

// Users is the table of people, without what they log in by.
func Users() Table[store.User] {
	type u = store.User
	return Table[u]{
		field("name", func(x u) string { return x.Name }),
		field("role", func(x u) string { return string(x.Role) }),
		field("provider", func(x u) string { return x.Issuer }),
		field("known_as", func(x u) string { return x.KnownAs }),
		field("disabled", func(x u) bool { return x.Disabled }),
		{"added", func(x u) any { return x.Created }},
		{"last_login", func(x u) any { return x.LastLogin }},
	}
}

// Tokens is the table of tokens, without their texts or what these are known by.
func Tokens() Table[listing.Token] {
	type t = listing.Token
	return Table[t]{
		field("id", func(x t) int64 { return x.ID }),
		field("name", func(x t) string { return x.Name }),
		field("owner", func(x t) string { return x.Owner }),
		field("scope", func(x t) string { return x.Scope }),
		field("expired", func(x t) bool { return x.Over }),
		{"created", func(x t) any { return x.Created }},
		{"expires", func(x t) any { return x.Expires }},
		{"last_used", func(x t) any { return x.LastUsed }},
	}
}

// Events is the table of events, without the scripts that machines were given and
// the keys that they report with.
func Events() Table[listing.Event] {
	type e = listing.Event
	return Table[e]{
		field("seq", func(x e) int64 { return x.Seq }),
		{"at", func(x e) any { return x.At }},
		field("severity", func(x e) string { return string(x.Kind.Severity()) }),
		field("kind", func(x e) string { return string(x.Kind) }),
		field("machine", func(x e) string { return x.Name }),
		field("mac", func(x e) string { return macText(x.MAC) }),
		field("address", func(x e) string { return addressText(x.Addr) }),
		field("reason", func(x e) string { return x.Detail.Reason }),
		field("detail", func(x e) string {
			d := x.Detail
			d.Key, d.Script, d.Reason = "", "", ""
			return string(d.AppendJSON(nil))
		}),
	}
}
