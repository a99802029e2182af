package pages

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sqlite"
	"lunboot/web/auth"
	"lunboot/web/auth/oidc"
	"lunboot/web/pages/manual"
)

// lab is an inventory in memory, as large as these tests need.
type lab struct {
	mu       sync.Mutex
	machines []store.Machine
	unknown  []store.UnknownMachine
	mappings []store.Mapping
	vols     []store.Volume
	fixed    []store.FixAction
	latest   map[store.MachineID]store.Attempt
	past     []store.Attempt
	users    map[string]string
	sessions map[string][]byte
	roles    map[string]store.Role // admin where nothing stands
	tokens   []store.Token
	audit    []store.Audit
	leased   []store.Lease
	running  map[netip.Addr]bool // addresses from which a volume was opened after the page was made
	subnets  []store.Subnet
	events   *sqlite.Journal // nil: none happened
	logged   []store.Session
	dropped  []string // sessions and leases
	broken   error    // returned by what lists grow from
	version  int64
	changed  chan struct{}
	facts    SetupFacts
	loaders  []boot.LoaderInfo
	kept     []store.Media
	uploads  []string
	chosen   []SetupChoice
	asked    []string // networks that were asked
	checks   []Check
	heard    map[string]store.Survey // what each network says when it is asked
	refuse   error                   // returned by every act
	removed  []error                 // what removing says to machines with another revision
	rules    store.AutoEnroll
	all      []store.EnrollSpec
	enrolled []store.Enrolled
	dryRuns  []store.ExplainQuery
	space    store.Space
	sent     []store.Upload
	orders   []string // to BMCs
	jobs     []store.Job
	got      map[string]string // what forms sent, by the volume's name
	devices  []store.DeviceSpec
	auth     *auth.Auth
	acts     []string // on volumes
	check    store.VolumeCheck
	ends     []store.AttemptEnd
	moved    []store.Throughput
	room     []store.RoomSample
	provider store.OIDC
	people   map[string]store.User // who signs in through it
	recorded []string
	now      func() time.Time

	secure   Certificate
	settings map[string]string
	revision map[string]int64 // of settings

	madeMeanwhile string // a profile that somebody else makes while a form is sent
}

var noon = time.Date(2026, 11, 22, 14, 2, 8, 0, time.UTC)

func mustRange(s string) store.Range {
	r, err := store.ParseRange(s)
	if err != nil {
		panic(err)
	}
	return r
}

func newLab() *lab {
	return &lab{latest: map[store.MachineID]store.Attempt{}, users: map[string]string{}, sessions: map[string][]byte{}, roles: map[string]store.Role{}, changed: make(chan struct{}), version: 1,
		people: map[string]store.User{}, now: func() time.Time { return noon }}
}

