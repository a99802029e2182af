package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/store"
)

// fullMachine is a machine with every field set.
func fullMachine(k *kit) store.Machine {
	m := newMachine(1)
	m.MACs = []store.MAC{mac(9), mac(1), mac(5)}
	m.UUID = must(store.ParseUUID("4c4c4544-0034-4810-8051-b4c04f564a32"))(k)
	m.Serial, m.AssetTag = "4H4QJV2", "room 3, shelf 2"
	m.Pinned = true
	m.Address = netip.MustParseAddr("192.168.40.17")
	m.OnceProfile = "local"
	m.Loader = "secure/shimx64.efi"
	m.Tags = []string{"rack-1", "Ünïcode", "100%_\\"}
	m.Notes = "two\nlines"
	m.Quirks = []store.Quirk{store.QuirkNoProxyOffer, store.QuirkNoOption43}
	m.BMC = store.BMC{Protocol: store.BMCRedfish, Address: "bmc-1.lab:8443", User: "operator", Secret: "a password", Trust: store.BMCPinned, Fingerprint: strings.Repeat("ab", 32)}
	m.Firmware, m.Arch = "UEFI", "x86-64"
	m.LastSeen = time.Now().Add(-time.Hour)
	return m
}

func machineRoundTrip(k *kit) {
	ctx := k.Context()
	in := fullMachine(k)
	made := must(k.CreateMachine(ctx, actor, in))(k)
	if made.ID == 0 || made.Revision != 1 || made.Created.IsZero() || !made.Created.Equal(made.Updated) {
		k.Errorf("id %d, revision %d, created %v, updated %v", made.ID, made.Revision, made.Created, made.Updated)
	}
	same(k, "the machine as read", made, must(k.Machine(ctx, made.ID))(k))
	in.ID, in.Revision, in.Created, in.Updated, in.LastSeen = made.ID, made.Revision, made.Created, made.Updated, made.LastSeen
	same(k, "the machine as made", in, made)
	k.reopen()
	same(k, "the machine after a restart", made, must(k.Machine(ctx, made.ID))(k))

	bare := store.Machine{Name: "bare", MACs: []store.MAC{mac(77)}, Initiator: "iqn.2026-11.lab:bare", Auth: store.AuthNone, Profile: "local"}
	made = must(k.CreateMachine(ctx, actor, bare))(k)
	same(k, "a machine with nothing set", made, must(k.Machine(ctx, made.ID))(k))
}

func machinesTogether(k *kit) {
	ctx := k.Context()
	old := k.machine(1)
	unknown := mac(70)
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: unknown}))
	changed, added := old, newMachine(2)
	changed.Notes, changed.MACs, added.MACs = "moved", []store.MAC{mac(50)}, append(old.MACs, unknown) // the second takes what the first lets go
	before := k.Revision()
	out := must(k.PutMachines(ctx, actor, []store.Machine{changed, added}))(k)
	if len(out) != 2 || out[0].Revision != old.Revision+1 || out[1].ID == 0 || out[1].Revision != 1 || k.Revision() == before {
		k.Fatalf("they are put as %+v", out)
	}
	if ids := must(k.MachineIDs(ctx))(k); !slices.Equal(ids, []store.MachineID{out[0].ID, out[1].ID}) {
		k.Errorf("the numbers are %v", ids)
	}
	for _, m := range out {
		same(k, "a machine that was put", m, must(k.Machine(ctx, m.ID))(k))
	}
	if us := must(k.UnknownMachines(ctx, true))(k); len(us) != 0 {
		k.Errorf("%v waits though it is enrolled", us)
	}
	rows, _, err := k.Audit(ctx, store.Page{Limit: 2})
	if err != nil || rows[0].Action != "machine.create" || rows[1].Action != "machine.update" || rows[1].Subject != old.Name {
		k.Errorf("the audit log says %+v, %v", rows, err)
	}
	before = k.Revision()
	third, again := newMachine(3), out[0]
	again.Notes = "changed with the third"
	stale := out[0]
	stale.Revision = 1
	for what, bad := range map[string]store.Machine{"a machine in the way": {Name: out[1].Name, MACs: []store.MAC{mac(71)}, Initiator: "iqn.2026-11.lab:z", Auth: store.AuthNone, Profile: "local"}, "an old state": stale} {
		if _, err := k.PutMachines(ctx, actor, []store.Machine{third, again, bad}); store.KindOf(err) != store.KindConflict {
			k.Errorf("%s: %v", what, err)
		}
	}
	_, err = k.PutMachines(ctx, actor, []store.Machine{third, {Name: "no MAC"}})
	k.refused(err, store.KindInvalid, "")
	if _, err := k.MachineByName(ctx, third.Name); !store.IsNotFound(err) || k.Revision() != before || must(k.Machine(ctx, out[0].ID))(k).Notes != "moved" {
		k.Errorf("half of what was refused is there: %v", err)
	}
}

