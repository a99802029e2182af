package listing

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lunboot/store"
)

// texts makes what a field has from one text.
func texts[T any](text func(T) string) func(T) []string {
	return func(item T) []string { return []string{text(item)} }
}

// named are the values of a closed list.
func named[S ~string](values ...S) (out []string) {
	for _, v := range values {
		out = append(out, string(v))
	}
	return out
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

var yesNo = []string{"yes", "no"}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// Volume is a volume of a list, with what its row does not say by name.
type Volume struct {
	store.Volume
	Parent   string   // the volume that it is a clone of
	Machines []string // that have it
	Takes    int64    // bytes of the file system; -1: not known
}

// VolumesOf joins volumes with the names of what they belong to, and with what
// they take.
func VolumesOf(vols []store.Volume, maps []store.Mapping, takes map[store.VolumeID]int64, machine func(store.MachineID) string) []Volume {
	names, users := map[store.VolumeID]string{}, map[store.VolumeID][]string{}
	for _, v := range vols {
		names[v.ID] = v.Name
	}
	for _, m := range maps {
		users[m.Volume] = append(users[m.Volume], machine(m.Machine))
	}
	out := make([]Volume, len(vols))
	for i, v := range vols {
		out[i] = Volume{v, names[v.Parent], users[v.ID], -1}
		if n, known := takes[v.ID]; known {
			out[i].Takes = n
		}
	}
	return out
}

// Volumes is what can be asked of volumes.
func Volumes() List[Volume] {
	return List[Volume]{Fields: []Field[Volume]{
		{Name: "name", Texts: texts(func(v Volume) string { return v.Name }), Words: true, Column: true},
		{Name: "size", Order: func(a, b Volume) int { return cmp.Compare(a.Size, b.Size) }, Column: true},
		{Name: "takes", Order: func(a, b Volume) int { return cmp.Compare(a.Takes, b.Takes) }, Column: true},
		{Name: "kind", Texts: texts(func(v Volume) string { return string(v.Kind) }), Values: named(store.VolumeRaw, store.VolumeDevice, store.VolumeClone), Column: true},
		{Name: "state", Texts: texts(func(v Volume) string { return string(v.State) }), Column: true,
			Values: named(store.VolumeReady, store.VolumeCreating, store.VolumeImporting, store.VolumeFailed, store.VolumeRemoving, store.VolumePromoting)},
		{Name: "golden", Texts: texts(func(v Volume) string { return yes(v.Golden) }), Values: yesNo},
		{Name: "used", Texts: texts(func(v Volume) string { return yes(len(v.Machines) > 0) }), Values: yesNo},
		{Name: "parent", Texts: texts(func(v Volume) string { return v.Parent }), Words: true},
		{Name: "machine", Texts: func(v Volume) []string { return v.Machines }, Words: true, Column: true},
		{Name: "from", Texts: texts(func(v Volume) string { return v.From }), Words: true},
		{Name: "created", Order: func(a, b Volume) int { return b.Created.Compare(a.Created) }, Column: true},
	}}
}

// UnknownMachine is an unknown machine of a list, with the maker of its card.
type UnknownMachine struct {
	store.UnknownMachine
	Maker string
}

// UnknownMachines is what can be asked of unknown machines.
func UnknownMachines() List[UnknownMachine] {
	type u = UnknownMachine
	return List[u]{Fields: []Field[u]{
		{Name: "mac", Texts: func(m u) []string { return []string{m.MAC.String(), m.MAC.Hex12()} }, Words: true, Column: true},
		{Name: "maker", Texts: func(m u) []string { return []string{m.Vendor, m.Maker} }, Words: true, Column: true},
		{Name: "firmware", Texts: texts(func(m u) string { return m.Firmware + " " + m.Arch }), Words: true, Column: true},
		{Name: "card", Texts: func(m u) []string { return []string{m.Chip, m.NIC} }, Words: true},
		{Name: "hostname", Texts: texts(func(m u) string { return m.Hostname }), Words: true},
		{Name: "address", Texts: texts(func(m u) string { return address(m.Address) }), Order: func(a, b u) int { return a.Address.Compare(b.Address) }, Words: true, Column: true},
		{Name: "port", Texts: texts(func(m u) string { return m.Port }), Words: true, Column: true},
		{Name: "ignored", Texts: texts(func(m u) string { return yes(m.Ignored) }), Values: yesNo},
		{Name: "asked", Order: func(a, b u) int { return cmp.Compare(b.Count, a.Count) }, Column: true}, // the most often first
		{Name: "seen", Order: func(a, b u) int { return b.LastSeen.Compare(a.LastSeen) }, Column: true}, // the newest first
	}}
}

// Lease is a lease of a list, with whose it is.
type Lease struct {
	store.Lease
	Name string `json:"machine_name,omitempty" doc:"the machine that has the MAC, as it is called now"`
	Over bool   `json:"expired,omitempty" doc:"its time is over: another machine may be given the address"`
}

// Standing is the lease's state, or that its time is over.
func (l Lease) Standing() string {
	if l.Over {
		return LeaseOver
	}
	return string(l.State)
}

// LeaseOver stands for a lease whose time is over, whatever it was.
const LeaseOver = "expired"

// LeasesOf joins leases with the machines that have them. A machine that was
// enrolled after it got its address is named too.
func LeasesOf(leases []store.Lease, ms []store.Machine, now time.Time) []Lease {
	byMAC, names := map[store.MAC]*store.Machine{}, map[store.MachineID]string{}
	for i := range ms {
		names[ms[i].ID] = ms[i].Name
		for _, mac := range ms[i].MACs {
			byMAC[mac] = &ms[i]
		}
	}
	out := make([]Lease, len(leases))
	for i, l := range leases {
		if m := byMAC[l.MAC]; m != nil {
			l.Machine = m.ID
		}
		out[i] = Lease{l, names[l.Machine], !l.Expires.After(now)}
	}
	return out
}

// InUse reports whether a machine has the address still.
func (l Lease) InUse() bool { return l.State == store.LeaseBound && !l.Over }

// LeaseDigest stands for leases as they are: whose each is, and where it stands.
func LeaseDigest(leases []Lease) string {
	now := make([]string, len(leases))
	for i, l := range leases {
		now[i] = l.Address.String() + " " + l.MAC.String() + " " + l.Standing()
	}
	return Digest(now)
}

// Leases is what can be asked of leases.
func Leases() List[Lease] {
	type l = Lease
	return List[l]{Fields: []Field[l]{
		{Name: "address", Texts: texts(func(x l) string { return address(x.Address) }), Order: func(a, b l) int { return a.Address.Compare(b.Address) }, Words: true, Column: true},
		{Name: "mac", Texts: func(x l) []string { return []string{x.MAC.String(), x.MAC.Hex12()} }, Words: true, Column: true},
		{Name: "machine", Texts: texts(func(x l) string { return x.Name }), Words: true, Column: true},
		{Name: "hostname", Texts: texts(func(x l) string { return x.Hostname }), Words: true, Column: true},
		{Name: "state", Texts: texts(l.Standing), Values: append(named(store.LeaseBound, store.LeaseOffered, store.LeaseDeclined), LeaseOver), Column: true},
		{Name: "interface", Texts: texts(func(x l) string { return x.Interface })},
		{Name: "relay", Texts: texts(func(x l) string { return address(x.Relay) })},
		{Name: "port", Texts: texts(func(x l) string { return x.Port }), Words: true, Column: true},
		{Name: "expires", Order: func(a, b l) int { return a.Expires.Compare(b.Expires) }, Column: true},
	}}
}

// Session is a session of a list, with the machine that it is of.
type Session struct {
	store.Session
	Name string `json:"machine_name,omitempty"`
}

// SessionsOf joins sessions with the names of their machines.
func SessionsOf(sessions []store.Session, machine func(store.MachineID) string) []Session {
	out := make([]Session, len(sessions))
	for i, s := range sessions {
		out[i] = Session{s, machine(s.Machine)}
	}
	return out
}

// Sessions is what can be asked of sessions.
func Sessions() List[Session] {
	type s = Session
	return List[s]{Fields: []Field[s]{
		{Name: "machine", Texts: texts(func(x s) string { return x.Name }), Words: true, Column: true},
		{Name: "initiator", Texts: texts(func(x s) string { return string(x.Initiator) }), Words: true, Column: true},
		{Name: "address", Texts: texts(func(x s) string { return x.Addr }), Words: true, Column: true},
		{Name: "portal", Texts: texts(func(x s) string { return x.Portal })},
		{Name: "by", Texts: texts(func(x s) string {
			if x.IPXE {
				return "ipxe"
			}
			return "os"
		}), Values: []string{"ipxe", "os"}, Column: true},
		{Name: "auth", Texts: texts(func(x s) string { return string(x.Auth) }), Values: named(store.AuthNone, store.AuthCHAP, store.AuthMutual)},
		{Name: "read", Order: func(a, b s) int { return cmp.Compare(b.Read, a.Read) }, Column: true}, // the most first
		{Name: "written", Order: func(a, b s) int { return cmp.Compare(b.Written, a.Written) }, Column: true},
		{Name: "since", Order: func(a, b s) int { return b.Since.Compare(a.Since) }, Column: true},  // the newest first
		{Name: "used", Order: func(a, b s) int { return b.LastIO.Compare(a.LastIO) }, Column: true}, // the last first
	}}
}

// Profiles is what can be asked of profiles.
func Profiles() List[store.Profile] {
	type p = store.Profile
	return List[p]{Fields: []Field[p]{
		{Name: "name", Texts: texts(func(x p) string { return x.Name }), Words: true, Column: true},
		{Name: "kind", Texts: texts(func(x p) string { return string(x.Kind) }), Column: true, Words: true,
			Values: named(store.ProfileSAN, store.ProfileInstall, store.ProfileKernel, store.ProfileWimboot, store.ProfileMenu, store.ProfileLocal, store.ProfileCustom)},
		{Name: "media", Texts: func(x p) (out []string) {
			for _, v := range x.Fields {
				out = append(out, v)
			}
			return out
		}, Words: true},
		{Name: "builtin", Texts: texts(func(x p) string { return yes(x.BuiltIn) }), Values: yesNo},
	}}
}

// Media is what can be asked of media.
func Media() List[store.Media] {
	type m = store.Media
	return List[m]{Fields: []Field[m]{
		{Name: "name", Texts: func(x m) []string { return []string{x.Name, x.File} }, Words: true, Column: true},
		{Name: "kind", Texts: texts(func(x m) string { return string(x.Kind) }), Column: true,
			Values: named(store.MediaISO, store.MediaKernel, store.MediaInitrd, store.MediaWIM, store.MediaWimboot, store.MediaFile)},
		{Name: "contents", Texts: func(x m) []string { return []string{x.Contents.Title, x.Contents.Label, string(x.Contents.OS)} }, Words: true},
		{Name: "arch", Texts: texts(func(x m) string { return x.Contents.Arch }), Words: true, Column: true},
		{Name: "size", Order: func(a, b m) int { return cmp.Compare(a.Size, b.Size) }, Column: true},
		{Name: "added", Order: func(a, b m) int { return b.Created.Compare(a.Created) }, Column: true}, // the newest first
	}}
}

// Jobs is what can be asked of jobs.
func Jobs() List[store.Job] {
	type j = store.Job
	return List[j]{Fields: []Field[j]{
		{Name: "subject", Texts: texts(func(x j) string { return x.Subject }), Words: true, Column: true},
		{Name: "kind", Texts: texts(func(x j) string { return x.Kind }), Words: true, Column: true},
		{Name: "state", Texts: texts(func(x j) string { return string(x.State) }), Values: named(store.JobRunning, store.JobFailed, store.JobDone, store.JobCanceled), Column: true},
		{Name: "error", Texts: texts(func(x j) string { return x.Error }), Words: true},
		{Name: "size", Order: func(a, b j) int { return cmp.Compare(b.Total, a.Total) }, Column: true},   // the largest first
		{Name: "started", Order: func(a, b j) int { return b.Started.Compare(a.Started) }, Column: true}, // the newest first
	}}
}

// Verdicts is what can be asked of what became of a job's machines.
func Verdicts() List[store.JobVerdict] {
	type v = store.JobVerdict
	weight := func(x v) int { return slices.Index(store.JobResults(), x.Result) }
	return List[v]{Fields: []Field[v]{
		{Name: "result", Texts: texts(func(x v) string { return string(x.Result) }), Values: named(store.JobResults()...), Order: func(a, b v) int { return cmp.Compare(weight(a), weight(b)) }, Column: true},
		{Name: "machine", Texts: texts(func(x v) string { return x.Name }), Words: true, Column: true},
		{Name: "detail", Texts: texts(func(x v) string { return x.Detail }), Words: true},
	}}
}

// Subnet is a subnet of a list, with how many of its addresses are given.
type Subnet struct {
	store.Subnet
	Given int // addresses that are leased now
}

// SubnetsOf joins subnets with the leases that are good in them.
func SubnetsOf(subnets []store.Subnet, leases []store.Lease, now time.Time) []Subnet {
	out := make([]Subnet, len(subnets))
	for i, s := range subnets {
		out[i].Subnet = s
		for _, l := range leases {
			// The same network may be on two interfaces, and behind a relay it is on none.
			if l.State == store.LeaseBound && l.Expires.After(now) && s.Prefix.Contains(l.Address) && (s.Interface == "" || l.Interface == "" || l.Interface == s.Interface) {
				out[i].Given++
			}
		}
	}
	return out
}

// Subnets is what can be asked of subnets.
func Subnets() List[Subnet] {
	type s = Subnet
	all := func(addrs []netip.Addr) (out []string) {
		for _, a := range addrs {
			out = append(out, a.String())
		}
		return out
	}
	return List[s]{Fields: []Field[s]{
		{Name: "network", Texts: texts(func(x s) string { return x.Prefix.String() }), Words: true, Column: true, Order: func(a, b s) int {
			return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
		}},
		{Name: "interface", Texts: texts(func(x s) string { return x.Interface }), Words: true, Column: true},
		{Name: "mode", Texts: texts(func(x s) string { return string(x.Mode) }), Values: named(store.DHCPFull, store.DHCPProxy, store.DHCPOff), Column: true},
		{Name: "relay", Texts: texts(func(x s) string { return yes(x.Interface == "") }), Values: yesNo},
		{Name: "router", Texts: texts(func(x s) string { return address(x.Router) }), Words: true},
		{Name: "dns", Texts: func(x s) []string { return all(x.DNS) }, Words: true},
		{Name: "ntp", Texts: func(x s) []string { return all(x.NTP) }, Words: true},
		{Name: "domain", Texts: func(x s) []string { return append([]string{x.Domain}, x.Search...) }, Words: true, Column: true},
		{Name: "size", Order: func(a, b s) int { return cmp.Compare(b.Range.Size(), a.Range.Size()) }, Column: true}, // the largest range first
		{Name: "given", Order: func(a, b s) int { return cmp.Compare(b.Given, a.Given) }, Column: true},              // the most first
		{Name: "lease", Order: func(a, b s) int { return cmp.Compare(a.LeaseTime, b.LeaseTime) }, Column: true},
	}}
}

// Mappings is what can be asked of mappings.
func Mappings() List[store.MappingView] {
	type m = store.MappingView
	return List[m]{Fields: []Field[m]{
		{Name: "machine", Texts: texts(func(x m) string { return x.MachineName }), Words: true, Column: true},
		{Name: "volume", Texts: texts(func(x m) string { return x.VolumeName }), Words: true, Column: true},
		{Name: "lun", Texts: texts(func(x m) string { return strconv.FormatUint(uint64(x.LUN), 10) }), Whole: true, Column: true, Order: func(a, b m) int { return cmp.Compare(a.LUN, b.LUN) }},
		{Name: "boot", Texts: texts(func(x m) string { return yes(x.Boot) }), Values: yesNo},
		{Name: "readonly", Texts: texts(func(x m) string { return yes(x.ReadOnly) }), Values: yesNo},
		{Name: "size", Order: func(a, b m) int { return cmp.Compare(a.VolumeSize, b.VolumeSize) }, Column: true},
		{Name: "created", Order: func(a, b m) int { return b.Created.Compare(a.Created) }, Column: true}, // the newest first
	}}
}

// Users is what can be asked of people. Nothing of their passwords is.
func Users() List[store.User] {
	type u = store.User
	return List[u]{Fields: []Field[u]{
		{Name: "name", Texts: texts(func(x u) string { return x.Name }), Words: true, Column: true},
		{Name: "role", Texts: texts(func(x u) string { return string(x.Role) }), Values: named(store.Roles()...), Column: true,
			Order: func(a, b u) int { return slices.Index(store.Roles(), b.Role) - slices.Index(store.Roles(), a.Role) }}, // who may most first
		{Name: "by", Values: []string{"password", "provider"}, Column: true, Texts: texts(func(x u) string {
			if x.Federated() {
				return "provider"
			}
			return "password"
		})},
		{Name: "known", Texts: texts(func(x u) string { return x.KnownAs }), Words: true},
		{Name: "disabled", Texts: texts(func(x u) string { return yes(x.Disabled) }), Values: yesNo},
		{Name: "ever", Texts: texts(func(x u) string { return yes(!x.LastLogin.IsZero()) }), Values: yesNo},
		{Name: "login", Order: func(a, b u) int { return b.LastLogin.Compare(a.LastLogin) }, Column: true}, // the newest first
		{Name: "added", Order: func(a, b u) int { return b.Created.Compare(a.Created) }, Column: true},
	}}
}

// Token is a token of a list.
type Token struct {
	store.Token
	Over bool // it has expired
}

// TokensOf says which tokens have expired.
func TokensOf(tokens []store.Token, now time.Time) []Token {
	out := make([]Token, len(tokens))
	for i, t := range tokens {
		out[i] = Token{t, !t.Expires.IsZero() && !t.Expires.After(now)}
	}
	return out
}

// Tokens is what can be asked of tokens. Nothing of their texts is.
func Tokens() List[Token] {
	type t = Token
	return List[t]{Fields: []Field[t]{
		{Name: "name", Texts: texts(func(x t) string { return x.Name }), Words: true, Column: true},
		{Name: "owner", Texts: texts(func(x t) string { return x.Owner }), Words: true, Column: true},
		{Name: "scope", Texts: texts(func(x t) string { return x.Scope }), Values: named(store.ScopeRead, store.ScopeOperate, store.ScopeAdmin), Column: true},
		{Name: "expired", Texts: texts(func(x t) string { return yes(x.Over) }), Values: yesNo},
		{Name: "ever", Texts: texts(func(x t) string { return yes(!x.LastUsed.IsZero()) }), Values: yesNo},
		{Name: "used", Order: func(a, b t) int { return b.LastUsed.Compare(a.LastUsed) }, Column: true}, // the last first
		{Name: "expires", Column: true, Order: func(a, b t) int {
			switch { // one that never does comes last
			case a.Expires.IsZero() != b.Expires.IsZero():
				return map[bool]int{true: 1, false: -1}[a.Expires.IsZero()]
			}
			return a.Expires.Compare(b.Expires)
		}},
		{Name: "created", Order: func(a, b t) int { return b.Created.Compare(a.Created) }, Column: true}, // the newest first
	}}
}

// Event is an event of a list, with the name of its machine.
type Event struct {
	store.Event
	Name string `json:"machine_name,omitempty"`
}