// trouble asks the networks, chooses modes and lets the doctor find things.
func (l *lab) trouble(t *testing.T) {
	t.Helper()
	l.facts.Interfaces = append(l.facts.Interfaces,
		store.Link{Name: "eth2", Up: true, Mode: store.DHCPOff},
		store.Link{Name: "eth3", Addresses: []netip.Prefix{netip.MustParsePrefix("10.78.0.1/24")}, Up: true, Carrier: true, Mode: store.DHCPFull, Serving: true, Range: mustRange("10.78.0.100-10.78.0.199"), Locked: "--dhcp-range 10.78.0.100-10.78.0.199"},
	)
	for _, name := range []string{"eth0", "eth1", "eth3"} {
		if _, err := l.Ask(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Choose(t.Context(), "admin", "eth1", store.DHCPProxy, store.Range{}); err != nil {
		t.Fatal(err)
	}
	l.checks = []Check{
		{Name: "TFTP", State: "ok", Detail: "0.0.0.0:69"},
		{Name: "free space", State: "ok", Detail: "74.5 GiB free, and 64 MiB kept for leases"},
		{Name: "clock", State: "advice", Detail: "it is 2026-11-22 14:02 UTC, and the clock follows no other: the times of events drift from those that people see. Let it follow one", Mend: "systemctl enable --now systemd-timesyncd"},
		{Name: "packet filter", State: "ok", Detail: "rules read"},
		{Name: "TFTP is let in", State: "fault", Depth: 1, Detail: "UDP port 69 on eth1 is shut: the policy of chain inet filter input is drop. Open it", Mend: `nft insert rule inet filter input iifname "eth1" udp dport 69 accept`},
		{Name: "interface eth2", State: "fault", Detail: "eth2 has no carrier: no cable, or nothing at its other end. Look at it", Mend: "ethtool eth2"},
		{Name: "other DHCP servers on eth2", State: "waits", Depth: 1, Detail: "not asked, since this failed first: interface eth2"},
		{Name: "return path on eth3", State: "unknown", Detail: "the filter of source addresses cannot be read. Look yourself", Mend: "sysctl net.ipv4.conf.eth3.rp_filter"},
	}
}

func (l *lab) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version++
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lab) Version() int64 { l.mu.Lock(); defer l.mu.Unlock(); return l.version }

func (l *lab) Changed(after int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.version > after {
		c := make(chan struct{})
		close(c)
		return c
	}
	return l.changed
}

func (l *lab) Machine(_ context.Context, id store.MachineID) (store.Machine, error) {
	for _, m := range l.machines {
		if m.ID == id {
			return m, nil
		}
	}
	return store.Machine{}, store.NotFound("machine", "7")
}

func (l *lab) Machines(_ context.Context, f store.MachineFilter) ([]store.Machine, int, error) {
	var out []store.Machine
	for _, m := range l.machines {
		fits := !slices.ContainsFunc(f.Words, func(w string) bool { return !strings.Contains(m.Name, w) })
		if fits && (f.Tag == "" || slices.Contains(m.Tags, f.Tag)) && (f.Profile == "" || m.Profile == f.Profile) {
			out = append(out, m)
		}
	}
	return out, len(out), nil
}

func (l *lab) MachineIDs(context.Context) (out []store.MachineID, _ error) {
	for _, m := range l.machines {
		out = append(out, m.ID)
	}
	return out, nil
}

func (l *lab) UnknownMachines(context.Context, bool) ([]store.UnknownMachine, error) {
	return l.unknown, nil
}
func (l *lab) Mappings(context.Context) ([]store.Mapping, error) { return l.mappings, nil }

func (l *lab) MappingViews(_ context.Context, of store.MachineID) (out []store.MappingView, err error) {
	for _, m := range l.mappings {
		if of != 0 && m.Machine != of {
			continue
		}
		v := store.MappingView{Mapping: m}
		for _, machine := range l.machines {
			if machine.ID == m.Machine {
				v.MachineName = machine.Name
			}
		}
		for _, vol := range l.vols {
			if vol.ID == m.Volume {
				v.VolumeName, v.VolumeSize = vol.Name, vol.Size
			}
		}
		out = append(out, v)
	}
	return out, nil
}

func (l *lab) LookAtVolume(_ context.Context, v store.Volume) (store.Preflight, error) {
	if v.From == "" && !strings.HasSuffix(v.Name, "golden") {
		return store.Preflight{Blank: true, Summary: "empty"}, nil
	}
	return store.Preflight{Summary: "GPT, ESP, ext4: Debian GNU/Linux 12", OS: store.OSLinux, UEFI: store.Bootable{OK: true}, BIOS: store.Bootable{Why: "has no boot code in its first block"}}, nil
}

func (l *lab) Volumes(context.Context) ([]store.Volume, error) { return l.vols, nil }
func (l *lab) Profiles(context.Context) ([]store.Profile, error) {
	return []store.Profile{{Name: "install-debian", Kind: store.ProfileInstall, Fields: map[string]string{"media": "debian-12.5.0-amd64-netinst.iso"}}, {Name: "local", Kind: store.ProfileLocal, BuiltIn: true}, {Name: "san", Kind: store.ProfileSAN, BuiltIn: true}}, nil
}
func (l *lab) Leases(context.Context) ([]store.Lease, error) { return l.leased, l.broken }
func (l *lab) DropLease(_ context.Context, _ store.Actor, a netip.Addr) error {
	if l.refuse == nil {
		l.dropped = append(l.dropped, a.String())
		l.leased = slices.DeleteFunc(l.leased, func(x store.Lease) bool { return x.Address == a })
	}
	return l.refuse
}
func (l *lab) DropLeases(_ context.Context, _ store.Actor, spec store.LeaseDropSpec) (out []store.LeaseDropped, err error) {
	for _, x := range spec.Leases {
		d := store.LeaseDropped{Address: x.Address, MAC: x.MAC, InUse: x.State == store.LeaseBound && x.Expires.After(noon)}
		switch {
		case l.refuse != nil:
			return out, l.refuse
		case l.running[x.Address]:
			d.Problem = x.Address.String() + " has its volume open"
		case d.InUse && !spec.InUse:
			d.Problem = x.Address.String() + " is in use"
		default:
			d.Dropped = true
			l.dropped = append(l.dropped, x.Address.String())
			l.leased = slices.DeleteFunc(l.leased, func(y store.Lease) bool { return y.Address == x.Address })
		}
		out = append(out, d)
	}
	return out, nil
}
func (l *lab) Subnets(context.Context) ([]store.Subnet, error) { return l.subnets, l.broken }
func (l *lab) Sessions() []store.Session                       { return l.logged }
func (l *lab) DropSession(_ context.Context, _ store.Actor, id string) error {
	if !slices.ContainsFunc(l.logged, func(s store.Session) bool { return s.ID == id }) {
		return store.NotFound("session", id)
	}
	if l.refuse == nil {
		l.dropped = append(l.dropped, id)
		l.logged = slices.DeleteFunc(l.logged, func(s store.Session) bool { return s.ID == id })
	}
	return l.refuse
}

func (l *lab) Enroll(_ context.Context, _ store.Actor, mac store.MAC, name string, replace store.MachineID) (store.Machine, error) {
	if l.refuse != nil {
		return store.Machine{}, l.refuse
	}
	for i, m := range l.machines {
		if m.ID == replace {
			l.machines[i].MACs = []store.MAC{mac}
			return l.machines[i], nil
		}
	}
	m := store.Machine{ID: store.MachineID(len(l.machines) + 1), Name: "machine-0f5a", MACs: []store.MAC{mac}, Profile: "san", Auth: store.AuthMutual, Initiator: "iqn.2026-11.lab:x"}
	l.machines = append(l.machines, m)
	l.unknown = nil
	return m, nil
}
func (l *lab) Ignore(_ context.Context, _ store.Actor, mac store.MAC, ignored bool) error {
	for i := range l.unknown {
		if l.unknown[i].MAC == mac && l.refuse == nil {
			l.unknown[i].Ignored = ignored
		}
	}
	return l.refuse
}
func (l *lab) EnrollAll(_ context.Context, _ store.Actor, spec store.EnrollSpec) ([]store.Enrolled, error) {
	l.all = append(l.all, spec)
	return l.enrolled, l.refuse
}
func (l *lab) CloneForEach(_ context.Context, _ store.Actor, ids []store.MachineID, c store.CloneChoice) (store.Job, error) {
	if l.refuse != nil {
		return store.Job{}, l.refuse
	}
	j := store.Job{ID: int64(len(l.jobs) + 1), Kind: store.JobClones, Subject: c.Of, State: store.JobRunning, Total: int64(len(ids)), Started: noon}
	for _, id := range ids {
		j.Verdicts = append(j.Verdicts, store.JobVerdict{Machine: id, Name: fmt.Sprintf("lab-%02d", id), Result: store.ResultWaiting})
	}
	l.acts = append(l.acts, fmt.Sprintf("clones %v %+v", ids, c))
	l.jobs = append(l.jobs, j)
	return j, nil
}
func (l *lab) AutoEnroll(context.Context) (store.AutoEnroll, error) { return l.rules, nil }
func (l *lab) SetAutoEnroll(_ context.Context, _ store.Actor, rules store.AutoEnroll) (store.AutoEnroll, error) {
	rules, err := rules.Normalize()
	if err == nil {
		l.rules = rules
	}
	return rules, err
}
func (l *lab) Explain(_ context.Context, m store.Machine, q store.ExplainQuery) (store.DryRun, error) {
	l.dryRuns = append(l.dryRuns, q)
	return l.explained(m, q), l.refuse
}
func (l *lab) AddMachine(ctx context.Context, a store.Actor, s store.MachineSpec) (store.Machine, error) {
	return l.Enroll(ctx, a, s.MACs[0], s.Name, 0)
}
func (l *lab) SetMachine(ctx context.Context, _ store.Actor, id store.MachineID, p store.MachinePatch) (store.Machine, error) {
	for i := range l.machines {
		if m := l.machines[i]; m.ID == id {
			if p.Revision != 0 && p.Revision != m.Revision {
				return m, store.Conflict("revision", "it was changed by somebody else")
			}
			if err := store.CheckExpected(ctx, "machine", fmt.Sprint(id), m.Name, m.Revision); err != nil {
				return m, err
			}
		}
		if l.machines[i].ID == id && p.Loader != nil && l.refuse == nil {
			l.machines[i].Loader = *p.Loader
		}
		if l.machines[i].ID == id && p.Profile != nil && l.refuse == nil {
			l.machines[i].Profile = *p.Profile
		}
		if l.machines[i].ID == id && p.Quirks != nil && l.refuse == nil {
			l.machines[i].Quirks = *p.Quirks
		}
		if l.machines[i].ID == id && p.BMC != nil && l.refuse == nil {
			l.machines[i].BMC = *p.BMC
		}
	}
	for i := range l.machines {
		if l.machines[i].ID != id || l.refuse != nil {
			continue
		}
		m, was := &l.machines[i], l.machines[i]
		put(&m.Name, p.Name)
		put(&m.MACs, p.MACs)
		put(&m.UUID, p.UUID)
		put(&m.Serial, p.Serial)
		put(&m.AssetTag, p.AssetTag)
		put(&m.Initiator, p.Initiator)
		put(&m.Auth, p.Auth)
		put(&m.Address, p.Address)
		put(&m.Notes, p.Notes)
		put(&m.OnceProfile, p.OnceProfile)
		put(&m.Tags, p.Tags)
		if err := m.Validate(); err != nil && p.MACs != nil {
			*m = was
			return was, err
		}
		if p.Profile != nil || p.Tags != nil || p.Name != nil || p.OnceProfile != nil && *p.OnceProfile != was.OnceProfile {
			m.Revision++
		}
		return *m, nil
	}
	return store.Machine{}, l.refuse
}

func put[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// ImportMachines judges every line but those about the machine "bad" as new.
func (l *lab) ImportMachines(_ context.Context, _ store.Actor, spec store.MachineImportSpec) (store.MachineImport, error) {
	out := store.MachineImport{Lines: []store.LineVerdict{}, Match: fmt.Sprint("m", len(l.machines)), Done: !spec.DryRun}
	if spec.Match != "" && spec.Match != out.Match {
		out.Done, out.Lines = false, append(out.Lines, store.LineVerdict{Line: 2, Verdict: store.VerdictSame})
		return out, store.Conflict("match", "nothing was imported: something changed since")
	}
	for _, line := range spec.Lines {
		v := store.LineVerdict{Line: line.Line, Verdict: store.VerdictNew}
		switch {
		case line.Err != nil:
			v.Verdict, v.Field, v.Reason = store.VerdictRefused, "macs", line.Err.Error()
			out.Refused++
		case *line.Patch.Name == "lab-01":
			v.Verdict, v.Machine, v.Name, v.Changes = store.VerdictChanged, 1, "lab-01", []store.FieldChange{{Field: "address", Before: "10.77.0.101", After: "10.77.0.9"}, {Field: "notes", Before: "old"}}
			out.Changed++
		default:
			v.Name, v.Changes = *line.Patch.Name, []store.FieldChange{{Field: "name", After: v.Name}, {Field: "macs", After: "00:07:e9:0f:ea:f5"}}
			out.New++
			if !spec.DryRun {
				l.machines = append(l.machines, store.Machine{ID: store.MachineID(500 + out.New), Name: v.Name, MACs: *line.Patch.MACs, Profile: "san"})
			}
		}
		out.Lines = append(out.Lines, v)
	}
	return out, l.refuse
}

// Fix does the fixes that the tests press; the real ones are the inventory's.
func (l *lab) Fix(ctx context.Context, by store.Actor, a store.Attempt, action string) (store.FixResult, error) {
	f, err := store.ParseFix(action)
	if err != nil {
		return store.FixResult{}, err
	}
	l.fixed = append(l.fixed, f)
	return store.FixResult{OK: f.Kind != store.FixCheckAgain, Says: "port 3260 is still blocked"}, nil
}

func (l *lab) RemoveMachine(ctx context.Context, _ store.Actor, id store.MachineID, _ bool) error {
	for _, m := range l.machines {
		if m.ID == id {
			l.removed = append(l.removed, store.CheckExpected(ctx, "machine", fmt.Sprint(id), m.Name, m.Revision+1))
		}
	}
	if l.refuse == nil {
		l.machines = slices.DeleteFunc(l.machines, func(m store.Machine) bool { return m.ID == id })
	}
	return l.refuse
}
func (l *lab) CreateVolume(_ context.Context, _ store.Actor, s store.VolumeSpec) (store.Volume, error) {
	v := store.Volume{ID: store.VolumeID(len(l.vols) + 1), Name: s.Name, Size: s.Size, BlockSize: 512, State: store.VolumeReady}
	if l.refuse == nil {
		l.vols = append(l.vols, v)
	}
	return v, l.refuse
}
func (l *lab) ImportFile(ctx context.Context, a store.Actor, s store.ImportSpec, _ string) (store.Volume, store.Job, error) {
	v, err := l.CreateVolume(ctx, a, s.VolumeSpec)
	return v, store.Job{}, err
}
func (l *lab) RemoveVolume(_ context.Context, _ store.Actor, id store.VolumeID) error {
	for _, v := range l.vols {
		if v.Parent == id {
			return store.InUse("volume %s stands on it", v.Name)
		}
	}
	if err := l.did("remove %d", id); err != nil {
		return err
	}
	l.vols = slices.DeleteFunc(l.vols, func(v store.Volume) bool { return v.ID == id })
	return nil
}
func (l *lab) Map(_ context.Context, _ store.Actor, s store.MappingSpec) (store.Mapping, error) {
	m := store.Mapping{Machine: s.Machine, Volume: s.Volume, Boot: true}
	if s.LUN != nil {
		m.LUN = *s.LUN
	}
	if l.refuse == nil {
		l.mappings = append(l.mappings, m)
	}
	return m, l.refuse
}
func (l *lab) SetMapping(ctx context.Context, _ store.Actor, m store.MachineID, lun store.LUN, p store.MappingPatch) (store.Mapping, error) {
	for i := range l.mappings {
		if mp := &l.mappings[i]; mp.Machine == m && mp.LUN == lun && l.refuse == nil {
			if err := store.CheckExpected(ctx, "mapping", fmt.Sprintf("%d/%d", m, lun), fmt.Sprint("of LUN ", lun), mp.Revision); err != nil {
				return *mp, err
			}
			l.acts = append(l.acts, fmt.Sprintf("mapping %d/%d lun %t boot %t reads %t", m, lun, p.LUN != nil, p.Boot != nil, p.ReadOnly != nil))
			put(&mp.LUN, p.LUN)
			put(&mp.Boot, p.Boot)
			put(&mp.ReadOnly, p.ReadOnly)
			mp.Revision++
			return *mp, nil
		}
	}
	return store.Mapping{}, l.refuse
}
func (l *lab) Unmap(ctx context.Context, _ store.Actor, m store.MachineID, lun store.LUN) error {
	for _, mp := range l.mappings {
		if mp.Machine == m && mp.LUN == lun {
			if err := store.CheckExpected(ctx, "mapping", fmt.Sprintf("%d/%d", m, lun), fmt.Sprint("of LUN ", lun), mp.Revision); err != nil {
				return err
			}
		}
	}
	l.mappings = nil
	return l.refuse
}
func (l *lab) Latest(id store.MachineID, mac store.MAC) (store.Attempt, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.latest[id]
	if !ok && id == 0 {
		i := slices.IndexFunc(l.past, func(a store.Attempt) bool { return a.Machine == 0 && a.MAC == mac })
		if ok = i >= 0; ok {
			a = l.past[i]
		}
	}
	return a, ok
}
func (l *lab) Attempt(_ context.Context, id store.AttemptID) (store.Attempt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range append(slices.Collect(maps.Values(l.latest)), l.past...) {
		if a.ID == id {
			return a, nil
		}
	}
	return store.Attempt{}, store.NotFound("attempt", fmt.Sprint(id))
}

func (l *lab) Attempts(_ context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
	if l.broken != nil {
		return nil, 0, l.broken
	}
	var past []store.Attempt
	for _, a := range l.past {
		fits := !slices.ContainsFunc(f.Search.Words, func(w string) bool { return !strings.Contains(a.Subject(), w) }) &&
			!slices.ContainsFunc(f.Search.Terms, func(t store.Term) bool { return t.Key == "outcome" && t.Value != string(a.Outcome) }) &&
			!a.Started.Before(f.Since) && (f.Machine == 0 || f.Machine == a.Machine) && (f.MAC.IsZero() || f.MAC == a.MAC)
		if fits {
			past = append(past, a)
		}
	}
	if f.Sort == "-started" {
		slices.Reverse(past)
	}
	return listing.Cut(past, f.Page), len(past), nil
}

func (l *lab) EveryAttempt(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
	all, _, err := l.Attempts(ctx, f)
	return inOnePart(all), err
}

// inOnePart is all of a list, and then the end.
func inOnePart[T any](all []T) store.Parts[T] {
	return func(context.Context) (part []T, err error) {
		part, all = all, nil
		return part, nil
	}
}

func (l *lab) Manifest() []boot.LoaderInfo { return l.loaders }
func (l *lab) Add(_ context.Context, _ store.Actor, u boot.LoaderUpload, r io.Reader) (boot.LoaderInfo, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return boot.LoaderInfo{}, err
	}
	l.uploads = append(l.uploads, fmt.Sprintf("%+v %d bytes", u, len(b)))
	return boot.LoaderInfo{}, l.refuse
}
func (l *lab) Remove(_ context.Context, _ store.Actor, name string) error {
	l.uploads = append(l.uploads, "removed "+name)
	return l.refuse
}
func (l *lab) Facts(context.Context) SetupFacts { return l.facts }
func (l *lab) Confirm(_ context.Context, _ store.Actor, c []SetupChoice) error {
	if l.refuse == nil {
		l.chosen = c
	}
	return l.refuse
}
func (l *lab) Links(context.Context) ([]store.Link, error) { return l.facts.Interfaces, nil }
func (l *lab) Ask(_ context.Context, name string) (store.Survey, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.facts.Interfaces {
		if l.facts.Interfaces[i].Name == name && l.refuse == nil {
			s := l.heard[name]
			s.Interface, s.At = name, noon
			l.facts.Interfaces[i].Survey = &s
			l.asked = append(l.asked, name)
			return s, nil
		}
	}
	return store.Survey{}, cmp.Or(l.refuse, error(store.NotFound("interface", name)))
}
func (l *lab) Choose(_ context.Context, _ store.Actor, name string, mode store.DHCPMode, rng store.Range) error {
	for i := range l.facts.Interfaces {
		if l.facts.Interfaces[i].Name == name && l.refuse == nil {
			l.facts.Interfaces[i].Mode, l.facts.Interfaces[i].Range, l.facts.Interfaces[i].Serving = mode, rng, mode != store.DHCPOff
		}
	}
	return l.refuse
}
func (l *lab) TokenByHash(context.Context, string) (store.Token, error) {
	return store.Token{}, store.NotFound("token", "")
}
func (l *lab) TouchToken(context.Context, int64, time.Time) error { return nil }
func (l *lab) Find(token string) ([]byte, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.sessions[token]
	return b, len(b) > 0, nil
}
func (l *lab) Commit(token string, b []byte, _ time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, ok := l.sessions[token]; !ok || len(was) > 0 { // one that was ended stays so
		l.sessions[token] = b
	}
	return nil
}
func (l *lab) Delete(token string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[token] = nil
	return nil
}

const labPassword = "correct horse"

// Captured says that the packets of every failed boot are kept.
func (l *lab) Captured(_ context.Context, a store.Attempt) bool {
	return a.Outcome == store.OutcomeFailed
}

// open serves the lab and returns a browser that keeps cookies and does not
// follow redirects.
func (l *lab) open(t *testing.T) (base string, c *http.Client) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	l.auth, err = auth.New(t.Context(), auth.Config{Users: l, Tokens: l, Sessions: l, Provider: providerRows{l}, Peer: func(context.Context) (int, bool) { return 0, false }, Log: log, Now: l.now})
	if err != nil {
		t.Fatal(err)
	}
	through := oidc.New(oidc.Config{
		Rows: providerRows{l}, URL: func() string { return "http://10.77.0.1:8080" }, EndFederated: l.auth.EndFederated, Version: "test", Log: log, Now: l.now,
	})
	h, err := Handler(Config{
		Inventory: l,
		Machines:  l,
		Enrolling: l,
		Explainer: l,
		Volumes:   l,
		Storage:   l,
		Space:     func(context.Context) (store.Space, error) { return l.space, nil },
		Attempts:  l,
		Events:    happened{l},
		Ends: func(_ context.Context, since time.Time) (ends []store.AttemptEnd, err error) {
			for _, e := range l.ends {
				if !e.Started.Before(since) {
					ends = append(ends, e)
				}
			}
			return ends, nil
		},
		Moved:     func() []store.Throughput { return l.moved },
		SpaceSeen: func() []store.RoomSample { return l.room },
		Loaders:   l,
		Media:     l,
		Profiles:  l,
		Scripts:   l,
		Power:     l,
		Changes:   []Change{l},
		Setup:     l,
		Network:   l,
		Subnets:   l,
		Settings:  l,
		Health:    func(context.Context) []Check { return l.checks },
		Captures:  l,
		Leases:    l,
		Sessions:  l,
		Audit:     l,
		Backups:   l,

		Manual:      book(),
		Certificate: func() Certificate { return l.secure },
		Auth:        l.auth,
		SignIn:      through,
		Log:         log,
		Now:         func() time.Time { return noon },
		Status: func(context.Context) Status {
			return Status{OK: true, Text: "All services running", Address: "10.77.0.1 · eth1"}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() }) // live streams never end by themselves
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// enter serves the lab with a password set and logs in.
func (l *lab) enter(t *testing.T) (get func(path string) (int, string), post func(path string, form ...string) (int, string)) {
	t.Helper()
	hash, err := auth.HashPassword(labPassword)
	if err != nil {
		t.Fatal(err)
	}
	l.users["admin"] = hash
	base, c := l.open(t)
	read := func(resp *http.Response, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if to := resp.Header.Get("Location"); to != "" {
			return resp.StatusCode, to
		}
		return resp.StatusCode, string(b)
	}
	get = func(path string) (int, string) { t.Helper(); return read(c.Get(base + path)) }
	post = func(path string, form ...string) (int, string) {
		t.Helper()
		v := url.Values{}
		for i := 0; i+1 < len(form); i += 2 {
			v.Set(form[i], form[i+1])
		}
		return read(c.PostForm(base+path, v))
	}
	if code, to := post("/login", "password", labPassword); code != http.StatusSeeOther || to != "/machines" {
		t.Fatalf("login answered %d %s", code, to)
	}
	return get, post
}

func mustMAC(s string) store.MAC {
	m, err := store.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// full is a lab with a machine in every condition.
func full() *lab {
	l := newLab()
	l.space = store.Space{At: noon, Size: 500 << 30, Free: 80 << 30, Used: 300 << 30, Virtual: 1200 << 30, Rate: 25 << 30, Seen: 24 * time.Hour, Low: 50 << 30}
	l.facts = SetupFacts{
		Interfaces: []store.Link{
			{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}, Up: true, Carrier: true, Default: true, Mode: store.DHCPOff, Proposed: mustRange("192.0.2.128-192.0.2.254")},
			{Name: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}, Up: true, Carrier: true, Mode: store.DHCPOff, Proposed: mustRange("10.77.0.128-10.77.0.254")},
		},
		DataDir: "/var/lib/lunboot", Free: 80 << 30,
		Ports: []SetupPort{{"Scripts (HTTP)", "80", ""}, {"Loaders (TFTP)", "69", ""}, {"Volumes (iSCSI)", "3260", ""}},
	}
	l.loaders = []boot.LoaderInfo{
		{Name: "snponly.efi", Firmware: "UEFI", Arch: "x86-64", Version: "1.0.0+git", Features: []string{"iSCSI", "NFS"}, License: "GPL-2.0-or-later", Size: 173792, SHA256: strings.Repeat("a1", 32), Source: "embedded", Rung: 1, Worked: 12, Silent: 1, Use: "Every machine of its kind is given this first."},
		{Name: "undionly.kpxe", Firmware: "BIOS", Arch: "x86", Opaque: true, License: "GPL-2.0-or-later", Size: 74213, SHA256: strings.Repeat("b2", 32), Source: "embedded", Rung: 1, Use: "Every machine of its kind is given this first."},
		{Name: "secure/grubx64.efi", Chain: "secure", Role: store.LoaderSecond, Firmware: "UEFI", Arch: "x86-64", License: "as supplied", Size: 1 << 20, SHA256: strings.Repeat("c3", 32), Source: "uploaded", Supplied: true, Use: "The first file of the chain secure fetches this."},
		{Name: "secure/shimx64.efi", Chain: "secure", Role: store.LoaderFirst, Firmware: "UEFI", Arch: "x86-64", Opaque: true, License: "as supplied", Size: 1 << 20, SHA256: strings.Repeat("d4", 32), Source: "uploaded", Supplied: true, Use: "Machines that name the chain secure are given this first."},
	}
	l.kept = keptMedia()
	router := netip.MustParseAddr("10.77.0.254")
	l.heard = map[string]store.Survey{
		"eth0": {Heard: []store.Heard{
			{As: store.ClientPlain, Server: netip.MustParseAddr("192.0.2.1"), MAC: store.MAC{2, 0, 0, 0, 0, 1}, Offered: netip.MustParseAddr("192.0.2.77")},
			{As: store.ClientBIOS, Server: netip.MustParseAddr("192.0.2.1"), MAC: store.MAC{2, 0, 0, 0, 0, 1}, Offered: netip.MustParseAddr("192.0.2.77"), File: "pxelinux.0"},
		}},
		"eth1": {Heard: []store.Heard{{As: store.ClientPlain, Server: router, MAC: store.MAC{2, 0, 0, 0, 0, 2}, Offered: netip.MustParseAddr("10.77.0.60")}, {As: store.ClientUEFI, Server: router, Offered: netip.MustParseAddr("10.77.0.60")}}},
	}
	l.unknown = []store.UnknownMachine{
		{MAC: mustMAC("b8:27:eb:91:3c:0d"), Vendor: "Raspberry Pi", Firmware: "UEFI", Arch: "arm64", Count: 3, FirstSeen: noon.Add(-3 * time.Minute), LastSeen: noon.Add(-time.Minute),
			UUID: store.UUID{9, 8, 7}, NIC: "PCI 14e4:16a0", Chip: "genet", Address: netip.MustParseAddr("10.77.0.140"), Hostname: "lab-08"},
		{MAC: mustMAC("d4:5d:64:b1:0b:02"), Firmware: "UEFI", Arch: "x86-64", Count: 12, LastSeen: noon.Add(-4 * time.Minute), Port: "switch tor, port Gi0/4 (VLAN 12)"},
		{MAC: mustMAC("52:54:00:12:34:56"), Firmware: "BIOS", Arch: "x86", Count: 2, LastSeen: noon.Add(-9 * time.Minute), Ignored: true},
	}
	l.rules = store.AutoEnroll{{Prefix: "d4:5d:64", Name: "lab-{nn}", Profile: "san", Limit: 64}, {Prefix: "00:07:e9", Limit: 256}}
	l.vols = []store.Volume{
		{ID: 1, Name: "win11-lab", Size: 64 << 30, BlockSize: 512, State: store.VolumeReady},
		{ID: 2, Name: "debian12", Size: 32 << 30, BlockSize: 512, State: store.VolumeReady, From: "debian.raw"},
		{ID: 3, Name: "arriving", Size: 8 << 30, BlockSize: 512, State: store.VolumeImporting, Progress: 43},
		{ID: 4, Name: "spare", Size: 8 << 30, BlockSize: 512, State: store.VolumeReady},
	}
	add := func(name, mac, volume string, a *store.Attempt) {
		id := store.MachineID(len(l.machines) + 1)
		l.machines = append(l.machines, store.Machine{
			ID: id, Name: name, MACs: []store.MAC{mustMAC(mac)}, Profile: "san", Auth: store.AuthMutual, Initiator: store.IQN("iqn.2026-11.lunboot:" + name), UUID: store.UUID{1, 2, 3},
			Firmware: "UEFI", Arch: "x86-64", LastSeen: noon.Add(-2 * time.Minute), Port: "switch tor, port Gi0/3 (VLAN 12)", PortSeen: noon.Add(-2 * time.Minute), Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + id)}),
		})
		for _, v := range l.vols {
			if v.Name == volume {
				l.mappings = append(l.mappings, store.Mapping{ID: int64(id), Revision: 1, Machine: id, Volume: v.ID, LUN: 2, Boot: true})
			}
		}
		if a != nil {
			a.ID, a.Machine, a.Name = store.AttemptID(10+id), id, name
			l.latest[id] = *a
		}
	}
	add("lab-01", "d4:5d:64:b1:09:01", "debian12", tried(store.OutcomeUp, 7, 0))
	add("lab-12", "d4:5d:64:b1:09:7c", "win11-lab", failedLUN())
	add("lab-03", "d4:5d:64:b1:0a:11", "", tried(store.OutcomeRunning, 4, 5))
	add("lab-08", "d4:5d:64:b1:09:6a", "", nil)
	l.past = []store.Attempt{*failedLUN(), *tried(store.OutcomeUp, 7, 0), *stranger()}
	l.past[0].ID, l.past[0].Machine, l.past[0].Name = 5, 2, "lab-12"
	l.past[1].ID, l.past[1].Machine, l.past[1].Name = 4, 2, "lab-12"
	l.leased = []store.Lease{
		{Address: netip.MustParseAddr("10.77.0.103"), MAC: mustMAC("d4:5d:64:b1:0a:11"), Hostname: "debian", Interface: "eth1", Port: "switch tor, port Gi0/3 (VLAN 12)", PortSeen: noon.Add(-2 * time.Minute), State: store.LeaseBound, Expires: noon.Add(40 * time.Minute)},
		{Address: netip.MustParseAddr("10.77.0.112"), MAC: mustMAC("00:80:77:31:94:a0"), Interface: "eth1", State: store.LeaseDeclined, Expires: noon.Add(9 * time.Minute)},
		{Address: netip.MustParseAddr("10.77.0.140"), MAC: mustMAC("b8:27:eb:91:3c:0d"), Interface: "eth1", Relay: netip.MustParseAddr("10.9.0.1"), State: store.LeaseOffered, Expires: noon.Add(time.Minute)},
		{Address: netip.MustParseAddr("10.77.0.99"), MAC: mustMAC("d4:5d:64:b1:09:6a"), Interface: "eth1", State: store.LeaseBound, Expires: noon.Add(-time.Hour)},
	}
	l.logged = []store.Session{
		{ID: "7", Initiator: "iqn.2026-11.lunboot:lab-01", Machine: 1, Addr: "10.77.0.101:49152", Portal: "10.77.0.1:3260", Auth: store.AuthMutual, Since: noon.Add(-90 * time.Second), LastIO: noon.Add(-2 * time.Second), Read: 1 << 30, Written: 3 << 20, LUNs: []store.LUN{2}},
		{ID: "8", Initiator: "iqn.2026-11.lunboot:lab-12", Machine: 2, IPXE: true, Addr: "10.77.0.102:1025", Portal: "10.77.0.1:3260", Auth: store.AuthCHAP, Since: noon.Add(-time.Minute), LastIO: noon.Add(-time.Minute), LUNs: []store.LUN{2, 3}},
		{ID: "9", Initiator: "iqn.1993-08.org.debian:01:4d1f5b3a7c90", Addr: "10.77.0.60:40112", Portal: "10.77.0.1:3260", Auth: store.AuthNone, Since: noon.Add(-26 * time.Hour), LastIO: noon.Add(-time.Hour), Read: 12 << 20},
	}
	return l
}

