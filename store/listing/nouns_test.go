package listing_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
)

// shows checks what searches find, each "SEARCH|SORT", by what names an item.
func shows[T any](t *testing.T, l listing.List[T], items []T, name func(T) string, want map[string]string) {
	t.Helper()
	for q, names := range want {
		search, sort, _ := strings.Cut(q, "|")
		found, _, err := l.Find(items, listing.Query{Search: search, Sort: sort})
		var got []string
		for _, item := range found {
			got = append(got, name(item))
		}
		if err != nil || strings.Join(got, " ") != names {
			t.Errorf("%q finds %v, %v; want %s", q, got, err, names)
		}
	}
	// Every column sorts, and every key that has a few values says which.
	for _, c := range l.Columns() {
		if _, n, err := l.Find(items, listing.Query{Sort: "-" + c}); err != nil || n != len(items) {
			t.Errorf("sorted by %s: %d, %v", c, n, err)
		}
	}
	for _, f := range l.Fields {
		if f.Values == nil {
			continue
		}
		if _, _, err := l.Find(items, listing.Query{Search: f.Name + ":nonsense"}); store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), f.Values[0]) {
			t.Errorf("%s:nonsense: %v", f.Name, err)
		}
		for _, item := range items {
			for _, v := range f.Texts(item) {
				if !strings.Contains(" "+strings.Join(f.Values, " ")+" ", " "+v+" ") {
					t.Errorf("%s of %v is %q, which nobody can look for", f.Name, item, v)
				}
			}
		}
	}
}

func TestVolumesAreFoundByWhatTheyAreAndWhoHasThem(t *testing.T) {
	vols := []store.Volume{
		{ID: 1, Name: "win11", Kind: store.VolumeRaw, Size: 64 << 30, State: store.VolumeReady, Golden: true, From: "win11.vhdx"},
		{ID: 2, Name: "win11-lab-01", Kind: store.VolumeClone, Size: 64 << 30, State: store.VolumeReady, Parent: 1},
		{ID: 3, Name: "arriving", Kind: store.VolumeRaw, Size: 8 << 30, State: store.VolumeImporting},
	}
	all := listing.VolumesOf(vols, []store.Mapping{{Machine: 7, Volume: 2}}, map[store.VolumeID]int64{1: 5 << 30, 2: 1 << 20}, func(id store.MachineID) string { return fmt.Sprint("lab-0", id) })
	shows(t, listing.Volumes(), all, func(v listing.Volume) string { return v.Name }, map[string]string{
		"": "win11 win11-lab-01 arriving", "win11": "win11 win11-lab-01", "golden:yes": "win11", "state:importing": "arriving", "kind:clone": "win11-lab-01",
		"used:no": "win11 arriving", "machine:lab-07": "win11-lab-01", "lab-07": "win11-lab-01", "parent:win11": "win11-lab-01", "from:VHDX": "win11", "used:no|size": "arriving win11", "|takes": "arriving win11-lab-01 win11", "|-takes": "win11 win11-lab-01 arriving", "|-name": "win11-lab-01 win11 arriving",
	})
}

func TestUnknownMachinesAreFoundByWhatTheySay(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	all := []listing.UnknownMachine{
		{UnknownMachine: store.UnknownMachine{MAC: store.MAC{0xb8, 0x27, 0xeb, 1, 2, 3}, Vendor: "Raspberry Pi", Firmware: "UEFI", Arch: "arm64", Count: 3, LastSeen: at, Address: netip.MustParseAddr("10.77.0.140")}},
		{UnknownMachine: store.UnknownMachine{MAC: store.MAC{0, 7, 0xe9, 1, 2, 3}, Firmware: "BIOS", Arch: "x86", Count: 12, LastSeen: at.Add(-time.Hour), Port: "switch tor, port Gi0/4", Ignored: true}, Maker: "Intel"},
	}
	shows(t, listing.UnknownMachines(), all, func(u listing.UnknownMachine) string { return u.MAC.Hex12()[:2] }, map[string]string{
		"": "b8 00", "raspberry arm64": "b8", "maker:intel": "00", "mac:00:07:e9": "00", "0007e9": "00", "firmware:bios": "00", "gi0/4": "00", "ignored:no": "b8", "10.77": "b8", "|asked": "00 b8", "|-seen": "00 b8", "|address": "00 b8",
	})
}

