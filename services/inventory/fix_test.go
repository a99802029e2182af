package inventory

import (
	"context"
	"net/netip"
	"testing"

	"lunboot/store"
)

// failing is a boot of the machine that the actions would mend.
func failing(m store.Machine, mac store.MAC, actions ...string) store.Attempt {
	a := store.Attempt{ID: 1, Machine: m.ID, Name: m.Name, MAC: mac, Outcome: store.OutcomeFailed}
	d := store.Diagnosis{Code: "LB-LUN-01"}
	for _, x := range actions {
		d.Fixes = append(d.Fixes, store.Fix{Action: x})
	}
	a.Diagnoses = []store.Diagnosis{d}
	return a
}

func (h *house) fixed(t *testing.T, a store.Attempt, action string) store.FixResult {
	t.Helper()
	r, err := h.Fix(t.Context(), ada, a, action)
	must(t, err)
	if !r.OK || r.Says == "" {
		t.Errorf("%s: %+v", action, r)
	}
	return r
}

func TestAFixDoesWhatItsLabelSays(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	m := h.machine(t, "lab-12", "52:54:00:77:00:12")
	v := h.volume(t, "win11", 1<<20)
	look := func() store.Machine {
		out, err := h.db.Machine(ctx, m.ID)
		must(t, err)
		return out
	}
	boots := func() (store.LUN, bool) {
		maps, err := h.db.MappingsOf(ctx, m.ID)
		must(t, err)
		for _, x := range maps {
			if x.Boot {
				return x.LUN, true
			}
		}
		return 0, false
	}

	h.fixed(t, failing(m, m.MACs[0], "map-volume-win11"), "map-volume-win11")
	if lun, ok := boots(); !ok || lun != 0 {
		t.Errorf("it boots from %d, %v", lun, ok)
	}
	h.fixed(t, failing(m, m.MACs[0], "map-lun-2"), "map-lun-2")
	if lun, _ := boots(); lun != 2 {
		t.Errorf("the boot volume is LUN %d", lun)
	}
	_, err := h.SetMapping(ctx, ada, m.ID, 2, store.MappingPatch{Boot: ptr(false)})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "boot-lun-2"), "boot-lun-2")
	if lun, ok := boots(); !ok || lun != 2 {
		t.Errorf("it boots from %d, %v", lun, ok)
	}

	_, err = h.SetMapping(ctx, ada, m.ID, 2, store.MappingPatch{ReadOnly: ptr(true)})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "allow-writes-2"), "allow-writes-2")
	if maps, err := h.db.MappingsOf(ctx, m.ID); err != nil || maps[0].ReadOnly {
		t.Errorf("%+v, %v", maps, err)
	}

	h.fixed(t, failing(m, m.MACs[0], "add-card-52:54:00:77:00:63"), "add-card-52:54:00:77:00:63")
	if macs := look().MACs; len(macs) != 2 || macs[1].String() != "52:54:00:77:00:63" {
		t.Errorf("its cards are %v", macs)
	}

	before := look()
	h.fixed(t, failing(m, m.MACs[0], "renew-secret"), "renew-secret")
	if after := look(); after.CHAP.Secret == before.CHAP.Secret || after.Reverse.Secret == before.Reverse.Secret || after.CHAP.User != before.CHAP.User || after.Pinned {
		t.Errorf("%+v became %+v", before.Pinned, after.Pinned)
	}
	h.customProfile(t, "mine")
	_, err = h.SetMachine(ctx, ada, m.ID, store.MachinePatch{Profile: ptr("mine"), Auth: ptr(store.AuthNone), Loader: ptr("ipxe.efi")})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "use-profile-san"), "use-profile-san")
	_, err = h.SetMachine(ctx, ada, m.ID, store.MachinePatch{OnceProfile: ptr("mine")})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "clear-once"), "clear-once")
	if got := look(); got.OnceProfile != "" {
		t.Errorf("its next boot is by %q", got.OnceProfile)
	}
	h.fixed(t, failing(m, m.MACs[0], "set-auth-mutual"), "set-auth-mutual")
	h.fixed(t, failing(m, m.MACs[0], "loader-auto"), "loader-auto")
	for range 2 {
		h.fixed(t, failing(m, m.MACs[0], "quirk-option-43"), "quirk-option-43")
	}
	if got := look(); len(got.Quirks) != 1 || got.Quirks[0] != store.QuirkOption43 {
		t.Errorf("its quirks are %v", got.Quirks)
	}
	if got := look(); got.Profile != store.DefaultProfile || got.Auth != store.AuthMutual || got.Reverse.IsZero() || got.Loader != "" {
		t.Errorf("%s, %s, %q", got.Profile, got.Auth, got.Loader)
	}
	h.fixed(t, failing(m, m.MACs[0], "grow-volume"), "grow-volume")
	if got, err := h.db.Volume(ctx, v.ID); err != nil || got.Size != 1<<20 {
		t.Errorf("%d, %v", got.Size, err)
	}
	h.audited(t, ada, "machine.update", "lab-12")
}

