package loaders

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"lunboot/services/boot"
	"lunboot/store"
)

// rows is an inventory of loaders in memory.
type rows struct {
	all      []store.Loader
	machines []store.Machine
	refuse   error
}

func (r *rows) SuppliedLoaders(context.Context) ([]store.Loader, error) { return r.all, nil }
func (r *rows) Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error) {
	return r.machines, len(r.machines), nil
}
func (r *rows) PutLoader(_ context.Context, _ store.Actor, l store.Loader) (store.Loader, error) {
	if r.refuse != nil {
		return store.Loader{}, r.refuse
	}
	if err := l.Validate(); err != nil {
		return store.Loader{}, err
	}
	r.all = append(slices.DeleteFunc(r.all, func(o store.Loader) bool { return o.Key() == l.Key() }), l)
	return l, nil
}
func (r *rows) DeleteLoader(_ context.Context, _ store.Actor, chain, name string) error {
	r.all = slices.DeleteFunc(r.all, func(o store.Loader) bool { return o.Chain == chain && o.Name == name })
	return r.refuse
}

var quiet = slog.New(slog.DiscardHandler)

// newSet is a set with a built-in snponly.efi that keeps uploads in dir.
func newSet(t *testing.T, dir string, r *rows, folder string) *Set {
	t.Helper()
	s, err := load(folder, places{embedded: fstest.MapFS{"snponly.efi": {Data: pe(peX8664, peEFIApplication, "built in iPXE\x00initiator-iqn\x00")}}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(t.Context(), dir, r, quiet); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Set) mustAdd(t *testing.T, u boot.LoaderUpload, data []byte) boot.LoaderInfo {
	t.Helper()
	i, err := s.Add(t.Context(), "tester", u, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%+v: %v", u, err)
	}
	return i
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestAnUploadReplacesTheBuiltInAndAFolderReplacesBoth(t *testing.T) {
	dir, folder, r := filepath.Join(t.TempDir(), "loaders"), t.TempDir(), &rows{}
	s := newSet(t, dir, r, "")
	own := pe(peX8664, peEFIApplication, "mine iPXE\x00https\x00vcreate\x00 v1.21.1+ (g4e456)\x00")
	i := s.mustAdd(t, boot.LoaderUpload{File: "C:\\boot\\SNPONLY.EFI"}, own)
	if i.Name != boot.SNPOnly || !i.Supplied || i.Source != "uploaded" || i.Rung != 1 || !slices.Equal(i.Features, []string{FeatureHTTPS, FeatureVLAN}) || i.Opaque || i.License != "as supplied" {
		t.Errorf("the upload is %+v", i)
	}
	if data, _ := s.Open(boot.SNPOnly); !bytes.Equal(data, own) {
		t.Error("the built-in one is served still")
	}
	if got := files(t, dir); len(got) != 1 || got[0] != i.SHA256 {
		t.Errorf("the folder holds %v", got)
	}
	again := newSet(t, dir, r, "")
	if data, _ := again.Open(boot.SNPOnly); !bytes.Equal(data, own) {
		t.Error("it is lost at a restart")
	}
	write(t, folder, "snponly.efi", pe(peX8664, peEFIApplication, "folder"))
	both := newSet(t, dir, r, folder)
	if data, _ := both.Open(boot.SNPOnly); !bytes.Contains(data, []byte("folder")) {
		t.Error("the folder's file is not served")
	}
	if _, err := both.Add(t.Context(), "tester", boot.LoaderUpload{Name: "snponly.efi"}, bytes.NewReader(own)); store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), folder) {
		t.Errorf("an upload that nobody would be given: %v", err)
	}
	newer := s.mustAdd(t, boot.LoaderUpload{Name: "snponly.efi"}, pe(peX8664, peEFIApplication, "newer"))
	if got := files(t, dir); len(got) != 1 || got[0] != newer.SHA256 {
		t.Errorf("after a second upload the folder holds %v", got)
	}
	if err := s.Remove(t.Context(), "tester", "snponly.efi"); err != nil {
		t.Fatal(err)
	}
	if data, _ := s.Open(boot.SNPOnly); !bytes.Contains(data, []byte("built in")) || len(files(t, dir)) != 0 {
		t.Errorf("after its removal %v is left", files(t, dir))
	}
}

func TestAnUploadIsWhatItsBytesSay(t *testing.T) {
	dir, r := t.TempDir(), &rows{}
	s := newSet(t, dir, r, "")
	efi := pe(peX8664, peEFIApplication, "iPXE")
	for name, c := range map[string]struct {
		u    boot.LoaderUpload
		data io.Reader
		says string
	}{
		"another processor":      {boot.LoaderUpload{Name: "ipxe-arm64.efi"}, bytes.NewReader(efi), "not for arm64"},
		"EFI for BIOS":           {boot.LoaderUpload{Name: "undionly.kpxe"}, bytes.NewReader(efi), "BIOS machine cannot start"},
		"BIOS for EFI":           {boot.LoaderUpload{Name: "mine.efi"}, bytes.NewReader(bios("")), "not an EFI file"},
		"text":                   {boot.LoaderUpload{Name: "mine.kpxe"}, strings.NewReader(strings.Repeat("<html>", 400)), "text file"},
		"a program for Windows":  {boot.LoaderUpload{Name: "mine.pxe"}, bytes.NewReader(append([]byte("MZ"), make([]byte, 4000)...)), "DOS or Windows"},
		"a processor unheard of": {boot.LoaderUpload{Name: "mine.efi"}, bytes.NewReader(pe(0x5064, peEFIApplication, "")), "5064h"},
		"nothing":                {boot.LoaderUpload{Name: "mine.efi"}, strings.NewReader(""), "too few"},
		"17 MiB":                 {boot.LoaderUpload{Name: "mine.efi"}, io.LimitReader(zeros{}, 17<<20), "larger than 16 MiB"},
		"a broken connection":    {boot.LoaderUpload{Name: "mine.efi"}, iotest.ErrReader(errors.New("reset by peer")), "reset by peer"},
		"a path":                 {boot.LoaderUpload{Name: "../../etc/cron.d/x.efi"}, bytes.NewReader(efi), "lower-case letters"},
		"a script":               {boot.LoaderUpload{Name: "boot.ipxe"}, bytes.NewReader(efi), "not a loader's name"},
		"no name":                {boot.LoaderUpload{}, bytes.NewReader(efi), "name is needed"},
		"a role without a chain": {boot.LoaderUpload{Name: "x.efi", Role: store.LoaderFirst}, bytes.NewReader(efi), "name the chain"},
		"a chain called a MAC":   {boot.LoaderUpload{Name: "x.efi", Chain: "aabbccddeeff", Role: store.LoaderFirst}, bytes.NewReader(efi), "no MAC"},
		"a second before first":  {boot.LoaderUpload{File: "ipxe.efi", Chain: "secure", Role: store.LoaderSecond}, bytes.NewReader(efi), "no first file"},
	} {
		if _, err := s.Add(t.Context(), "tester", c.u, c.data); err == nil || store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if len(r.all) != 0 || len(files(t, dir)) != 0 {
			t.Fatalf("%s leaves %v and %v", name, r.all, files(t, dir))
		}
	}
	r.refuse = store.Conflict("role", "taken")
	if _, err := s.Add(t.Context(), "tester", boot.LoaderUpload{Name: "mine.efi"}, bytes.NewReader(efi)); err == nil || len(files(t, dir)) != 0 {
		t.Errorf("a refused row leaves %v, %v", files(t, dir), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestALoaderOfAnotherNameIsTheLastRungOfItsPlatform(t *testing.T) {
	s := newSet(t, t.TempDir(), &rows{}, "")
	s.mustAdd(t, boot.LoaderUpload{Name: "mine.efi"}, pe(peX86, peEFIApplication, "iPXE\x00initiator-iqn\x00"))
	s.mustAdd(t, boot.LoaderUpload{Name: "vendor.efi"}, pe(peX8664, peEFIApplication, "other"))
	want := map[boot.Loader]int{"snponly.efi": 1, "mine.efi": 1, "vendor.efi": 2}
	for _, i := range s.Manifest() {
		if want[i.Name] != i.Rung || i.Use == "" {
			t.Errorf("%s stands on rung %d: %s", i.Name, i.Rung, i.Use)
		}
	}
	if a := s.Shelf(); len(a) != 3 || a[0].NoISCSI || a[1].NoISCSI || a[2].NoISCSI {
		t.Errorf("the shelf is %+v", a)
	}
}

func TestASignedChainIsAFirstFileAndWhatItAsksFor(t *testing.T) {
	r := &rows{}
	s := newSet(t, t.TempDir(), r, "")
	shim, second := pe(peX8664, peEFIApplication, "shim"), pe(peX8664, peEFIApplication, "signed iPXE")
	if i := s.mustAdd(t, boot.LoaderUpload{File: "shimx64.efi", Chain: "Secure", Role: store.LoaderFirst}, shim); i.Name != "secure/shimx64.efi" || !i.Opaque {
		t.Errorf("the first is %+v", i)
	}
	if err := s.Fits("secure", "", ""); err == nil || !strings.Contains(err.Error(), "no second file") {
		t.Errorf("half a chain fits: %v", err)
	}
	if len(s.Shelf()) != 1 {
		t.Errorf("half a chain is on the shelf: %+v", s.Shelf())
	}
	if i := s.mustAdd(t, boot.LoaderUpload{File: "ipxe.efi", Chain: "secure", Role: store.LoaderSecond}, second); i.Name != "secure/grubx64.efi" {
		t.Errorf("the second is %+v", i)
	}
	if data, _ := s.Open("secure/grubx64.efi"); !bytes.Equal(data, second) {
		t.Error("the second is not served under the name that a shim asks for")
	}
	if _, ok := s.Open("grubx64.efi"); ok {
		t.Error("a chain's file is served outside of its chain")
	}
	for _, c := range []struct{ name, firmware, arch, says string }{
		{"secure", "UEFI", "x86-64", ""}, {"secure/shimx64.efi", "", "", ""}, {"secure", "BIOS", "x86", "last seen as BIOS"}, {"secure/grubx64.efi", "", "", "no loader or chain"},
		{"snponly.efi", "UEFI", "x86-64", ""}, {"snponly.efi", "UEFI", "arm64", "is for UEFI x86-64"}, {"gone.efi", "", "", "no loader or chain"},
	} {
		err := s.Fits(c.name, c.firmware, c.arch)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s %s: %v", c.name, c.firmware, c.arch, err)
		}
	}
	r.machines = []store.Machine{{Name: "lab-03", Loader: "secure"}}
	if err := s.Remove(t.Context(), "tester", "secure"); store.KindOf(err) != store.KindInUse || !strings.Contains(err.Error(), "lab-03") {
		t.Errorf("a chain in use: %v", err)
	}
	r.machines = nil
	if err := s.Remove(t.Context(), "tester", "secure"); err != nil || len(r.all) != 0 || len(s.Manifest()) != 1 {
		t.Errorf("after its removal: %v, %v", err, r.all)
	}
	for name, kind := range map[string]store.Kind{"secure": store.KindNotFound, "snponly.efi": store.KindInvalid} {
		if err := s.Remove(t.Context(), "tester", name); store.KindOf(err) != kind {
			t.Errorf("removing %s: %v", name, err)
		}
	}
}

func TestWhatAPowerCutLeftIsSweptAndWhatRottedIsNotServed(t *testing.T) {
	dir, r := t.TempDir(), &rows{}
	s := newSet(t, dir, r, "")
	i := s.mustAdd(t, boot.LoaderUpload{Name: "mine.efi"}, pe(peX86, peEFIApplication, "iPXE"))
	write(t, dir, "new-123", []byte("half"))
	write(t, dir, strings.Repeat("0", 64), []byte("no row"))
	if s := newSet(t, dir, r, ""); len(s.Manifest()) != 2 {
		t.Errorf("there are %+v", s.Manifest())
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("the folder holds %v", got)
	}
	write(t, dir, i.SHA256, pe(peX86, peEFIApplication, "rotten"))
	if _, ok := newSet(t, dir, r, "").Open("mine.efi"); ok {
		t.Error("bytes that are not those of the row are served")
	}
	r.all[0].SHA256 = "../../../etc/passwd"
	if _, ok := newSet(t, dir, r, "").Open("mine.efi"); ok {
		t.Error("a row opens a path")
	}
}

func TestUploadsAreBounded(t *testing.T) {
	s := newSet(t, t.TempDir(), &rows{}, "")
	data := pe(peX8664, peEFIApplication, "")
	for i := range maxUploads {
		s.mustAdd(t, boot.LoaderUpload{Name: "l" + strings.Repeat("x", i%50) + string(rune('a'+i/50)) + ".efi"}, data)
	}
	if _, err := s.Add(t.Context(), "tester", boot.LoaderUpload{Name: "last.efi"}, bytes.NewReader(data)); store.KindOf(err) != store.KindInvalid || !strings.Contains(err.Error(), "remove one first") {
		t.Errorf("one too many: %v", err)
	}
}

func TestTheModulesARM64LoaderHasNoISCSIAndCarriesOurScript(t *testing.T) {
	s, err := Load("", quiet)
	if err != nil {
		t.Fatal(err)
	}
	data, ok := s.Open(boot.IPXEARM64)
	if !ok || !bytes.Contains(data, []byte(armScript)) || !bytes.Contains(data, []byte("set user-class Tinkerbell")) {
		t.Fatalf("the loader for arm64 is there: %v", ok)
	}
	for _, i := range s.Manifest() {
		if i.Name == boot.IPXEARM64 && (i.Arch != "arm64" || i.Source != moduleSource || i.Version == "" || slices.Contains(i.Features, FeatureISCSI) || !slices.Contains(i.Features, FeatureHTTPS)) {
			t.Errorf("it is %+v", i)
		}
	}
	for _, a := range s.Shelf() {
		if a.NoISCSI != (a.Loader == boot.IPXEARM64) {
			t.Errorf("%+v", a)
		}
	}
}