func machineLookUps(k *kit) {
	ctx := k.Context()
	m := must(k.CreateMachine(ctx, actor, fullMachine(k)))(k)
	other := k.machine(2)
	for how, find := range map[string]func() (store.Machine, error){
		"name":               func() (store.Machine, error) { return k.MachineByName(ctx, m.Name) },
		"name in capitals":   func() (store.Machine, error) { return k.MachineByName(ctx, strings.ToUpper(m.Name)) },
		"UUID":               func() (store.Machine, error) { return k.MachineByUUID(ctx, m.UUID) },
		"first MAC":          func() (store.Machine, error) { return k.MachineByMAC(ctx, mac(9)) },
		"last MAC":           func() (store.Machine, error) { return k.MachineByMAC(ctx, mac(5)) },
		"initiator":          func() (store.Machine, error) { return k.MachineByInitiator(ctx, m.Initiator) },
		"initiator in caps":  func() (store.Machine, error) { return k.MachineByInitiator(ctx, "IQN.2026-11.LAB:LAB-01") },
		"serial number":      func() (store.Machine, error) { return k.MachineBySerial(ctx, m.Serial) },
		"asset tag":          func() (store.Machine, error) { return k.MachineByAssetTag(ctx, m.AssetTag) },
		"number":             func() (store.Machine, error) { return k.Machine(ctx, m.ID) },
		"a name of the file": func() (store.Machine, error) { return k.MachineByName(ctx, "lab-01") },
	} {
		got, err := find()
		if err != nil || got.ID != m.ID {
			k.Errorf("by %s: machine %d, %v", how, got.ID, err)
		}
	}
	for how, find := range map[string]func() (store.Machine, error){
		"name":                func() (store.Machine, error) { return k.MachineByName(ctx, "nobody") },
		"a name that matches": func() (store.Machine, error) { return k.MachineByName(ctx, "lab-0%") },
		"no name":             func() (store.Machine, error) { return k.MachineByName(ctx, "") },
		"UUID":                func() (store.Machine, error) { return k.MachineByUUID(ctx, store.NewUUID()) },
		"no UUID":             func() (store.Machine, error) { return k.MachineByUUID(ctx, store.UUID{}) },
		"MAC":                 func() (store.Machine, error) { return k.MachineByMAC(ctx, mac(1000)) },
		"no MAC":              func() (store.Machine, error) { return k.MachineByMAC(ctx, store.MAC{}) },
		"initiator":           func() (store.Machine, error) { return k.MachineByInitiator(ctx, "iqn.2026-11.lab:nobody") },
		"no serial number":    func() (store.Machine, error) { return k.MachineBySerial(ctx, "") },
		"no asset tag":        func() (store.Machine, error) { return k.MachineByAssetTag(ctx, "") },
		"number":              func() (store.Machine, error) { return k.Machine(ctx, 4711) },
	} {
		if got, err := find(); !store.IsNotFound(err) {
			k.Errorf("by %s: machine %d, %v; not found was due", how, got.ID, err)
		}
	}
	// "To be filled by O.E.M." names nobody.
	other.Serial = m.Serial
	must(k.UpdateMachine(ctx, actor, other))(k)
	_, err := k.MachineBySerial(ctx, m.Serial)
	k.refused(err, store.KindNotFound, "", "lab-01", "lab-02")
}

