package diagnose

import (
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

func TestABootLoaderThatWentNoFurtherIsNotALostSystem(t *testing.T) {
	read := func(n int64) *tape { return bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", n).quiet() }
	is(t, read(4608).first(t, lab12(holding(forBIOS))), "LB-VOL-12", "lab-12 started the boot loader of its volume “win11”, which went no further", "", store.BestGuess)
	is(t, read(18e6).first(t, lab12(holding(forBIOS))), "LB-OS-02", "", "", store.BestGuess)
}

func TestFullStorageIsNamedWhereverItIsMet(t *testing.T) {
	p := bios().script().refused(ipxeID, "0301", `the volumes of iqn cannot be opened now: begin anew win11: the file system that holds the volumes is full; nothing was lost, make room and try again`)
	is(t, p.first(t, lab12(win11)), "LB-VOL-01", "lab-12 was refused its volume “win11”: the storage is full", "", store.Certain)
}

func TestABootLoaderThatGaveUpIsNobodyAtTheKeyboard(t *testing.T) {
	gave := func() *tape {
		return bios().script().logged(ipxeID, "s1").read(ipxeID, "s1", 3072).report("sanboot", "0b8080a0")
	}
	is(t, gave().first(t, lab12(holding(forBIOS))), "LB-VOL-12", "lab-12 started the boot loader of its volume “win11”, which gave up", "", store.Certain)
	is(t, gave().first(t, lab12(holding(forUEFI))), "LB-VOL-06", "", "", store.Certain)
}

func TestACloneWhoseParentIsGoneIsNamed(t *testing.T) {
	p := bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: begin anew win11: create layer win11: the volume's file is missing; is the file system that holds it mounted?")
	d := p.first(t, lab12(win11))
	is(t, d, "LB-VOL-02", "lab-12 was refused its volume “win11”, because its storage failed", "", store.Certain)
	if !strings.Contains(d.Fixes[0].Label, "a clone of") {
		t.Errorf("%+v", d.Fixes)
	}
	p = bios().script().refused(ipxeID, "0301", "the volumes of iqn.x cannot be opened now: begin anew win11: the volume is promoting; the login succeeds when that is over")
	if d := p.first(t, lab12(win11)); d.Code != "LB-TGT-06" {
		t.Errorf("%+v", d)
	}
}

func TestAVolumeThatWasTakenAwayMeanwhileIsOfferedFirst(t *testing.T) {
	f := lab12()
	f.Profile, f.Goldens, f.Free = "san", []string{"golden"}, []string{"another", "lab-12-disk"}
	d := bios().script().refused(ipxeID, "0202", "no volume is mapped to the machine lab-12 (iqn)").first(t, f)
	is(t, d, "LB-LUN-02", "lab-12 lost its volume while it booted", "map-volume-lab-12-disk", store.Certain)
	if d.Fixes[1].Action != "own-copy-golden" || len(d.Fixes) != 3 {
		t.Errorf("%+v", d.Fixes)
	}
}

// A disk that hangs looks like packets that are lost, to the machine and to whoever
// looks at its logins alone.
func TestStorageThatHangsIsNotTakenForLostPackets(t *testing.T) {
	boots := func(hangs bool) *tape {
		p := bios().script()
		for _, name := range []string{"s1", "s2", "s3", "s4"} {
			p.logged(ipxeID, name)
			if name == "s1" || !hangs { // else no READ comes to its end
				p.see(5, store.EventISCSIFirstRead, session(ipxeID, name))
			}
			if hangs && name != "s3" { // it is said once a minute in one session
				d := session(ipxeID, name)
				d.Opcode, d.LBA, d.Millis, d.Cause = "READ(10)", 2048, 10400, store.CauseStorage
				p.see(10400, store.EventISCSIStuck, d).see(4600, store.EventISCSIClosed, session(ipxeID, name))
			} else {
				p.see(15000, store.EventISCSIClosed, session(ipxeID, name))
			}
		}
		return p
	}
	d := boots(true).quiet().first(t, lab12(win11))
	is(t, d, "LB-VOL-13", "lab-12 waits for “win11”, because the appliance’s storage does not answer", "", store.Certain)
	if !slices.ContainsFunc(d.Evidence, func(s string) bool {
		return strings.Contains(s, "READ(10) at block 2048 was with the storage for 10 s, and was not answered")
	}) {
		t.Errorf("the evidence is %q", d.Evidence)
	}
	if d := boots(false).quiet().first(t, lab12(win11)); d.Code != "LB-NET-02" {
		t.Errorf("without a word of the storage it is explained as %s: %s", d.Code, d.Title)
	}
	// What it waited for came: what stopped it later is something else.
	p := bios().script().logged(ipxeID, "s1")
	d1 := session(ipxeID, "s1")
	d1.Opcode, d1.Millis, d1.Cause = "READ(10)", 11000, store.CauseStorage
	p.see(11000, store.EventISCSIStuck, d1).read(ipxeID, "s1", 1<<20)
	if d := p.quiet().first(t, lab12(win11)); d.Code == "LB-VOL-13" {
		t.Errorf("it is explained as %s: %s", d.Code, d.Title)
	}
}
