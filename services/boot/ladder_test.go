package boot

import (
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

var (
	uefi64 = Platform{Firmware: UEFI, Arch: X8664}
	noon   = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	labMAC = store.MAC{0x00, 0x07, 0xe9, 1, 2, 3}
	deskPC = HardwareOf(labMAC, "UEFI", "x86-64", "PXEClient:Arch:00007:UNDI:003016")
)

func shelf() []Available {
	var out []Available
	for _, l := range []Loader{Undionly, SNPOnly, IPXEEFI, IPXEARM64, IPXEPXE, Undionly2} {
		out = append(out, Available{Loader: l, Platform: l.Platform(), NoISCSI: l == IPXEARM64})
	}
	return out
}

// memory is what boots taught, in the way that the appliance keeps it.
type memory map[string]map[string]store.LoaderTrial

func (m memory) of(key string) (out []store.LoaderTrial) {
	for _, t := range m[key] {
		out = append(out, t)
	}
	return out
}

func (m memory) learn(h Hardware, l Loader, v Verdict, at time.Time) {
	own, sort := h.Keys()
	for _, key := range []string{own, sort} {
		if m[key] == nil {
			m[key] = map[string]store.LoaderTrial{}
		}
		t := m[key][string(l)]
		t.Key, t.Loader = key, string(l)
		m[key][string(l)] = Learn(t, v, at, key == own)
	}
}

func (m memory) choose(h Hardware) Pick {
	return Choose(Question{Hardware: h, Shelf: shelf(), Trials: m.of})
}

func TestTheLadderHasTheSmallestLoaderFirst(t *testing.T) {
	for p, want := range map[Platform]string{
		{BIOS, X86, false}: "undionly.kpxe ipxe.pxe undionly.kkpxe", uefi64: "snponly.efi ipxe.efi", {UEFI, X8664, true}: "snponly.efi ipxe.efi",
		{UEFI, X86, false}: "ipxe-ia32.efi", {UEFI, ARM64, true}: "ipxe-arm64.efi", {UEFI, RISCV64, false}: "", {}: "",
	} {
		var got []string
		for _, l := range Ladder(p) {
			got = append(got, string(l))
			if !l.Platform().Runs(p) {
				t.Errorf("%s is tried on %s", l, p)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s tries %v, want %s", p, got, want)
		}
	}
}

func TestALoaderThatNeverSpokeIsFollowedByTheNext(t *testing.T) {
	m := memory{}
	if p := m.choose(deskPC); p.Loader != SNPOnly || p.Exhausted {
		t.Fatalf("at first it is given %+v", p)
	}
	m.learn(deskPC, SNPOnly, Silent, noon)
	p := m.choose(deskPC)
	if p.Loader != IPXEEFI || p.Exhausted || !strings.Contains(p.Why, "snponly.efi") {
		t.Errorf("after silence it is given %+v", p)
	}
	m.learn(deskPC, IPXEEFI, Worked, noon)
	if p := m.choose(deskPC); p.Loader != IPXEEFI || p.Why != "it worked with this machine before" {
		t.Errorf("then it is given %+v", p)
	}
}

func TestTheLabLearnsForAllOfOneSort(t *testing.T) {
	m := memory{}
	m.learn(deskPC, SNPOnly, Silent, noon)
	m.learn(deskPC, IPXEEFI, Worked, noon)
	twin, stranger, http := deskPC, deskPC, deskPC
	twin.MAC[5] = 9
	stranger.MAC[0] = 2
	http.Platform.HTTP = true
	if p := m.choose(twin); p.Loader != IPXEEFI || p.Why != "it worked with hardware of this sort before" {
		t.Errorf("a second machine of the sort is given %+v", p)
	}
	for _, other := range []Hardware{stranger, http, HardwareOf(store.MAC{0x00, 0x07, 0xe9, 7, 7, 7}, "UEFI", "x86-64", "PXEClient:Arch:00007:UNDI:003010")} {
		if p := m.choose(other); p.Loader != SNPOnly {
			t.Errorf("%s is given %+v", other, p)
		}
	}
	// One card of the maker that gets on with snponly does not mislead the one
	// that does not.
	m.learn(twin, SNPOnly, Worked, noon)
	if p := m.choose(deskPC); p.Loader != IPXEEFI {
		t.Errorf("the first machine is now given %+v", p)
	}
	if p := m.choose(twin); p.Loader != SNPOnly {
		t.Errorf("the second machine is now given %+v", p)
	}
}

func TestWhenAllAreSilentTheLadderBeginsAgain(t *testing.T) {
	m := memory{}
	bios := HardwareOf(labMAC, "BIOS", "x86", "PXEClient:Arch:00000:UNDI:002001")
	at := noon
	var given []string
	for range 7 {
		p := m.choose(bios)
		given = append(given, string(p.Loader))
		if p.Exhausted != (len(given) > 3) {
			t.Errorf("boot %d: exhausted is %v", len(given), p.Exhausted)
		}
		at = at.Add(time.Minute)
		m.learn(bios, p.Loader, Silent, at)
	}
	if got, want := strings.Join(given, " "), "undionly.kpxe ipxe.pxe undionly.kkpxe undionly.kpxe ipxe.pxe undionly.kkpxe undionly.kpxe"; got != want {
		t.Errorf("seven silent boots are given %s, want %s", got, want)
	}
}

func TestAWrongSilenceIsForgivenWhenTheLoaderWorks(t *testing.T) {
	m := memory{}
	m.learn(deskPC, SNPOnly, Silent, noon)
	m.learn(deskPC, SNPOnly, Worked, noon)
	if p := m.choose(deskPC); p.Loader != SNPOnly {
		t.Errorf("it is given %+v", p)
	}
	// A plug pulled once does not outweigh a boot that went well.
	m.learn(deskPC, SNPOnly, Silent, noon)
	if p := m.choose(deskPC); p.Loader != SNPOnly {
		t.Errorf("after one silence it is given %+v", p)
	}
	m.learn(deskPC, SNPOnly, Silent, noon)
	if p := m.choose(deskPC); p.Loader != IPXEEFI {
		t.Errorf("after two it is given %+v", p)
	}
}

func TestADoubtfulEndIsHalfASilence(t *testing.T) {
	m := memory{}
	m.learn(deskPC, SNPOnly, Doubtful, noon)
	if p := m.choose(deskPC); p.Loader != SNPOnly {
		t.Errorf("after one it is given %+v", p)
	}
	m.learn(deskPC, SNPOnly, Doubtful, noon)
	if p := m.choose(deskPC); p.Loader != IPXEEFI {
		t.Errorf("after two it is given %+v", p)
	}
	if got := Learn(store.LoaderTrial{Times: 4}, NoVerdict, noon, true); got.Times != 4 || !got.Last.IsZero() {
		t.Errorf("no verdict changes the memory to %+v", got)
	}
}

func TestTheMachinesOwnChoiceWinsWhereItRuns(t *testing.T) {
	q := Question{Hardware: deskPC, Own: "ipxe.efi", Shelf: append(shelf(),
		Available{Loader: "secure/shimx64.efi", Platform: uefi64, Role: store.LoaderFirst}, Available{Loader: "secure/grubx64.efi", Platform: uefi64, Role: store.LoaderSecond},
		Available{Loader: "mine.efi", Platform: Platform{Firmware: UEFI, Arch: X86}})}
	if p := Choose(q); p.Loader != IPXEEFI {
		t.Errorf("its own choice gives %+v", p)
	}
	for _, name := range []string{"secure", "secure/shimx64.efi"} {
		q.Own = name
		if p := Choose(q); p.Loader != "secure/shimx64.efi" {
			t.Errorf("%s gives %+v", name, p)
		}
	}
	for name, why := range map[string]string{"undionly.kpxe": "is for BIOS x86", "gone.efi": "is not there", "secure/grubx64.efi": "is not there"} {
		q.Own = name
		if p := Choose(q); p.Loader != SNPOnly || !strings.Contains(p.Why, why) {
			t.Errorf("%s gives %+v", name, p)
		}
	}
	q.Own, q.Hardware = "", HardwareOf(labMAC, "UEFI", "x86", "PXEClient:Arch:00006:UNDI:003016")
	if p := Choose(q); p.Loader != "mine.efi" {
		t.Errorf("a platform whose only loader is the operator's is given %+v", p)
	}
	q.Hardware.Platform.Arch = RISCV64
	if p := Choose(q); p.Loader != "" || !strings.Contains(p.Why, "riscv64") {
		t.Errorf("a platform without a loader is given %+v", p)
	}
	q.Hardware.Platform.Arch = ARM64
	if p := Choose(q); p.Loader != IPXEARM64 || !p.NoISCSI {
		t.Errorf("arm64 is given %+v", p)
	}
}

func TestHardwareIsReadFromWhatTheMachineSays(t *testing.T) {
	own, sort := deskPC.Keys()
	if own != "uefi-x86-64/mac-0007e9010203" || sort != "uefi-x86-64/undi-003016/oui-0007e9" {
		t.Errorf("the keys are %s and %s", own, sort)
	}
	if !OwnKey(own) || OwnKey(sort) {
		t.Error("a machine's own key is not told from its sort's")
	}
	_, sort = HardwareOf(labMAC, "UEFI", "arm64", "HTTPClient:Arch:00019:UNDI:003000").Keys()
	if sort != "uefi-arm64-http/undi-003000/oui-0007e9" {
		t.Errorf("over HTTP the key is %s", sort)
	}
	for _, class := range []string{"", "PXEClient", "PXEClient:Arch:00007:UNDI:", "PXEClient:Arch:00007:UNDI:00\x00/../", "UNDI:éééééé"} {
		if h := HardwareOf(labMAC, "UEFI", "x86-64", class); h.UNDI != "" {
			t.Errorf("%q says %q", class, h.UNDI)
		}
	}
	if s := deskPC.String(); s != "UEFI x86-64 firmware with network interface 003016 and a card of 00:07:e9" {
		t.Errorf("it is called %s", s)
	}
}

func TestAShimLooksForItsSecondStageUnderAKnownName(t *testing.T) {
	for first, want := range map[string]string{
		"shimx64.efi": "grubx64.efi", "shimaa64.efi": "grubaa64.efi", "shimia32.efi": "grubia32.efi",
		"ipxe-shimx64.efi": "ipxe.efi", "intel-shimx64.efi": "intel.efi", "snponly-shimaa64.efi": "snponly.efi", "ipxe-shim.efi": "ipxe.efi",
	} {
		if got, err := SecondOf(first); err != nil || got != want {
			t.Errorf("%s looks for %s, %v; want %s", first, got, err, want)
		}
	}
	for _, first := range []string{"ipxe.efi", "-shimx64.efi", "shimx64", "", "shim.kpxe"} {
		if got, err := SecondOf(first); err == nil {
			t.Errorf("%q looks for %s", first, got)
		}
	}
}