func machineConflicts(k *kit) {
	ctx := k.Context()
	first := must(k.CreateMachine(ctx, actor, fullMachine(k)))(k)
	second := k.machine(2)
	for field, change := range map[string]func(*store.Machine){
		"name":      func(m *store.Machine) { m.Name = "LAB-01" },
		"mac":       func(m *store.Machine) { m.MACs = append(m.MACs, mac(5)) },
		"initiator": func(m *store.Machine) { m.Initiator = "IQN.2026-11.lab:lab-01" },
		"uuid":      func(m *store.Machine) { m.UUID = first.UUID },
		"address":   func(m *store.Machine) { m.Address = first.Address },
	} {
		k.unchanged(func() {
			m := newMachine(3)
			change(&m)
			_, err := k.CreateMachine(ctx, actor, m)
			k.refused(err, store.KindConflict, field, "lab-01")
		})
		k.unchanged(func() {
			m := second
			m.MACs = slices.Clone(m.MACs)
			change(&m)
			_, err := k.UpdateMachine(ctx, actor, m)
			k.refused(err, store.KindConflict, field, "lab-01")
		})
	}
	// Having none is no conflict, nor is keeping what one has.
	k.machine(3)
	first.Notes = "changed"
	must(k.UpdateMachine(ctx, actor, first))(k)
}

func machineInvalid(k *kit) {
	ctx := k.Context()
	m := k.machine(1)
	for name, c := range map[string]struct {
		field  string
		change func(*store.Machine)
	}{
		"no name":                 {"name", func(m *store.Machine) { m.Name = "" }},
		"a dot in the name":       {"name", func(m *store.Machine) { m.Name = "lab.01" }},
		"no MAC":                  {"mac", func(m *store.Machine) { m.MACs = nil }},
		"a MAC twice":             {"mac", func(m *store.Machine) { m.MACs = append(m.MACs, m.MACs[0]) }},
		"no initiator":            {"initiator", func(m *store.Machine) { m.Initiator = "" }},
		"no such profile":         {"profile", func(m *store.Machine) { m.Profile = "none-such" }},
		"no such one-shot":        {"once_profile", func(m *store.Machine) { m.OnceProfile = "none-such" }},
		"a short secret":          {"chap_secret", func(m *store.Machine) { m.CHAP.Secret = "short" }},
		"two equal secrets":       {"reverse_secret", func(m *store.Machine) { m.Reverse.Secret = m.CHAP.Secret }},
		"a placeholder UUID":      {"uuid", func(m *store.Machine) { m.UUID = store.UUID{0: 255, 1: 255} }},
		"a reserved IPv6 address": {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("2001:db8::1") }},
	} {
		if name == "a placeholder UUID" {
			c.change = func(m *store.Machine) {
				for i := range m.UUID {
					m.UUID[i] = 255
				}
			}
		}
		k.unchanged(func() {
			fresh := newMachine(2)
			c.change(&fresh)
			_, err := k.CreateMachine(ctx, actor, fresh)
			k.refused(err, store.KindInvalid, c.field)
		})
		k.unchanged(func() {
			changed := m
			changed.MACs = slices.Clone(m.MACs)
			c.change(&changed)
			_, err := k.UpdateMachine(ctx, actor, changed)
			k.refused(err, store.KindInvalid, c.field)
		})
	}
	k.unchanged(func() {
		_, err := k.UpdateMachine(ctx, actor, newMachine(2))
		k.refused(err, store.KindNotFound, "")
		k.refused(k.DeleteMachine(ctx, actor, 4711), store.KindNotFound, "")
		k.refused(k.SeenMachine(ctx, 4711, "BIOS", "x86", time.Now()), store.KindNotFound, "")
		_, err = k.ConsumeOnce(ctx, 4711, "local", time.Now())
		k.refused(err, store.KindNotFound, "")
	})
}

