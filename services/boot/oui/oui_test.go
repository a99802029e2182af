package oui

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/store"
)

func mac(t *testing.T, s string) store.MAC {
	t.Helper()
	m, err := store.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCardsAreKnownByTheirMaker(t *testing.T) {
	for address, want := range map[string]string{
		"00:07:e9:0f:ea:f5": "Intel",
		"d4:be:d9:12:34:56": "Dell",
		"3c:ec:ef:00:00:01": "Super Micro Computer",
		"b8:27:eb:00:00:01": "Raspberry Pi Foundation",
		"00:00:00:00:00:01": "Xerox",
		"70:b3:d5:f2:f0:01": "Teleplatforms", // MA-S: nine digits
		"52:54:00:77:00:0a": "QEMU virtual machine",
		"08:00:27:00:00:01": "VirtualBox virtual machine",
		"00:0c:29:00:00:01": "VMware virtual machine",
		"00:15:5d:00:00:01": "Hyper-V virtual machine",
		"bc:24:11:00:00:01": "Proxmox virtual machine",
		"02:42:ac:11:00:02": "locally administered address",
		"fe:ff:ff:ff:ff:fe": "locally administered address",
		"fc:ff:ff:00:00:00": "",
	} {
		if got := Of(mac(t, address)).String(); got != want {
			t.Errorf("%s is made by %q, want %q", address, got, want)
		}
	}
	if m := Of(mac(t, "52:54:00:77:00:0a")); m.Kind != Virtual || m.Name != "QEMU" {
		t.Errorf("%+v", m)
	}
	if m := Of(store.MAC{}); m.Kind != Card {
		t.Errorf("the zero MAC is %+v", m)
	}
}

// The search stands on the order of the lines; a name is one short line.
func TestEachLineOfTheTableIsFoundAndFitsAList(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	if len(lines) < 40_000 || !strings.HasSuffix(table, "\n") {
		t.Fatalf("the table has %d lines", len(lines))
	}
	last := ""
	for i, l := range lines {
		prefix, name, ok := strings.Cut(l, " ")
		if !ok || strings.Trim(prefix, "0123456789ABCDEF") != "" || len(prefix) != 6 && len(prefix) != 7 && len(prefix) != 9 {
			t.Fatalf("line %d is %q", i+1, l)
		}
		if prefix <= last {
			t.Fatalf("%s stands after %s", prefix, last)
		}
		last = prefix
		if len(name) > 80 || strings.TrimSpace(name) != name || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0xfffd }) {
			t.Errorf("%s has the name %q", prefix, name)
		}
		if i%97 == 0 || i == len(lines)-1 {
			if got, ok := find(prefix); !ok || got != name {
				t.Errorf("%s is found as %q", prefix, got)
			}
		}
	}
}

// listed is the version of ieee-data that oui.txt was made of.
const listed = "20220827.1"

func TestTheTableIsWhatTheGeneratorMakes(t *testing.T) {
	const listings = "/usr/share/ieee-data"
	if _, err := os.Stat(listings); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ieee-data is missing: apt-get install ieee-data")
		}
		t.Skip("ieee-data is missing: apt-get install ieee-data")
	}
	if v, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "ieee-data").Output(); err != nil || string(v) != listed {
		t.Skipf("oui.txt is of ieee-data %s, and here is %q: make it anew with go generate", listed, v)
	}
	dir := t.TempDir()
	program, err := filepath.Abs("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", program, listings)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, err := os.ReadFile(filepath.Join(dir, "oui.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, []byte(table)) {
		t.Error("oui.txt is not what the generator makes of this ieee-data: run go generate ./services/boot/oui")
	}
}

func FuzzOf(f *testing.F) {
	f.Add([]byte{0, 7, 0xe9, 0, 0, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m store.MAC
		copy(m[:], b)
		if s := Of(m).String(); strings.ContainsAny(s, "\n\r") {
			t.Errorf("%s is made by %q", m, s)
		}
	})
}

func BenchmarkOf(b *testing.B) {
	m := store.MAC{0xd4, 0xbe, 0xd9, 1, 2, 3}
	b.ReportAllocs()
	for b.Loop() {
		Of(m)
	}
}
