package ipxeerr

import (
	"os"
	"strings"
	"testing"

	"lunboot/store"
)

// Every code here was read off a machine's screen.
func TestCodesThatPeopleMeet(t *testing.T) {
	for _, c := range []struct {
		code    string
		class   Class
		stage   store.StageName
		screen  string
		meaning string // part of it
	}{
		{"1d704039", ClassDisk, store.StageRead, "Input/output error", "did not keep the reason"},
		{"1d704098", ClassDisk, store.StageRead, "Input/output error", "did not keep the reason"},
		{"1d704539", ClassNoLUN, store.StageRead, "Input/output error", "no disk with the LUN"},
		{"1d704598", ClassNoLUN, store.StageRead, "Input/output error", "no disk with the LUN"},
		{"1d704339", ClassMedium, store.StageRead, "Input/output error", "could not read the blocks"},
		{"410d613c", ClassSecret, store.StageLogin, "Operation not permitted", "user name or secret"},
		{"410d618f", ClassSecret, store.StageLogin, "Operation not permitted", "user name or secret"},
		{"410d623c", ClassNotAllowed, store.StageLogin, "Operation not permitted", "no volume here"},
		{"2c0d603b", ClassNoTarget, store.StageLogin, "No such device", "target's name"},
		{"2c0d6087", ClassNoTarget, store.StageLogin, "No such device", "target's name"},
		{"20d623c", ClassMutual, store.StageLogin, "Permission denied", "did not believe the target"},
		{"020d628f", ClassMutual, store.StageLogin, "Permission denied", "did not believe the target"},
		{"430d6601", ClassNegotiate, store.StageLogin, "Protocol error", "did not agree"},
		{"0f0a6039", ClassUnreachable, "", "Connection reset", "refused"},
		{"4c0a6092", ClassUnreachable, "", "Connection timed out", "nobody answered"},
		{"1d852039", ClassNotBootable, store.StageRead, "Input/output error", "nothing to start"},
		{"7f22208e", ClassNotBootable, store.StageRead, "Error 0x7f22208e", "UEFI"},
		{"2e852001", ClassNotBootable, store.StageRead, "Exec format error", "boot sector"},
		{"1c0d6102", ClassRootPath, store.StageLogin, "Invalid argument", "malformed"},
		{"2d0c613b", ClassNoFile, store.StageScript, "No such file or directory", "web server"},
		{"040ee119", ClassNoAddress, store.StageAddress, "Cannot assign requested address", "no DHCP server"},
		{"2e022001", ClassScript, store.StageScript, "Exec format error", "command"},
		{"7f04818f", ClassSecureBoot, store.StageScript, "Error 0x7f04818f", "Secure Boot"},
		{"7f048281", ClassFormat, store.StageScript, "Error 0x7f048281", "damaged"},
		{"3c092003", ClassFeature, "", "Operation not supported", "without the protocol"},
		{"38086101", ClassLink, store.StageAddress, "Not connected", "cable"},
	} {
		t.Run(c.code, func(t *testing.T) {
			e, ok := DecodeString(c.code)
			if !ok {
				t.Fatal("not known")
			}
			if !e.Exact || e.Class != c.class || e.Stage != c.stage || e.Screen != c.screen {
				t.Errorf("exact %v, class %q, stage %q, screen %q", e.Exact, e.Class, e.Stage, e.Screen)
			}
			if !strings.Contains(e.Meaning, c.meaning) {
				t.Errorf("meaning is %q, without %q", e.Meaning, c.meaning)
			}
		})
	}
}

func TestBothPlatformsSpellOneErrorAlike(t *testing.T) {
	bios, _ := Decode(0x1d704539)
	uefi, _ := Decode(0x1d704598)
	if bios.Meaning != uefi.Meaning || bios.Platform != BIOS || uefi.Platform != UEFI {
		t.Errorf("%v\n%v", bios, uefi)
	}
}

func TestACodeIsReadInEveryFormThatPeopleMeet(t *testing.T) {
	for _, s := range []string{"1d704539", "0x1d704539", "1D704539", " 1d704539\n", "http://ipxe.org/1d704539", "https://ipxe.org/1d704539/", "ipxe.org/1d704539"} {
		if code, ok := Parse(s); !ok || code != 0x1d704539 {
			t.Errorf("%q is read as %08x, %v", s, code, ok)
		}
	}
	if code, ok := Parse("https://ipxe.org/err/1d7045"); !ok || code != 0x1d704500 {
		t.Errorf("the short form is read as %08x, %v", code, ok)
	}
	for _, s := range []string{"", "0", "zz", "+1d70453", "1d7045390", "ffffffff", "-1", "http://ipxe.org/", "1d70_4539"} {
		if code, ok := Parse(s); ok {
			t.Errorf("%q is read as %08x", s, code)
		}
	}
}

func TestAnUnlistedCodeIsGuessedFromItsParts(t *testing.T) {
	e, ok := Decode(0x1d0d7039)
	if !ok || e.Exact || e.Where != "iSCSI" || e.Stage != store.StageLogin || !strings.Contains(e.Meaning, "iSCSI") {
		t.Errorf("%+v, %v", e, ok)
	}
	if _, ok := Decode(0x7e000001); ok {
		t.Error("a POSIX error that does not exist is explained")
	}
}

func TestTheLineForPeopleCarriesTheCode(t *testing.T) {
	e, _ := Decode(0x1d704539)
	want := "the disk refused the request: there is no disk with the LUN that was asked for, or the block lies beyond its end (1d704539: Input/output error, SCSI, BIOS)"
	if e.String() != want {
		t.Errorf("%s", e)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"1d704039", "http://ipxe.org/err/1d7040", "0x7fffffff", "7f0481ff", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, ok := DecodeString(s)
		if !ok {
			return
		}
		if e.Meaning == "" || e.Screen == "" || strings.Contains(e.String(), "%!") {
			t.Errorf("%q: %+v", s, e)
		}
		if again := uint32(e.Posix)<<24 | uint32(e.File)<<13 | uint32(e.Uniq)<<8 | e.Code&0xff; again != e.Code {
			t.Errorf("%08x is taken apart into %08x", e.Code, again)
		}
	})
}

// Every code that the lab can provoke on both kinds of firmware is known by
// itself, and both spellings say the same.
func TestTheCodesThatTheLabProvokesAreKnown(t *testing.T) {
	table, err := os.ReadFile("testdata/lab.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(f) == 0 {
			continue
		}
		if rows++; len(f) < 5 {
			t.Fatalf("%q", line)
		}
		var meanings []string
		for i, platform := range []Platform{BIOS, UEFI} {
			e, ok := DecodeString(f[1+i])
			if !ok || !e.Exact || e.Class != Class(f[3]) || e.Platform != platform {
				t.Errorf("%s: %s is %+v, known %v", f[0], f[1+i], e, ok)
			}
			meanings = append(meanings, e.Meaning)
		}
		if f[1][:6] == f[2][:6] && meanings[0] != meanings[1] {
			t.Errorf("%s means %q and %q", f[0], meanings[0], meanings[1])
		}
	}
	if rows < 15 {
		t.Errorf("%d codes", rows)
	}
}
