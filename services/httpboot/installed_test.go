package httpboot

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"lunboot/services/boot"
	"lunboot/store"
)

// byHand has the machine a be installed by hand at its next boot only, and boot from
// its volume after that.
func byHand(l *lab) {
	installing(l)
	l.profiles["setup"] = store.Profile{Name: "setup", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso"}}
	l.profiles["bench"] = store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "setup\nlocal"}}
	l.machines[0].Profile, l.machines[0].OnceProfile = "san", "setup"
	l.started = true
}

// boots is a volume that a BIOS starts by this chain of boot code.
func boots(chain string) store.Preflight {
	return store.Preflight{BIOS: store.Bootable{OK: true, Chain: chain}, UEFI: store.Bootable{Why: "has no EFI system partition"}}
}

// Who drives an installer by hand reports nothing. What it has put on the machine's
// volume does, when the machine comes back.
func TestAnInstallationIsSeenOnItsVolume(t *testing.T) {
	partitioned := store.Preflight{Table: "mbr", BIOS: store.Bootable{Why: "has boot code that starts the active partition, and no partition is active"}}
	set := func(p store.Preflight) func(*lab) { return func(l *lab) { l.contents[1] = p } }
	for what, c := range map[string]struct {
		before store.Preflight
		meant  func(*lab) // what happens while the installer runs
		done   bool
	}{
		"blank before, and boots after":         {store.Preflight{Blank: true}, set(boots("grub")), true},
		"partitioned only":                      {store.Preflight{Blank: true}, set(partitioned), false},
		"booted before, and unchanged":          {boots("grub"), func(*lab) {}, false},
		"booted before, and partitioned since":  {boots("grub"), set(partitioned), false},
		"booted before, and another loader":     {boots("grub"), set(boots("other")), true},
		"it boots for the other firmware":       {store.Preflight{Blank: true}, set(store.Preflight{UEFI: store.Bootable{OK: true, Chain: "efi"}}), false},
		"another volume was mapped since":       {store.Preflight{Blank: true}, func(l *lab) { l.mappings[0].Volume = 3; l.contents[3] = boots("win") }, false},
		"none of its volumes is to boot from":   {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.mappings[0].Boot = false }, false},
		"its volume is being imported":          {store.Preflight{Blank: true}, func(l *lab) { l.volumes[1] = store.Volume{ID: 1, State: store.VolumeImporting} }, false},
		"no installer was started":              {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.started = false }, false},
		"the look fails":                        {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.broken, l.sick = "Look", errSick }, false},
		"what was before cannot be read":        {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.broken, l.sick = "Baseline", errSick }, false},
		"the boots cannot be read":              {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.broken, l.sick = "Attempts", errSick }, false},
		"it cannot be kept":                     {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.broken, l.sick = "ConsumeOnce", errSick }, false},
		"the look panics":                       {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.broken = "Look" }, false},
		"somebody else asks in its name":        {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.owners[netip.MustParseAddr("127.0.0.1")] = macB }, false},
		"another profile was chosen since":      {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); l.machines[0].OnceProfile = "local"; clear(l.baseline) }, false},
		"another installer of yesterday's boot": {store.Preflight{Blank: true}, func(l *lab) { l.contents[1] = boots("grub"); b := l.baseline[1]; b.Attempt = 99; l.baseline[1] = b }, false},
	} {
		l := newLab(t, byHand, func(l *lab) { l.machines[0].Auth = store.AuthNone; l.contents[1] = c.before })
		contains(t, l.get(query("a", uuidA, macA)), "sanhook", "/files/mini.iso/linux")
		l.said()
		l.mu.Lock()
		c.meant(l)
		once := l.machines[0].OnceProfile
		l.mu.Unlock()
		is := Handler(l.cfg).Explain(t.Context(), boot.Identity{MAC: macA, Platform: "pcbios"}, netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddr("192.0.2.50"))
		text := l.get(query("a", uuidA, macA))
		seen := 0
		for _, e := range l.said() {
			if e.Kind == store.EventInstallSeen {
				if seen++; e.Machine != 1 || e.Detail.Profile != "setup" || e.Detail.Volume != "debian" || !strings.Contains(e.Detail.Reason, "has done its work") {
					t.Errorf("%s: the event is %+v", what, e)
				}
			}
		}
		if c.done != (seen == 1) || c.done != (l.machines[0].OnceProfile == "") || c.done != strings.Contains(text, "sanboot iscsi") {
			t.Errorf("%s: the profile is %q, %d events, and the script is\n%s", what, l.machines[0].OnceProfile, seen, text)
		}
		// What the installer did cannot be seen: it is not started over that.
		unseen := l.broken != ""
		if unseen != strings.Contains(text, "could not make this machine's script") || strings.Contains(text, "sanhook") && (c.done || unseen) {
			t.Errorf("%s: the script is\n%s", what, text)
		}
		if !c.done && l.machines[0].OnceProfile != once {
			t.Errorf("%s: the profile was %q and is %q", what, once, l.machines[0].OnceProfile)
		}
		if strings.Contains(what, "somebody else") || strings.Contains(what, "be kept") {
			continue // a dry run asks as the machine, and keeps nothing
		}
		if c.done != (is.Profile == "san" && strings.Contains(is.Why, "has done its work")) {
			t.Errorf("%s: a dry run told of profile %s, %q", what, is.Profile, is.Why)
		}
	}
}