func (h *house) customProfile(t *testing.T, name string) {
	t.Helper()
	_, err := h.PutProfile(t.Context(), ada, store.Profile{Name: name, Kind: store.ProfileCustom, Text: "#!ipxe\n"})
	must(t, err)
}

func TestAFixOfTheNetworkMakesRoom(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	s := subnet("192.168.40.0/28", "eth1")
	s.Mode, s.Router = store.DHCPFull, netip.MustParseAddr("192.168.40.14")
	s.Range = store.Range{From: netip.MustParseAddr("192.168.40.10"), To: netip.MustParseAddr("192.168.40.11")}
	s, err := h.PutSubnet(ctx, ada, s)
	must(t, err)
	m := h.machine(t, "lab-12", "52:54:00:77:00:12")
	_, err = h.SetMachine(ctx, ada, m.ID, store.MachinePatch{Address: ptr(netip.MustParseAddr("192.168.40.10"))})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "extend-range-eth1"), "extend-range-eth1")
	rng := func() string {
		all, err := h.db.Subnets(ctx)
		must(t, err)
		return all[0].Range.String()
	}
	if got := rng(); got != "192.168.40.10-192.168.40.13" {
		t.Errorf("the range is %s", got)
	}
	h.fixed(t, failing(m, m.MACs[0], "extend-range-eth1"), "extend-range-eth1") // the router stands above it
	if got := rng(); got != "192.168.40.6-192.168.40.13" {
		t.Errorf("the range is %s", got)
	}
	h.fixed(t, failing(m, m.MACs[0], "extend-range-eth1"), "extend-range-eth1") // the appliance stands below it
	if got := rng(); got != "192.168.40.2-192.168.40.13" {
		t.Errorf("the range is %s", got)
	}
	_, err = h.Fix(ctx, ada, failing(m, m.MACs[0], "extend-range-eth1"), "extend-range-eth1")
	wantSentence(t, err, store.KindConflict, "has no room to grow")

	other := h.machine(t, "lab-13", "52:54:00:77:00:13")
	_, err = h.SetMachine(ctx, ada, other.ID, store.MachinePatch{Address: ptr(netip.MustParseAddr("192.168.40.2"))})
	must(t, err)
	h.fixed(t, failing(m, m.MACs[0], "other-address-192.168.40.10"), "other-address-192.168.40.10")
	if got, err := h.db.Machine(ctx, m.ID); err != nil || got.Address != netip.MustParseAddr("192.168.40.3") {
		t.Errorf("%s, %v", got.Address, err)
	}
	h.fixed(t, failing(m, m.MACs[0], "proxy-mode-eth1"), "proxy-mode-eth1")
	if all, err := h.db.Subnets(ctx); err != nil || all[0].Mode != store.DHCPProxy {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestAFixOfAStrangerEnrollsOrForgives(t *testing.T) {
	h := newHouse(t)
	stranger := mac(t, "52:54:00:77:00:21")
	h.asked(t, store.UnknownMachine{MAC: stranger})
	must(t, h.Ignore(t.Context(), ada, stranger, true))
	h.fixed(t, failing(store.Machine{}, stranger, "unignore"), "unignore")
	h.fixed(t, failing(store.Machine{}, stranger, "enroll"), "enroll")
	if m, err := h.db.MachineByMAC(t.Context(), stranger); err != nil || m.Name == "" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestOnlyWhatADiagnosisOffersIsDone(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-12", "52:54:00:77:00:12")
	h.mapped(t, m, h.volume(t, "win11", 1<<20))
	stranger := mac(t, "52:54:00:77:00:22")
	for name, c := range map[string]struct {
		a      store.Attempt
		action string
		kind   store.Kind
		says   string
	}{
		"not offered":    {failing(m, m.MACs[0], "map-lun-2"), "map-lun-3", store.KindConflict, "not explained by anything"},
		"for people":     {failing(m, m.MACs[0], "guide-windows"), "guide-windows", store.KindInvalid, "there is no button"},
		"a stranger":     {failing(store.Machine{}, stranger, "renew-secret"), "renew-secret", store.KindConflict, "enroll it first"},
		"no such LUN":    {failing(m, m.MACs[0], "boot-lun-9"), "boot-lun-9", store.KindNotFound, "has no LUN 9"},
		"no such volume": {failing(m, m.MACs[0], "map-volume-gone"), "map-volume-gone", store.KindNotFound, "gone"},
		"no such subnet": {failing(m, m.MACs[0], "extend-range-eth9"), "extend-range-eth9", store.KindNotFound, "eth9"},
		"nothing checks": {failing(m, m.MACs[0], "check-again"), "check-again", store.KindInvalid, "nothing can be checked"},
		"no free number": {failing(m, m.MACs[0], "other-address-10.9.9.9"), "other-address-10.9.9.9", store.KindConflict, "no address"},
	} {
		t.Run(name, func(t *testing.T) {
			h.wantRefusal(t, c.kind, []string{c.says}, func() error {
				_, err := h.Fix(t.Context(), ada, c.a, c.action)
				return err
			})
		})
	}
	h2 := newHouse(t, func(c *Config) {
		c.Check = func(context.Context) store.FixResult { return store.FixResult{Says: "port 3260 is blocked"} }
	})
	if r, err := h2.Fix(t.Context(), ada, failing(store.Machine{}, stranger, "check-again"), "check-again"); err != nil || r.OK || r.Says != "port 3260 is blocked" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A machine that was removed in the middle of its boot has not asked anew, so that it
// is no unknown machine yet; its button works all the same.
func TestAMachineThatWasRemovedIsEnrolledUnderTheNameThatItHad(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	m := h.machine(t, "lab-12", "52:54:00:77:00:12")
	a := failing(m, m.MACs[0], "enroll")
	if _, err := h.Fix(ctx, ada, a, "enroll"); store.KindOf(err) != store.KindConflict {
		t.Errorf("one that is there is enrolled again: %v", err)
	}
	must(t, h.RemoveMachine(ctx, ada, m.ID, false))
	h.fixed(t, a, "enroll")
	again, err := h.db.MachineByMAC(ctx, m.MACs[0])
	must(t, err)
	if again.Name != "lab-12" || again.ID == m.ID {
		t.Errorf("it is %+v", again)
	}
}

func TestAFixTrustsANetworkOnce(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-12", "52:54:00:77:00:12")
	is := func() string {
		v, err := store.SettingValue(t.Context(), h.db, store.SettingTrustedSubnets)
		must(t, err)
		return v
	}
	for _, n := range []string{"10.9.0.0/24", "10.8.0.0/16", "10.9.0.0/24", "10.8.7.0/24"} {
		a := "trust-subnet-" + n
		h.fixed(t, failing(m, m.MACs[0], a), a)
	}
	if got := is(); got != "10.9.0.0/24,10.8.0.0/16" {
		t.Errorf("trusted are %q", got)
	}
	for _, n := range []string{"10.9.0.7/24", "0.0.0.0/0", "lab"} {
		a := "trust-subnet-" + n
		if _, err := h.Fix(t.Context(), ada, failing(m, m.MACs[0], a), a); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%s: %v", n, err)
		}
	}
	if got := is(); got != "10.9.0.0/24,10.8.0.0/16" {
		t.Errorf("a refusal leaves %q", got)
	}
}