func tried(o store.Outcome, done, running int) *store.Attempt {
	a := &store.Attempt{Started: noon.Add(-2 * time.Minute), Updated: noon.Add(-time.Minute), Outcome: o, Script: "#!ipxe\nset initiator-iqn iqn.2026-11.lunboot:lab\nsanboot iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:a1b2\n"}
	for i, n := range store.Stages() {
		st := store.Stage{Name: n, State: store.StageWaiting}
		if i < done {
			st.State, st.At, st.Detail = store.StageDone, a.Started.Add(time.Duration(i*3)*time.Second), "10.77.0.112, next: snponly.efi"
			st.Ended = st.At.Add(time.Second)
			a.Stage = n
		}
		if i == running-1 && running > 0 {
			st.State, st.At = store.StageRunning, a.Started.Add(20*time.Second)
			a.Stage = n
		}
		a.Stages = append(a.Stages, st)
	}
	return a
}

func failedLUN() *store.Attempt {
	a := tried(store.OutcomeFailed, 5, 0)
	a.Stage = store.StageRead
	a.UsualMillis = 20800
	a.Stages[5].State, a.Stages[5].At = store.StageFailed, a.Started.Add(14*time.Second)
	a.Stages[5].Detail = "Asked for LUN 0; LUN 2 exists"
	a.Diagnoses = []store.Diagnosis{{
		Code: "LB-LUN-01", Title: "lab-12 asked for LUN 0, but its volume “win11-lab” is LUN 2", Confidence: store.Certain,
		Cause:    "Its script names no LUN, and iPXE takes that for LUN 0. There is no LUN 0 for this machine, so nothing could be read.",
		Fixes:    []store.Fix{{Action: "use-profile-san", Label: "Use profile san, which writes the right LUN by itself"}, {Action: "map-lun-0", Label: "Map “win11-lab” as LUN 0"}, {Label: "Or write the LUN into the profile's sanboot line: …::3260:2:…"}},
		Evidence: []string{"14:02:10 iqn.2026-11.lunboot:lab-12 sent READ CAPACITY(10) to LUN 0", "LUNs that are mapped to it: 2", "answered CHECK CONDITION 05/25/00", "iPXE printed 1d704539"},
	}}
	return a
}