func TestLeasesAndSessionsAreFound(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	leases := []store.Lease{
		{Address: netip.MustParseAddr("10.77.0.100"), MAC: store.MAC{0, 7, 0xe9, 1, 2, 3}, Hostname: "debian", State: store.LeaseBound, Interface: "eth1", Expires: at.Add(time.Hour)},
		{Address: netip.MustParseAddr("10.77.0.9"), MAC: store.MAC{2, 7, 0xe9, 1, 2, 4}, State: store.LeaseDeclined, Relay: netip.MustParseAddr("10.9.0.1"), Expires: at.Add(time.Minute)},
		{Address: netip.MustParseAddr("10.77.0.10"), MAC: store.MAC{2, 7, 0xe9, 1, 2, 5}, Machine: 8, State: store.LeaseBound, Port: "switch tor, port Gi0/4", Expires: at},
	}
	ms := []store.Machine{{ID: 7, Name: "lab-07", MACs: []store.MAC{{2, 2, 2, 2, 2, 2}, leases[0].MAC}}, {ID: 8, Name: "lab-08"}}
	all := listing.LeasesOf(leases, ms, at)
	if all[0].Machine != 7 || leases[0].Machine != 0 {
		t.Errorf("a machine that was enrolled later has %+v", all[0])
	}
	shows(t, listing.Leases(), all, func(l listing.Lease) string { return l.Address.String() }, map[string]string{
		"state:bound": "10.77.0.100", "state:expired": "10.77.0.10", "state:declined": "10.77.0.9", "lab": "10.77.0.100 10.77.0.10", "machine:lab-07": "10.77.0.100", "debian": "10.77.0.100", "mac:0207e9": "10.77.0.9 10.77.0.10",
		"interface:eth1": "10.77.0.100", "relay:10.9": "10.77.0.9", "gi0/4": "10.77.0.10", "|address": "10.77.0.9 10.77.0.10 10.77.0.100", "|expires": "10.77.0.10 10.77.0.9 10.77.0.100",
	})
	sessions := listing.SessionsOf([]store.Session{
		{ID: "1", Initiator: "iqn.2026-11.lab:a", Machine: 7, IPXE: true, Addr: "10.77.0.100:49152", Portal: "10.77.0.1:3260", Auth: store.AuthMutual, Since: at, LastIO: at.Add(time.Hour)},
		{ID: "2", Initiator: "iqn.2026-11.lab:b", Addr: "10.77.0.101:49152", Auth: store.AuthNone, Since: at.Add(time.Minute), LastIO: at.Add(time.Minute), Read: 9},
	}, func(id store.MachineID) string { return map[store.MachineID]string{7: "lab-07"}[id] })
	shows(t, listing.Sessions(), sessions, func(s listing.Session) string { return s.ID }, map[string]string{
		"by:ipxe": "1", "by:OS": "2", "lab:b": "2", "initiator:lab:a": "1", "machine:lab-07": "1", "lab-07": "1", "portal::3260": "1", "auth:none": "2", "|since": "2 1", "|used": "1 2", "|read": "2 1", "|-initiator": "2 1",
	})
}

func TestProfilesAndMediaAreFound(t *testing.T) {
	profiles := []store.Profile{{Name: "install-debian", Kind: store.ProfileInstall, Fields: map[string]string{"media": "debian-12.iso"}}, {Name: "san", Kind: store.ProfileSAN, BuiltIn: true}}
	shows(t, listing.Profiles(), profiles, func(p store.Profile) string { return p.Name }, map[string]string{
		"kind:install": "install-debian", "media:debian-12": "install-debian", "builtin:yes": "san", "|-name": "san install-debian",
	})
	media := []store.Media{
		{Name: "debian-12", Kind: store.MediaISO, Size: 9, Contents: store.MediaContents{Title: "Debian GNU/Linux 12", Arch: "x86-64", OS: store.MediaDebian}},
		{Name: "memtest", Kind: store.MediaKernel, Size: 2, File: "memtest86+.bin"},
	}
	shows(t, listing.Media(), media, func(m store.Media) string { return m.Name }, map[string]string{
		"gnu/linux": "debian-12", "kind:kernel": "memtest", "memtest86+": "memtest", "arch:x86": "debian-12", "|size": "memtest debian-12", "|added": "debian-12 memtest",
	})
}