func machineRevisions(k *kit) {
	ctx := k.Context()
	m := k.machine(1)
	seen := m
	m.Notes = "first editor"
	m = must(k.UpdateMachine(ctx, actor, m))(k)
	if m.Revision != 2 || m.Updated.Before(seen.Updated) {
		k.Errorf("revision %d after one change", m.Revision)
	}
	same(k, "the machine as read", m, must(k.Machine(ctx, m.ID))(k))
	k.unchanged(func() {
		seen.Notes = "second editor"
		_, err := k.UpdateMachine(ctx, actor, seen)
		k.refused(err, store.KindConflict, "revision", "lab-01")
	})
	k.unchanged(func() {
		// Nothing changed, so nothing is written.
		same(k, "the machine", m, must(k.UpdateMachine(ctx, actor, m))(k))
	})
	m.Revision, m.Notes = 0, "a program that does not look"
	if m = must(k.UpdateMachine(ctx, actor, m))(k); m.Revision != 3 {
		k.Errorf("revision %d after two changes", m.Revision)
	}
}

func machineMACsMove(k *kit) {
	ctx := k.Context()
	a, b := k.machine(1), k.machine(2)
	a.MACs = []store.MAC{mac(11), mac(12)}
	a = must(k.UpdateMachine(ctx, actor, a))(k)
	b.MACs = []store.MAC{mac(2), mac(1)}
	b = must(k.UpdateMachine(ctx, actor, b))(k)
	b.MACs = []store.MAC{mac(1), mac(2)}
	b = must(k.UpdateMachine(ctx, actor, b))(k)
	same(k, "the order of the MACs", []store.MAC{mac(1), mac(2)}, must(k.Machine(ctx, b.ID))(k).MACs)
	for n, want := range map[int]store.MachineID{1: b.ID, 2: b.ID, 11: a.ID, 12: a.ID} {
		if got, err := k.MachineByMAC(ctx, mac(n)); err != nil || got.ID != want {
			k.Errorf("MAC %d belongs to machine %d (%v), want %d", n, got.ID, err, want)
		}
	}
}

func machineListing(k *kit) {
	ctx := k.Context()
	for n := 12; n > 0; n-- {
		m := newMachine(n)
		if n%3 == 0 {
			m.Tags = []string{"third", "all_of%them"}
		}
		must(k.CreateMachine(ctx, actor, m))(k)
	}
	must(k.CreateMachine(ctx, actor, func() store.Machine {
		m := fullMachine(k)
		m.Name, m.MACs, m.Initiator = "zebra", []store.MAC{{0x00, 0x07, 0xe9, 0x0f, 0xea, 0xf5}}, "iqn.2026-11.lab:zebra"
		m.Tags = []string{"Striped"}
		return m
	}()))(k)
	names := func(f store.MachineFilter) ([]string, int) {
		ms, total, err := k.Machines(ctx, f)
		k.ok(err)
		out := []string{}
		for _, m := range ms {
			out = append(out, m.Name)
		}
		return out, total
	}
	for _, c := range []struct {
		f     store.MachineFilter
		want  []string
		total int
	}{
		{store.MachineFilter{Page: store.Page{Limit: 2}}, []string{"lab-01", "lab-02"}, 13},
		{store.MachineFilter{Page: store.Page{Limit: 2, Offset: 11}}, []string{"lab-12", "zebra"}, 13},
		{store.MachineFilter{Page: store.Page{Limit: 2, Offset: 99}}, []string{}, 13},
		{store.MachineFilter{Tag: "third"}, []string{"lab-03", "lab-06", "lab-09", "lab-12"}, 4},
		{store.MachineFilter{Tag: "thir"}, []string{}, 0},
		{store.MachineFilter{Tag: "third", Page: store.Page{Limit: 1, Offset: 1}}, []string{"lab-06"}, 4},
		{store.MachineFilter{Tag: "third", Words: []string{"b-1"}}, []string{"lab-12"}, 1},
		{store.MachineFilter{Words: []string{"LAB-1"}}, []string{"lab-10", "lab-11", "lab-12"}, 3},
		{store.MachineFilter{Words: []string{"zeb"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"00:07:E9"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"0007.e90f"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"00-07-e9-0f-ea-f5"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"4c4c4544"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"192.168.40.17"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"striped"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"lab:zebra"}}, []string{"zebra"}, 1},
		{store.MachineFilter{Words: []string{"l_b"}}, []string{}, 0},
		{store.MachineFilter{Words: []string{"%"}}, []string{"lab-03", "lab-06", "lab-09", "lab-12"}, 4},
		{store.MachineFilter{Words: []string{"'", "OR", "1", "--"}}, []string{}, 0},
		{store.MachineFilter{Words: []string{}}, nil, 13},
	} {
		got, total := names(c.f)
		if c.want != nil && !slices.Equal(got, c.want) || total != c.total {
			k.Errorf("%+v: %v, %d in all; want %v, %d", c.f, got, total, c.want, c.total)
		}
	}
}

