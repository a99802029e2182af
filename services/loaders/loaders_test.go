package loaders

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"lunboot/services/boot"
	"lunboot/store"
)

// pe makes the smallest file that passes for an EFI application.
func pe(machine uint16, subsystem uint16, text string) []byte {
	b := make([]byte, 2048)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 128)
	copy(b[128:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[132:], machine)
	binary.LittleEndian.PutUint16(b[128+24+68:], subsystem)
	copy(b[512:], text)
	return b
}

// sign gives an EFI file a certificate table, as its header says.
func sign(b []byte) []byte {
	b = append(bytes.Clone(b), make([]byte, 64)...)
	binary.LittleEndian.PutUint16(b[152:], 0x20b)
	binary.LittleEndian.PutUint32(b[152+108:], 16)
	binary.LittleEndian.PutUint32(b[152+112+32:], uint32(len(b)-64))
	binary.LittleEndian.PutUint32(b[152+112+36:], 64)
	return b
}

func TestASignatureIsSeen(t *testing.T) {
	plain := pe(peX8664, peEFIApplication, "iPXE")
	for name, c := range map[string]struct {
		data []byte
		want bool
	}{
		"signed": {sign(plain), true}, "not signed": {plain, false},
		"cut off":       {sign(plain)[:len(plain)+8], false},
		"no directory":  {func() []byte { b := sign(plain); b[152+108] = 4; return b }(), false},
		"empty":         {func() []byte { b := sign(plain); b[152+112+36] = 0; return b }(), false},
		"size of 4 GiB": {func() []byte { b := sign(plain); copy(b[152+112+36:], "\xff\xff\xff\xff"); return b }(), false},
		"no magic":      {func() []byte { b := sign(plain); b[153] = 9; return b }(), false},
	} {
		f, err := inspect(c.data)
		if got := slices.Contains(f.Features, FeatureSigned); err != nil || got != c.want {
			t.Errorf("%s: signed is %t, %v", name, got, err)
		}
	}
}

