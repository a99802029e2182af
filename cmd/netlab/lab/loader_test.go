package lab_test

import (
	"bytes"
	"debug/pe"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// needs skips, or fails in CI, when a package of the tests' own is missing.
func needs(t *testing.T, names ...string) {
	t.Helper()
	for _, p := range lab.TestPackages() {
		for _, name := range names {
			if p.Name != name {
				continue
			}
			if _, err := os.Stat(p.File); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatalf("%s is missing: %s", p.Name, lab.InstallLine([]lab.Package{p}))
				}
				t.Skipf("%s is missing: %s", p.Name, lab.InstallLine([]lab.Package{p}))
			}
		}
	}
}

// serveFiles offers a folder over HTTP in the server's namespace, as a mirror in
// the lab would, and returns its URL.
func (b *bench) serveFiles(dir string) string {
	b.t.Helper()
	var l net.Listener
	b.must(lab.Namespace{Name: b.Network.Server}.Do(func() (err error) {
		l, err = net.Listen("tcp4", "10.77.0.1:8000")
		return err
	}))
	srv := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	b.t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://10.77.0.1:8000/"
}

func TestARM64BootsAKernelOverHTTP(t *testing.T) { bootsARM(t, false) }

func TestARM64BootsAKernelWithItsLoaderOverHTTPToo(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("the loader's other road; set LUNBOOT_SOAK=1")
	}
	bootsARM(t, true)
}

func bootsARM(t *testing.T, overHTTP bool) {
	t.Helper()
	needs(t, "qemu-system-arm", "qemu-efi-aarch64")
	b := start(t, linuxLimit)
	kernel, err := lab.ARMKernel(b.ctx)
	b.must(err)
	url := b.serveFiles(filepath.Dir(kernel)) + filepath.Base(kernel)
	b.cli("profile", "set", "arm", "--kind", "kernel", "--field", "kernel="+url, "--field", "cmdline=console=ttyAMA0 panic=-1")
	m := b.machine("arm", lab.UEFI, 61)
	m.Arch, m.HTTPBoot = lab.ARM64, overHTTP
	b.cli("machine", "add", "arm", "--mac", m.MAC.String(), "--profile", "arm")
	r, err := b.PowerOn(b.ctx, m)
	b.must(err)
	for _, says := range []string{`Booting Linux on physical CPU`, `Linux version 6\.1.*aarch64|Linux version 6\.1`, `Kernel command line: .*console=ttyAMA0`} {
		found, err := r.Console.WaitFor(b.ctx, says)
		b.must(err)
		t.Logf("%v after power-on: %s", found.At.Round(100*time.Millisecond), found.Groups[0])
	}
	a, err := b.appliance.WaitAttempt(b.ctx, "arm", func(a store.Attempt) bool { return stage(a, store.StageScript).State == store.StageDone })
	b.must(err)
	r.Kill()
	for _, s := range a.Stages {
		if !s.At.IsZero() {
			t.Logf("%5.1f s %s: %s", s.Ended.Sub(a.Started).Seconds(), s.Name, s.Detail)
		}
	}
	if a.Firmware != "UEFI" || a.Arch != "arm64" || len(a.Diagnoses) != 0 {
		t.Errorf("the appliance saw %s %s, with %v", a.Firmware, a.Arch, a.Diagnoses)
	}
	if s := stage(a, store.StageLoader); !strings.Contains(s.Detail, "267,264 bytes") {
		t.Errorf("the loader's stage says %q", s.Detail)
	}
	for _, name := range []store.StageName{store.StageLoader, store.StageScript} {
		if s := stage(a, name); s.State != store.StageDone {
			t.Errorf("stage %s is %s: %s", name, s.State, s.Detail)
		}
	}
}

// broken makes a snponly.efi whose first instructions are these.
func broken(t *testing.T, code ...byte) string {
	t.Helper()
	data, err := os.ReadFile("/usr/lib/ipxe/snponly.efi")
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	at := f.OptionalHeader.(*pe.OptionalHeader64).AddressOfEntryPoint
	for _, s := range f.Sections {
		if at >= s.VirtualAddress && at < s.VirtualAddress+s.Size {
			copy(data[at-s.VirtualAddress+s.Offset:], code)
			path := filepath.Join(t.TempDir(), "snponly.efi")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatal("the loader has no entry point")
	return ""
}

// A loader that ends with an error at once (mov rax, EFI_UNSUPPORTED; ret): the
// firmware asks again, which says that the loader did not run.
func TestALoaderThatDiesIsFollowedByTheNextAtTheNextBoot(t *testing.T) {
	b := start(t, linuxLimit)
	b.cli("loader", "add", broken(t, 0x48, 0xb8, 3, 0, 0, 0, 0, 0, 0, 0x80, 0xc3))
	c := b.linux("ladder", lab.UEFI, 62, area.PowerOff)
	c.Machine.OnlyIPv4 = true
	r := b.powerOn(c)
	// It goes on to its next way to boot, over HTTP, and asks anew.
	on := time.Now()
	_, err := b.appliance.WaitAttempt(b.ctx, "ladder", func(a store.Attempt) bool { return a.Outcome == store.OutcomeRunning && a.ID > 1 })
	b.must(err)
	t.Logf("the loader has died %v after power-on", time.Since(on).Round(100*time.Millisecond))
	r.Kill()
	b.bootsLinux(c, b.powerOn(c), "850,528 bytes")
}

// A loader that hangs (jmp $) is given up after 45 s of silence.
func TestALoaderThatHangsIsFollowedByTheNextAtTheNextBoot(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("waits for 45 s of silence; set LUNBOOT_SOAK=1")
	}
	b := start(t, linuxLimit)
	b.cli("loader", "add", broken(t, 0xeb, 0xfe))
	c := b.linux("ladder", lab.UEFI, 63, area.PowerOff)
	r := b.powerOn(c)
	a, err := b.appliance.WaitAttempt(b.ctx, "ladder", func(a store.Attempt) bool { return a.Outcome == store.OutcomeFailed && len(a.Diagnoses) > 0 })
	b.must(err)
	r.Kill()
	text := ""
	for _, f := range a.Diagnoses[0].Fixes {
		text += f.Label + "\n"
	}
	if d := a.Diagnoses[0]; d.Code != "LB-LOAD-05" || !strings.Contains(d.Title, "downloaded snponly.efi but did not start it") || !strings.Contains(text, "it is given ipxe.efi then") {
		t.Errorf("the diagnosis is %+v", d)
	}
	b.bootsLinux(c, b.powerOn(c), "850,528 bytes")
}

// A chain's first file comes from its chain's folder, and boots an operating system
// by itself: an iPXE takes a shim's place under its name. With a shim it is in
// secure_test.go.
func TestAMachineStartsFromTheChainThatItNames(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("a shim with its second stage is booted elsewhere; set LUNBOOT_SOAK=1")
	}
	b := start(t, linuxLimit)
	b.cli("loader", "add", "/usr/lib/ipxe/snponly.efi", "--name", "shimx64.efi", "--chain", "secure", "--role", "first")
	b.cli("loader", "add", "/usr/lib/ipxe/ipxe.efi", "--chain", "secure", "--role", "second")
	c := b.linux("chain", lab.UEFI, 64, area.PowerOff)
	b.cli("machine", "set", "chain", "--loader", "secure")
	b.bootsLinux(c, b.powerOn(c), "173,792 bytes")
	if log := b.cli("event", "list"); !strings.Contains(log, "secure/shimx64.efi") {
		t.Errorf("no event names the chain's first file:\n%s", log)
	}
}