func TestWhatAVolumeHeldBeforeItsInstallerIsNotedOnce(t *testing.T) {
	l := newLab(t, byHand, trustAll, func(l *lab) { l.contents[1] = boots("old") })
	ask := query("a", uuidA, macA)
	l.do("HEAD", ask)
	l.do("GET", ask, "User-Agent", "Mozilla/5.0")
	if len(l.baseline) != 0 || l.looked != 0 {
		t.Errorf("somebody looked, and %+v is noted", l.baseline)
	}
	l.get(ask)
	want := store.Baseline{Volume: 1, Attempt: 42, BIOS: "old"}
	if l.baseline[1] != want {
		t.Errorf("noted is %+v", l.baseline)
	}
	l.started = false
	l.contents[1] = boots("half")
	if l.get(ask); l.baseline[1] != want || l.looked != 1 {
		t.Errorf("after the second boot %+v is noted, by %d looks", l.baseline, l.looked)
	}
	l.baseline[1] = store.Baseline{Volume: 1, Attempt: 4711, BIOS: "old"} // of a journal that is lost
	if l.get(ask); l.baseline[1] != (store.Baseline{Volume: 1, Attempt: 44, BIOS: "half"}) {
		t.Errorf("after the journal was lost %+v is noted", l.baseline)
	}
	l.mappings[0].Volume = 3
	if l.get(ask); l.baseline[1] != (store.Baseline{Volume: 3, Attempt: 45}) {
		t.Errorf("of another volume %+v is noted", l.baseline)
	}
	for _, fault := range []string{"Look", "PutBaseline"} {
		l := newLab(t, byHand, trustAll, func(l *lab) { l.broken, l.sick = fault, errSick })
		contains(t, l.get(ask), "sanhook")
		if len(l.baseline) != 0 {
			t.Errorf("%s failed, and %+v is noted", fault, l.baseline)
		}
	}
	l = newLab(t, byHand, trustAll, func(l *lab) { l.machines[0].OnceProfile = "local" })
	l.get(ask)
	l.get(query("b", uuidB, macB))
	if len(l.baseline) != 0 || l.looked != 0 {
		t.Errorf("nothing is installed, and %+v is noted by %d looks", l.baseline, l.looked)
	}
}