func bios(text string) []byte {
	b := bytes.Repeat([]byte{0xea, 5, 0, 0xc0}, 512)
	copy(b[1024:], text)
	return b
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func logTo(b *bytes.Buffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestTheOperatorsFileGoesBeforeTheEmbeddedAndThatBeforeDebians(t *testing.T) {
	dir, debian := t.TempDir(), t.TempDir()
	p := places{
		embedded: fstest.MapFS{
			"undionly.kpxe": {Data: bios("embedded")}, "snponly.efi": {Data: pe(peX8664, peEFIApplication, "embedded")},
			"VERSION": {Data: []byte("1.2.3-embedded\n")}, "README": {Data: []byte("x")},
		},
		debian: map[boot.Loader][]string{
			boot.SNPOnly: {filepath.Join(debian, "snponly.efi")},
			boot.IPXEEFI: {filepath.Join(debian, "absent"), write(t, debian, "ipxe.efi", pe(peX8664, peEFIApplication, "\x001.0.0+git-20190125.36a4c85-5.1\x00"))},
			boot.IPXEPXE: {write(t, debian, "ipxe.pxe", bios("debian"))},
		},
		dpkg: write(t, debian, "status", []byte("Package: a\nVersion: 9\n\nPackage: ipxe\nStatus: ok\nVersion: 4.5.6-7\n\nPackage: z\nVersion: 8\n")),
	}
	write(t, debian, "snponly.efi", pe(peX8664, peEFIApplication, "debian"))
	own := write(t, dir, "undionly.kpxe", bios("operator"))
	write(t, dir, "undionly.kpx", bios("misspelt"))
	var log bytes.Buffer
	s, err := load(dir, p, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[boot.Loader]struct{ text, source, version string }{
		boot.Undionly: {"operator", own, ""},
		boot.SNPOnly:  {"embedded", "embedded", "1.2.3-embedded"},
		boot.IPXEEFI:  {"1.0.0+git", filepath.Join(debian, "ipxe.efi"), "1.0.0+git-20190125.36a4c85-5.1"},
		boot.IPXEPXE:  {"debian", filepath.Join(debian, "ipxe.pxe"), "4.5.6-7"},
	} {
		data, ok := s.Open(name)
		if !ok || !bytes.Contains(data, []byte(want.text)) {
			t.Errorf("%s is not the %s file", name, want.text)
			continue
		}
		i := slices.IndexFunc(s.Manifest(), func(i boot.LoaderInfo) bool { return i.Name == name })
		info := s.Manifest()[i]
		sum := sha256.Sum256(data)
		if info.Source != want.source || info.Version != want.version || info.SHA256 != hex.EncodeToString(sum[:]) || info.Size != int64(len(data)) {
			t.Errorf("the manifest says %+v, want %+v", info, want)
		}
	}
	if info := s.Manifest()[1]; info.Name != boot.SNPOnly || info.Firmware != "UEFI" || info.Arch != "x86-64" || info.License != "GPL-2.0-or-later" {
		t.Errorf("the second line of the manifest is %+v", info)
	}
	if !strings.Contains(log.String(), "undionly.kpx") {
		t.Errorf("the misspelt name is not logged: %s", log.String())
	}
	if want := []boot.Loader{boot.IPXEEFI32, boot.IPXEARM64, boot.Undionly2}; !slices.Equal(s.Absent(), want) {
		t.Errorf("absent are %v, want %v", s.Absent(), want)
	}
	if m := s.Missing(); m != "" {
		t.Errorf("missing: %q, though BIOS and UEFI machines can start", m)
	}
}

func TestWhatIsMissingIsSaidWithTheWayOut(t *testing.T) {
	s, err := load("", places{embedded: fstest.MapFS{}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BIOS", "undionly.kpxe", "UEFI", "snponly.efi", "apt-get install ipxe", "--loaders DIR"} {
		if !strings.Contains(s.Missing(), want) {
			t.Errorf("%q does not say %q", s.Missing(), want)
		}
	}
	if _, ok := s.Open(boot.Undionly); ok || len(s.Manifest()) != 0 || len(s.Absent()) != len(boot.Loaders()) {
		t.Error("there are loaders in an empty set")
	}
}

func TestAFileIsWhatItsNameSays(t *testing.T) {
	for _, c := range []struct {
		name boot.Loader
		data []byte
		says string
	}{
		{boot.SNPOnly, pe(peX8664, peEFIApplication, ""), ""},
		{boot.IPXEEFI, pe(peX8664, peEFIApplication, ""), ""},
		{boot.IPXEEFI32, pe(peX86, peEFIApplication, ""), ""},
		{boot.IPXEARM64, pe(peARM64, peEFIApplication, ""), ""},
		{boot.Undionly, bios(""), ""},
		{boot.IPXEPXE, bios(""), ""},

		{boot.Undionly, pe(peX8664, peEFIApplication, ""), "EFI file, which a BIOS machine cannot start"},
		{boot.SNPOnly, bios(""), "not an EFI file"},
		{boot.SNPOnly, pe(peARM64, peEFIApplication, ""), "for arm64"},
		{boot.IPXEARM64, pe(peX8664, peEFIApplication, ""), "not for arm64"},
		{boot.SNPOnly, pe(0x5064, peEFIApplication, ""), "5064h"},
		{boot.SNPOnly, pe(peX8664, 3, ""), "subsystem 3"},
		{boot.Undionly, []byte(strings.Repeat("<html>Not found\n", 200)), "text file"},
		{boot.Undionly, []byte("x"), "too few"},
		{boot.SNPOnly, nil, "too few"},
		{boot.SNPOnly, append([]byte("MZ"), bytes.Repeat([]byte{0xff}, 2000)...), "not an EFI file"},
	} {
		err := Check(c.name, c.data)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestAWrongFileOfTheOperatorStopsTheStart(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	write(t, dir, "undionly.kpxe", pe(peX8664, peEFIApplication, ""))
	if _, err := load(dir, places{embedded: fstest.MapFS{}}, log); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "undionly.kpxe")) {
		t.Errorf("an EFI file for BIOS: %v", err)
	}
	if _, err := load(filepath.Join(dir, "nothing"), places{embedded: fstest.MapFS{}}, log); err == nil || !strings.Contains(err.Error(), "--loaders") {
		t.Errorf("a folder that is not there: %v", err)
	}
	sub := t.TempDir()
	if err := os.Mkdir(filepath.Join(sub, "snponly.efi"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := load(sub, places{embedded: fstest.MapFS{}}, log); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder under a loader's name: %v", err)
	}
	large := t.TempDir()
	write(t, large, "undionly.kpxe", make([]byte, store.MaxLoader+1))
	if _, err := load(large, places{embedded: fstest.MapFS{}}, log); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestAWrongFileElsewhereIsPassedOverAndLogged(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	s, err := load("", places{
		embedded: fstest.MapFS{"snponly.efi": {Data: bios("")}},
		debian: map[boot.Loader][]string{
			boot.SNPOnly: {write(t, dir, "bad", []byte("x")), write(t, dir, "good", pe(peX8664, peEFIApplication, ""))},
		},
	}, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Manifest()) != 1 || s.Manifest()[0].Source != filepath.Join(dir, "good") {
		t.Errorf("the manifest is %+v", s.Manifest())
	}
	if n := strings.Count(log.String(), "passed over"); n != 2 {
		t.Errorf("%d files are logged: %s", n, log.String())
	}
}

func TestDebiansPackageIsFound(t *testing.T) {
	if _, err := os.Stat("/usr/lib/ipxe/undionly.kpxe"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the package ipxe is not installed")
		}
		t.Skip("the package ipxe is not installed")
	}
	s, err := Load("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s.Missing() != "" {
		t.Error(s.Missing())
	}
	for _, i := range s.Manifest() {
		if i.Version == "" {
			t.Errorf("%s has no version", i.Name)
		}
		t.Logf("%+v", i)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("snponly.efi", pe(peX8664, peEFIApplication, ""))
	f.Add("undionly.kpxe", bios(""))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		l, err := boot.ParseLoader(name)
		if err != nil {
			return
		}
		if Check(l, data) == nil && l.Platform().Firmware == boot.UEFI && !bytes.HasPrefix(data, []byte("MZ")) {
			t.Error("a file that is no EFI file passes")
		}
	})
}

// A file of which only the beginning arrived is refused by firmware without a word,
// as one that nobody signed is.
func TestAFileThatIsCutShortIsRefused(t *testing.T) {
	data := pe(peX8664, peEFIApplication, "iPXE")
	binary.LittleEndian.PutUint16(data[128+6:], 2) // sections
	binary.LittleEndian.PutUint16(data[128+20:], 224)
	table := data[128+24+224:]
	binary.LittleEndian.PutUint32(table[16:], 1024)
	binary.LittleEndian.PutUint32(table[20:], 1024)
	binary.LittleEndian.PutUint32(table[40+20:], 1<<20) // of no bytes, as .bss is
	if err := Check("mine.efi", data); err != nil {
		t.Errorf("a whole file: %v", err)
	}
	if err := Check("mine.efi", data[:2000]); err == nil || !strings.Contains(err.Error(), "cut short: it has 2000 bytes, and its header speaks of 2048") {
		t.Errorf("a file without its end: %v", err)
	}
	binary.LittleEndian.PutUint16(data[128+6:], 1000)
	if err := Check("mine.efi", data); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("a file without its own table: %v", err)
	}
}