// stranger is a boot of a machine that is not enrolled.
func stranger() *store.Attempt {
	a := tried(store.OutcomeNotEnrolled, 4, 0)
	a.ID, a.MAC, a.Address, a.Firmware, a.Arch, a.Script = 3, mustMAC("b8:27:eb:91:3c:0d"), "10.77.0.140", "UEFI", "arm64", ""
	a.Diagnoses = []store.Diagnosis{{
		Code: "LB-SCR-04", Title: "raspberry-3c0d was not enrolled, and stopped waiting", Cause: "It showed its MAC and asked again every few seconds.", Confidence: store.Certain,
		Fixes: []store.Fix{{Action: "enroll", Label: "Enroll it"}, {Label: "Switch it on again"}}, Evidence: []string{"14:02:10 it asked for a script, 4 times in this boot"},
	}}
	return a
}

// explained is a dry run with something in every place.
func (l *lab) explained(m store.Machine, q store.ExplainQuery) store.DryRun {
	e := store.DryRun{
		MAC: q.MAC, Machine: m.ID, Name: m.Name, Platform: "UEFI x86-64", Assumed: m.ID == 0, Relay: q.Relay, At: noon,
		Offers: []store.OfferExplanation{
			{Client: "UEFI x86-64 firmware", Verdict: "DHCPOFFER", Interface: "eth1", Mode: "full", Address: netip.MustParseAddr("10.77.0.103"), Loader: "snponly.efi", File: "d45d64b1097c/snponly.efi", Fields: []store.OfferField{
				{Name: "yiaddr", Value: "10.77.0.103", Why: "the machine's reserved address"}, {Option: 1, Name: "subnet mask", Value: "255.255.255.0", Why: "of the subnet 10.77.0.0/24"},
				{Option: 67, Name: "boot file name", Value: "d45d64b1097c/snponly.efi", Why: "the loader for UEFI x86-64"},
			}},
			{Client: "iPXE", Verdict: "nothing", Why: "The range is used up."},
		},
		File:   store.FileExplanation{Loader: "snponly.efi", Size: 268 << 10, Version: "1.0.0+git-20190125", Source: "embedded"},
		Script: store.ScriptExplanation{Answer: "script", MatchedBy: "hostname", Profile: "san", Guarded: true, Text: "#!ipxe\nset password (secret)\nsanboot iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:a1b2\n", SAN: "iscsi:10.77.0.1::3260:2:iqn.2026-11.lunboot:a1b2"},
		Login: store.LoginExplanation{Target: "iqn.2026-11.lunboot:a1b2", Initiator: "iqn.2026-11.lunboot:lab-12", Auth: store.AuthMutual, User: "lab-12", ReverseUser: "lunboot", Units: []store.UnitExplanation{
			{LUN: 2, Volume: "win11-lab", Size: 64 << 30, Boot: true}, {LUN: 3, Volume: "arriving", Size: 8 << 30, ReadOnly: true, Problem: "it is being imported, 43 % so far"}}},
		Differences: []store.Difference{{What: "loader", Then: "ipxe.efi", Now: "snponly.efi"}, {What: "a line of the script", Then: "sanboot iscsi:10.77.0.1::3260:0:iqn.2026-11.lunboot:a1b2 || goto failed", Now: ""}},
		Last:        failedLUN(),
	}
	if m.ID == 0 {
		e.Login, e.Last, e.Differences = store.LoginExplanation{}, nil, nil
		e.Script = store.ScriptExplanation{Answer: "unknown", Why: "no machine is enrolled by what it says of itself", Text: "#!ipxe\necho Its MAC address is\n"}
	}
	return e
}