func machineRemoval(k *kit) {
	ctx := k.Context()
	m, other, v := k.machine(1), k.machine(2), k.volume(1)
	k.mapping(m, v, 0)
	k.mapping(other, k.volume(2), 0)
	k.ok(k.PutLease(ctx, store.Lease{Address: netip.MustParseAddr("192.168.40.9"), MAC: mac(1), Machine: m.ID, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}))
	for _, one := range []store.MachineID{m.ID, 0} {
		views := must(k.MappingViews(ctx, one))(k)
		if len(views) != map[store.MachineID]int{m.ID: 1, 0: 2}[one] || views[0].MachineName != m.Name || views[0].VolumeName != v.Name || views[0].VolumeSize != v.Size || views[0].Machine != m.ID || !views[0].Created.Equal(must(k.MappingsOf(ctx, m.ID))(k)[0].Created) {
			k.Errorf("with names they are %+v", views)
		}
	}
	k.ok(k.DeleteMachine(ctx, actor, m.ID))
	if ms := must(k.Mappings(ctx))(k); len(ms) != 1 || ms[0].Machine != other.ID {
		k.Errorf("mappings that are left: %+v", ms)
	}
	if _, err := k.MachineByMAC(ctx, mac(1)); !store.IsNotFound(err) {
		k.Errorf("its MAC is still known: %v", err)
	}
	if l := must(k.LeaseByMAC(ctx, mac(1)))(k); l.Machine != 0 {
		k.Errorf("the lease still names machine %d", l.Machine)
	}
	k.ok(k.DeleteVolume(ctx, actor, v.ID))
	again := k.machine(1)
	if again.ID <= m.ID {
		k.Errorf("the id %d was given twice", again.ID)
	}
}

func machineSeen(k *kit) {
	ctx := k.Context()
	m := k.machine(1)
	audits, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	at := time.Now().Round(0).UTC()
	k.ok(k.SeenMachine(ctx, m.ID, "UEFI", "arm64", at))
	want := m
	want.Firmware, want.Arch, want.LastSeen = "UEFI", "arm64", at
	same(k, "the machine", want, must(k.Machine(ctx, m.ID))(k))
	k.ok(k.SeenMachine(ctx, m.ID, "", "", at.Add(-time.Minute)))
	same(k, "the machine after an older sight", want, must(k.Machine(ctx, m.ID))(k))
	after, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	same(k, "the audit log", audits, after)
	// An editor that loaded the machine before it was seen sets nothing back.
	m.Notes = "changed"
	m = must(k.UpdateMachine(ctx, actor, m))(k)
	if m.Firmware != "UEFI" || !m.LastSeen.Equal(at) {
		k.Errorf("an edit set back what was seen: %q, %v", m.Firmware, m.LastSeen)
	}
}