func TestJobsAreFound(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	jobs := []store.Job{
		{ID: 2, Kind: "volume.import", Subject: "win11", State: store.JobRunning, Total: 8 << 30, Started: at},
		{ID: 1, Kind: "volume.flatten", Subject: "lab-01", State: store.JobFailed, Error: "the disk is full", Total: 64 << 30, Started: at.Add(-time.Hour)},
	}
	shows(t, listing.Jobs(), jobs, func(j store.Job) string { return j.Subject }, map[string]string{
		"": "win11 lab-01", "state:failed": "lab-01", `"is full"`: "lab-01", "kind:import": "win11", "flatten": "lab-01", "|size": "lab-01 win11", "|-started": "lab-01 win11", "|subject": "lab-01 win11",
	})
}

func TestVerdictsAreFound(t *testing.T) {
	all := []store.JobVerdict{
		{Machine: 1, Name: "lab-01", Result: store.ResultDone, Detail: "lab-01-debian, LUN 0"},
		{Machine: 2, Name: "lab-02", Result: store.ResultWaiting},
		{Machine: 3, Name: "lab-03", Result: store.ResultFailed, Detail: "the file system is full"},
		{Machine: 4, Name: "lab-04", Result: store.ResultSkipped, Detail: "it boots from a volume already: win11, LUN 0"},
	}
	shows(t, listing.Verdicts(), all, func(v store.JobVerdict) string { return v.Name }, map[string]string{
		"": "lab-01 lab-02 lab-03 lab-04", "|result": "lab-03 lab-02 lab-04 lab-01", "result:done": "lab-01", "detail:win11": "lab-04", "full": "lab-03", "|-machine": "lab-04 lab-03 lab-02 lab-01",
	})
}

func TestSubnetsAndMappingsAreFound(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr
	subnets := listing.SubnetsOf([]store.Subnet{
		{ID: 1, Interface: "eth1", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPFull, Range: store.Range{From: addr("10.77.0.100"), To: addr("10.77.0.199")}, Router: addr("10.77.0.254"), Domain: "lab.example", LeaseTime: time.Hour},
		{ID: 2, Prefix: netip.MustParsePrefix("10.9.0.0/16"), Mode: store.DHCPFull, Range: store.Range{From: addr("10.9.0.10"), To: addr("10.9.0.12")}, DNS: []netip.Addr{addr("10.9.0.53")}, Search: []string{"far.example"}},
		{ID: 3, Interface: "eth2", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPOff, NTP: []netip.Addr{addr("10.77.0.123")}},
	}, []store.Lease{
		{Address: addr("10.77.0.100"), State: store.LeaseBound, Interface: "eth1", Expires: at.Add(time.Hour)},
		{Address: addr("10.77.0.101"), State: store.LeaseBound, Interface: "eth1", Expires: at}, // over
		{Address: addr("10.77.0.102"), State: store.LeaseDeclined, Interface: "eth1", Expires: at.Add(time.Hour)},
		{Address: addr("10.9.0.10"), State: store.LeaseBound, Interface: "eth1", Relay: addr("10.9.0.1"), Expires: at.Add(time.Hour)},
		{Address: addr("10.9.0.11"), State: store.LeaseBound, Interface: "eth1", Relay: addr("10.9.0.1"), Expires: at.Add(time.Hour)},
	}, at)
	if subnets[0].Given != 1 || subnets[1].Given != 2 || subnets[2].Given != 0 {
		t.Errorf("given are %d, %d and %d", subnets[0].Given, subnets[1].Given, subnets[2].Given)
	}
	shows(t, listing.Subnets(), subnets, func(s listing.Subnet) string { return fmt.Sprint(s.ID) }, map[string]string{
		"": "1 2 3", "10.77": "1 3", "network:10.9": "2", "interface:eth": "1 3", "mode:off": "3", "relay:yes": "2", "router:254": "1", "dns:53": "2", "ntp:123": "3", "domain:far": "2", "example": "1 2",
		"|network": "2 1 3", "|-network": "1 3 2", "|size": "1 2 3", "|given": "2 1 3", "|-lease": "1 2 3", "mode:full|-size": "2 1",
	})
	mappings := []store.MappingView{
		{Mapping: store.Mapping{LUN: 10, Created: at}, MachineName: "lab-01", VolumeName: "spare", VolumeSize: 9},
		{Mapping: store.Mapping{LUN: 1, Boot: true, Created: at.Add(time.Hour)}, MachineName: "lab-01", VolumeName: "win11", VolumeSize: 5},
		{Mapping: store.Mapping{LUN: 1, ReadOnly: true}, MachineName: "lab-02", VolumeName: "debian", VolumeSize: 7},
	}
	shows(t, listing.Mappings(), mappings, func(m store.MappingView) string { return m.VolumeName }, map[string]string{
		"lab-01": "spare win11", "machine:lab-02": "debian", "volume:WIN": "win11", "lun:1": "win11 debian", "lun:10": "spare", "lun:0": "", "boot:yes": "win11", "readonly:yes": "debian", "boot:no lab-01": "spare",
		"|lun": "win11 debian spare", "|size": "win11 debian spare", "|created": "win11 spare debian", "|-machine": "debian spare win11",
	})
}

