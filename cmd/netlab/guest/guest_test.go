//go:build linux

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/cmd/netlab/lab/area"
)

func TestTheLUNOfTheIBFTIsReadAsTheKernelSpellsIt(t *testing.T) {
	for spelled, want := range map[string]int{"00000000": 0, "02000000": 2, "0a000000": 10, "0ff000000": 255, "410000000": 0x4100, "412c000000": 0x412c, "7fff000000": 0x7fff} {
		if got, err := ibftLUN(spelled); err != nil || got != want {
			t.Errorf("%q is LUN %d, %v; want %d", spelled, got, err, want)
		}
	}
	for _, spelled := range []string{"", "2", "41000000", "2c41000000", "0zz000000", "000000"} {
		if got, err := ibftLUN(spelled); err == nil {
			t.Errorf("%q was read as LUN %d", spelled, got)
		}
	}
}

// blankDisk is a file of a disk's size, in place of the disk.
func blankDisk(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(area.DiskSize); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTheGuestWritesWhatTheHostLooksFor(t *testing.T) {
	f, nonce := blankDisk(t), area.NewNonce()
	if err := writePattern(f, nonce); err != nil {
		t.Fatal(err)
	}
	if err := area.CheckPattern(f, nonce); err != nil {
		t.Error(err)
	}
	if err := checkPattern(f.Name(), nonce); err != nil {
		t.Error(err)
	}
	if err := checkPattern(f.Name(), area.NewNonce()); err == nil {
		t.Error("the guest takes another pattern for its own")
	}
	if err := writeRecords(f, area.Control{Nonce: nonce, Mode: area.Records, Count: 30}); err != nil {
		t.Fatal(err)
	}
	if err := area.CheckRecords(f, nonce, 30); err != nil {
		t.Error(err)
	}
}

func TestTheGuestReportsByPlainHTTP(t *testing.T) {
	asked := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host + r.URL.String() }))
	defer srv.Close()
	if err := report(srv.URL + "/report?up=1"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-asked, strings.TrimPrefix(srv.URL, "http://")+"/report?up=1"; got != want {
		t.Errorf("it asked for %s, not %s", got, want)
	}
	srv.Close()
	if err := report(srv.URL); err == nil {
		t.Error("nobody answered and the guest saw no error")
	}
}

func TestModulesAreInsertedInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "order"), []byte("a.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadModules(dir); err == nil || !strings.Contains(err.Error(), "a.ko") {
		t.Errorf("a module that is not there: %v", err)
	}
}