func auditTrail(k *kit) {
	ctx := k.Context()
	m, v := k.machine(1), k.volume(1)
	m.Name, m.CHAP.Secret = "renamed", "a-brand-new-secret"
	m.BMC = store.BMC{Protocol: store.BMCIPMI, Address: "10.0.0.7", User: "operator", Secret: "the-bmc-password"}
	m = must(k.UpdateMachine(ctx, "somebody else", m))(k)
	k.mapping(m, v, 7)
	k.ok(k.DeleteMapping(ctx, actor, m.ID, 7))
	k.ok(k.PutSetting(ctx, actor, "key", "the-value-of-a-setting"))
	must(k.CreateUser(ctx, actor, store.User{Name: "admin", Role: store.RoleAdmin, Hash: "the-hash-of-a-password"}))(k)
	must(k.CreateToken(ctx, actor, store.Token{Name: "ci", Hash: "the-hash-of-a-token", Scope: "read"}))(k)
	k.ok(k.DeleteMachine(ctx, actor, m.ID))
	k.ok(k.DeleteVolume(ctx, actor, v.ID))

	log, total, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	var got []string
	for i, a := range log {
		got = append(got, string(a.Actor)+" "+a.Action+" "+a.Subject)
		for _, secret := range []string{"secret-01", "a-brand-new-secret", "the-bmc-password", "the-value", "the-hash"} {
			if strings.Contains(fmt.Sprint(a), secret) {
				k.Errorf("the audit log tells a secret: %+v", a)
			}
		}
		if a.At.IsZero() || i > 0 && a.ID >= log[i-1].ID {
			k.Errorf("row %+v is out of order", a)
		}
	}
	same(k, "the audit log", []string{
		"tester volume.delete vol-01", "tester machine.delete renamed", "tester token.create ci", "tester user.create admin",
		"tester setting.put key", "tester mapping.delete renamed", "tester mapping.create renamed",
		"somebody else machine.update renamed", "tester volume.create vol-01", "tester machine.create lab-01",
	}, got)
	for i, words := range map[int][]string{
		7: {"lab-01 → renamed", "CHAP secret set", "ipmi://operator@10.0.0.7", "BMC secret"},
		6: {"LUN 7", "vol-01"},
	} {
		for _, w := range words {
			if !strings.Contains(log[i].Detail, w) {
				k.Errorf("row %+v does not say %q", log[i], w)
			}
		}
	}
	if c := log[7].Changes; !slices.Contains(c, store.FieldChange{Field: "name", Before: "lab-01", After: "renamed"}) || !slices.Contains(c, store.FieldChange{Field: "CHAP secret", Before: "(set)", After: "(set anew)"}) {
		k.Errorf("the fields of the change are %+v", c)
	}
	two, n, err := k.Audit(ctx, store.Page{Limit: 2, Offset: 3})
	k.ok(err)
	same(k, "a page of the audit log", log[3:5], two)
	if n != total || total != len(log) {
		k.Errorf("totals %d and %d for %d rows", n, total, len(log))
	}
}

func unknownGathers(k *kit) {
	ctx := k.Context()
	uuid := store.NewUUID()
	at := time.Now().Add(-time.Minute).Round(0).UTC()
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1), Firmware: "BIOS", Arch: "x86", LastSeen: at}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1), UUID: uuid, Hostname: "late", Vendor: "Dell R610", Address: netip.MustParseAddr("10.0.0.9"), LastSeen: at.Add(time.Second)}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1), Arch: "x86-64", NIC: "PCI 8086:100e", Chip: "82540em", LastSeen: at.Add(2 * time.Second)}))
	want := store.UnknownMachine{MAC: mac(1), UUID: uuid, Hostname: "late", Vendor: "Dell R610", Firmware: "BIOS", Arch: "x86-64", NIC: "PCI 8086:100e", Chip: "82540em",
		Address: netip.MustParseAddr("10.0.0.9"), FirstSeen: at, LastSeen: at.Add(2 * time.Second), Count: 3}
	same(k, "the unknown machine", want, must(k.UnknownMachine(ctx, mac(1)))(k))
	k.reopen()
	same(k, "the unknown machine after a restart", want, must(k.UnknownMachine(ctx, mac(1)))(k))

	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(2), Hostname: strings.Repeat("é", 400) + "\x00\xff\x1b[31m"}))
	u := must(k.UnknownMachine(ctx, mac(2)))(k)
	if len(u.Hostname) > 255 || strings.ContainsAny(u.Hostname, "\x00\x1b") || u.LastSeen.IsZero() {
		k.Errorf("a name from the network: %d bytes, %q", len(u.Hostname), u.Hostname)
	}
	if us := must(k.UnknownMachines(ctx, false))(k); len(us) != 2 || us[0].MAC != mac(2) {
		k.Errorf("the newest is not first: %+v", us)
	}
	if _, err := k.UnknownMachine(ctx, mac(3)); !store.IsNotFound(err) {
		k.Errorf("a MAC that was never seen: %v", err)
	}
	k.unchanged(func() {
		k.refused(k.SeeUnknown(ctx, store.UnknownMachine{}), store.KindInvalid, "mac")
		k.refused(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(4)}, store.UnknownMachine{}), store.KindInvalid, "mac")
	})
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(4)}, store.UnknownMachine{MAC: mac(5)}, store.UnknownMachine{MAC: mac(4), Arch: "arm64"}))
	if u := must(k.UnknownMachine(ctx, mac(4)))(k); u.Count != 2 || u.Arch != "arm64" {
		k.Errorf("told of twice in one report: %+v", u)
	}
	must(k.UnknownMachine(ctx, mac(5)))(k)
}