// Somebody who looks at the script, and HEAD, see what the machine would be given.
func TestWhoLooksAfterAnInstallationChangesNothing(t *testing.T) {
	l := newLab(t, byHand, trustAll)
	ask := query("a", uuidA, macA)
	l.get(ask)
	l.said()
	l.contents[1] = boots("grub")
	l.do("HEAD", ask)
	_, body := l.do("GET", ask, "User-Agent", "Mozilla/5.0")
	contains(t, body, "sanboot iscsi")
	l.machines[0].Firmware = "BIOS"
	text, err := Handler(l.cfg).Preview(t.Context(), l.machines[0], "", netip.MustParseAddrPort("192.0.2.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	contains(t, text, "sanboot iscsi")
	if l.machines[0].OnceProfile != "setup" || len(l.said()) != 0 {
		t.Errorf("the profile is %q", l.machines[0].OnceProfile)
	}
}

func TestAnInstallationOfAMenuIsSeenAsWell(t *testing.T) {
	l := newLab(t, byHand, trustAll, func(l *lab) { l.machines[0].OnceProfile = "bench" })
	ask := query("a", uuidA, macA)
	contains(t, l.get(ask), "item setup")
	contains(t, l.get(ask+"&choice=setup"), "sanhook")
	l.contents[1] = boots("grub")
	contains(t, l.get(ask), "sanboot iscsi")
	if l.machines[0].OnceProfile != "" {
		t.Errorf("the profile is %q", l.machines[0].OnceProfile)
	}
}

// Of requests at a time one uses the profile up, and all are given the same script.
func TestAnInstallationIsSeenOnce(t *testing.T) {
	l := newLab(t, byHand, trustAll)
	ask := query("a", uuidA, macA)
	l.get(ask)
	l.said()
	l.contents[1] = boots("grub")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if text := l.get(ask); !strings.Contains(text, "sanboot iscsi") {
				t.Errorf("one was given\n%s", text)
			}
		})
	}
	wg.Wait()
	seen := 0
	for _, e := range l.said() {
		if e.Kind == store.EventInstallSeen {
			seen++
		}
	}
	if seen != 1 || l.machines[0].OnceProfile != "" {
		t.Errorf("it was seen %d times, and the profile is %q", seen, l.machines[0].OnceProfile)
	}
}

// Storage that hangs holds no boot up for longer than a look may take.
func TestALookThatHangsProvesNothing(t *testing.T) {
	l := newLab(t, byHand, trustAll)
	ask := query("a", uuidA, macA)
	l.get(ask)
	l.contents[1] = boots("grub")
	hung := make(chan struct{})
	defer close(hung)
	l.hung = map[store.VolumeID]chan struct{}{1: hung}
	contains(t, l.get(ask), "could not make this machine's script", "work cannot be seen")
	if l.machines[0].OnceProfile != "setup" {
		t.Errorf("the profile is %q", l.machines[0].OnceProfile)
	}
}

// A machine whose volume hangs asks again and again, and takes no look from others.
func TestAVolumeThatHangsHidesNoOtherInstallation(t *testing.T) {
	l := newLab(t, byHand, trustAll, func(l *lab) { l.machines[1].OnceProfile = "setup" })
	l.get(query("a", uuidA, macA))
	l.get(query("b", uuidB, macB))
	l.contents[1], l.contents[3] = boots("grub"), boots("grub")
	hung := make(chan struct{})
	defer close(hung)
	l.hung = map[store.VolumeID]chan struct{}{1: hung}
	var wg sync.WaitGroup
	for range 2 * maxLooks {
		wg.Go(func() { l.get(query("a", uuidA, macA)) })
	}
	wg.Wait()
	contains(t, l.get(query("b", uuidB, macB)), "sanboot iscsi")
	if l.machines[0].OnceProfile != "setup" || l.machines[1].OnceProfile != "" {
		t.Errorf("the profiles are %q and %q", l.machines[0].OnceProfile, l.machines[1].OnceProfile)
	}
}

// Somebody who knows the machine's name is given its script where that has no secret,
// and may fetch what it starts, while the machine's own system goes on and changes its
// boot loader. That is no installation.
func TestABootInTheNameOfAMachineProvesNothing(t *testing.T) {
	l := newLab(t, byHand, func(l *lab) { l.machines[0].Auth = store.AuthNone; l.contents[1] = boots("old") })
	us := netip.MustParseAddr("127.0.0.1")
	ask := query("a", uuidA, macA)
	l.owners[us] = macB
	contains(t, l.get(ask), "sanhook")
	if len(l.baseline) != 0 || l.looked != 0 {
		t.Errorf("somebody else asked, and %+v is noted", l.baseline)
	}
	l.owners[us] = macA
	l.started = false // it was switched off when it had its script
	contains(t, l.get(ask), "sanhook")
	l.owners[us] = macB
	l.started = true
	contains(t, l.get(ask), "sanhook")
	l.mu.Lock()
	for id, e := range l.given { // the machine's own boot began nothing
		if e.Detail.Owned {
			delete(l.given, id)
		}
	}
	l.mu.Unlock()
	l.owners[us] = macA
	l.contents[1] = boots("upgraded")
	contains(t, l.get(ask), "sanhook")
	if l.machines[0].OnceProfile != "setup" {
		t.Errorf("the profile is %q", l.machines[0].OnceProfile)
	}
}