func TestPeopleAndTokensAreFound(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	users := []store.User{
		{Name: "anna", Role: store.RoleAdmin, Hash: "secret-hash", LastLogin: at, Created: at},
		{Name: "ben", Role: store.RoleViewer, Issuer: "https://sso.example", Subject: "7f", KnownAs: "ben@example", Created: at.Add(time.Hour)},
		{Name: "carl", Role: store.RoleOperator, Hash: "secret-hash", Disabled: true, LastLogin: at.Add(time.Hour)},
	}
	shows(t, listing.Users(), users, func(u store.User) string { return u.Name }, map[string]string{
		"": "anna ben carl", "role:operator": "carl", "by:provider": "ben", "by:password": "anna carl", "known:example": "ben", "disabled:yes": "carl", "ever:no": "ben", "secret-hash": "", "7f": "",
		"|role": "anna carl ben", "|login": "carl anna ben", "|added": "ben anna carl", "|-name": "carl ben anna",
	})
	tokens := listing.TokensOf([]store.Token{
		{ID: 1, Name: "ci", Hash: "secret-hash", Scope: "read", LastUsed: at},
		{ID: 2, Name: "backup", Hash: "secret-hash", Scope: "admin", Expires: at, Created: at},
		{ID: 3, Name: "robot", Scope: "operate", Expires: at.Add(time.Hour), Created: at.Add(time.Hour)},
	}, at)
	shows(t, listing.Tokens(), tokens, func(x listing.Token) string { return x.Name }, map[string]string{
		"scope:read": "ci", "expired:yes": "backup", "expired:no": "ci robot", "ever:yes": "ci", "secret-hash": "", "bot": "robot",
		"|expires": "backup robot ci", "|-expires": "ci robot backup", "|used": "ci backup robot", "|created": "robot backup ci", "|scope": "backup robot ci",
	})
}

func TestADigestStandsForLeasesAsTheyAre(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	one := listing.Lease{Lease: store.Lease{Address: netip.MustParseAddr("10.77.0.9"), MAC: store.MAC{1}, State: store.LeaseBound, Expires: at}}
	two := one
	two.Address = netip.MustParseAddr("10.77.0.10")
	was := listing.LeaseDigest([]listing.Lease{one, two})
	if listing.LeaseDigest([]listing.Lease{two, one}) != was {
		t.Error("the order counts")
	}
	later := one
	later.Expires = at.Add(time.Hour)
	if listing.LeaseDigest([]listing.Lease{later, two}) != was {
		t.Error("one that was renewed while it was good is another")
	}
	over, other := one, one
	over.Over, other.MAC = true, store.MAC{2}
	for what, changed := range map[string]listing.Lease{"one that is over": over, "another machine's": other} {
		if listing.LeaseDigest([]listing.Lease{changed, two}) == was {
			t.Errorf("%s is taken for the same", what)
		}
	}
	if one.InUse() != true || over.InUse() {
		t.Error("in use is what is bound and good")
	}
}