func unknownEnrolled(k *kit) {
	ctx := k.Context()
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1)}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(2)}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(3)}))
	m := newMachine(1)
	m.MACs = []store.MAC{mac(1), mac(2)}
	m = must(k.CreateMachine(ctx, actor, m))(k)
	left := must(k.UnknownMachines(ctx, true))(k)
	if len(left) != 1 || left[0].MAC != mac(3) {
		k.Errorf("unknown machines that are left: %+v", left)
	}
	k.unchanged(func() {
		// A packet of the time before the enrolment must not bring it back.
		k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1)}))
	})
	m.MACs = append(m.MACs, mac(3))
	must(k.UpdateMachine(ctx, actor, m))(k)
	if left = must(k.UnknownMachines(ctx, true))(k); len(left) != 0 {
		k.Errorf("a MAC that a machine was given later is still unknown: %+v", left)
	}
}

func unknownIgnored(k *kit) {
	ctx := k.Context()
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1)}))
	k.ok(k.IgnoreUnknown(ctx, actor, mac(1), true))
	k.ok(k.IgnoreUnknown(ctx, actor, mac(2), true)) // before it was ever seen
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1)}))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(3)}))
	if us := must(k.UnknownMachines(ctx, false))(k); len(us) != 1 || us[0].MAC != mac(3) {
		k.Errorf("shown: %+v", us)
	}
	if us := must(k.UnknownMachines(ctx, true))(k); len(us) != 3 {
		k.Errorf("kept: %+v", us)
	}
	if u := must(k.UnknownMachine(ctx, mac(1)))(k); !u.Ignored || u.Count != 2 {
		k.Errorf("an ignored machine that asked again: %+v", u)
	}
	k.unchanged(func() { k.ok(k.IgnoreUnknown(ctx, actor, mac(1), true)) })
	k.ok(k.IgnoreUnknown(ctx, actor, mac(1), false))
	if u := must(k.UnknownMachine(ctx, mac(1)))(k); u.Ignored {
		k.Error("still ignored")
	}
	m := k.machine(9)
	k.unchanged(func() {
		k.refused(k.IgnoreUnknown(ctx, actor, m.MACs[0], true), store.KindConflict, "mac", m.Name)
		k.refused(k.IgnoreUnknown(ctx, actor, mac(77), false), store.KindNotFound, "")
		k.refused(k.IgnoreUnknown(ctx, actor, store.MAC{}, true), store.KindInvalid, "mac")
	})
}

func unknownBounded(k *kit) {
	ctx := k.Context()
	k.ok(k.IgnoreUnknown(ctx, actor, mac(1), true))
	start := time.Now()
	// Together, as a flood comes.
	errs := make(chan error, 64)
	const flood = store.MaxUnknownMachines + 10
	for w := range cap(errs) {
		go func() {
			var err error
			for n := 2 + w; n < 2+flood && err == nil; n += cap(errs) {
				err = k.SeeUnknown(context.WithoutCancel(ctx), store.UnknownMachine{MAC: mac(n), LastSeen: start.Add(time.Duration(n) * time.Second)})
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		k.ok(<-errs)
	}
	us := must(k.UnknownMachines(ctx, true))(k)
	if len(us) != store.MaxUnknownMachines {
		k.Errorf("%d are kept", len(us))
	}
	if us[0].MAC != mac(1+flood) {
		k.Errorf("the newest is %v", us[0].MAC)
	}
	if u, err := k.UnknownMachine(ctx, mac(1)); err != nil || !u.Ignored {
		k.Errorf("the flood washed away a decision: %v", err)
	}
	if _, err := k.UnknownMachine(ctx, mac(2)); !store.IsNotFound(err) {
		k.Errorf("the oldest is still there: %v", err)
	}
}