// happened is the journal of the lab.
type happened struct{ l *lab }

func (h happened) FindEvents(ctx context.Context, f store.EventFilter) ([]store.Event, int, error) {
	if h.l.events == nil || h.l.broken != nil {
		return nil, 0, h.l.broken
	}
	return h.l.events.FindEvents(ctx, f)
}

func (h happened) EveryEvent(ctx context.Context, f store.EventFilter) (store.Parts[store.Event], error) {
	if h.l.events == nil || h.l.broken != nil {
		return func(context.Context) ([]store.Event, error) { return nil, nil }, h.l.broken
	}
	return h.l.events.EveryEvent(ctx, f)
}

// book is what the appliance gives to the help, in small.
func book() manual.Book {
	return manual.Book{
		Verbs: []manual.Verb{
			{Name: manual.Common, Usage: "lunboot VERB [flags]", Help: "What every verb takes.", Flags: []manual.Flag{{Name: "--data", Takes: "DIR", Env: "LUNBOOT_DATA", Help: "Data folder of the appliance."}}},
			{Name: "serve", Usage: "lunboot serve [flags]", Help: "Run the appliance.", Flags: []manual.Flag{{Name: "--admin", Takes: "ADDR", Env: "LUNBOOT_ADMIN", Help: "Pages and API for people."}}},
			{Name: "machine add", Usage: "lunboot machine add <name> --mac=MAC,... [flags]", Help: "Add a machine by its MAC.", Args: []manual.Argument{{Name: "<name>", Help: "Hostname."}},
				Flags: []manual.Flag{{Name: "--mac", Takes: "MAC,...", Env: "LUNBOOT_MACHINE_ADD_MAC", Help: "MAC; repeat for several."}}},
		},
		Variables: []manual.Variable{
			{Name: "hostname", Help: "the machine's name", Example: "lab-03"}, {Name: "lun", Help: "the LUN that it boots from", Example: "2"},
			{Name: "done_url", Help: "fetched once, it says that an installer has ended", Example: "http://192.0.2.1/report?attempt=1&done=1&key=sample"},
		},
		Metrics: []manual.Metric{{Name: "lunboot_volume_filesystem_size_bytes", Help: "Size of the file system that holds the volumes."}, {Name: "lunboot_dhcp_leases", Help: "Leases, by their state.", Labels: []string{"state"}}},
	}
}
