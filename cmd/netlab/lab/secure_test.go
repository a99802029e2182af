package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/store"
)

// The key that Debian's ovmf has for tests, whose certificate the firmware of a
// Secure machine trusts.
const (
	snakeoilKey  = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	snakeoilCert = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
)

// sbat says of which generation an iPXE is, in the section that a shim wants to
// see (SBAT.md of rhboot/shim).
const sbat = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nipxe,1,iPXE,ipxe,1,https://ipxe.org\n"

// tool runs one of the host's programs.
func (b *bench) tool(args ...string) {
	b.t.Helper()
	if out, err := exec.CommandContext(b.ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// signed signs an EFI file for the firmware of Secure machines.
func (b *bench) signed(file, name string) string {
	b.t.Helper()
	dir := b.t.TempDir()
	key, out := filepath.Join(dir, "key"), filepath.Join(dir, name)
	b.tool("openssl", "rsa", "-in", snakeoilKey, "-passin", "pass:snakeoil", "-out", key)
	b.tool("sbsign", "--key", key, "--cert", snakeoilCert, "--output", out, file)
	return out
}

// forShim is snponly.efi with its generation, so that a shim starts it once it is
// signed.
func (b *bench) forShim() string {
	b.t.Helper()
	dir := b.t.TempDir()
	text, out := filepath.Join(dir, "sbat.csv"), filepath.Join(dir, "snponly.efi")
	b.must(os.WriteFile(text, []byte(sbat), 0o600))
	b.tool("objcopy", "--add-section", ".sbat="+text, "--set-section-flags", ".sbat=alloc,load,readonly,data", "--change-section-address", ".sbat+0xc0000", "/usr/lib/ipxe/snponly.efi", out)
	return out
}

// secure is a machine with Secure Boot.
func (b *bench) secure(name string, n byte) *lab.Client {
	b.t.Helper()
	d, err := b.SectorDisk(name, "")
	b.must(err)
	m := b.machine(name, lab.UEFI, n)
	m.Secure, m.OnlyIPv4 = true, true
	c, err := b.Enroll(b.ctx, b.appliance, m, 2, d)
	b.must(err)
	return c
}

// reads powers a machine on and waits until it has read from its volume, which its
// loader did: there is nothing on that volume that UEFI could start.
func (b *bench) reads(c *lab.Client) store.Attempt {
	b.t.Helper()
	r := b.powerOn(c)
	defer r.Kill()
	a, err := b.appliance.WaitAttempt(b.ctx, c.Machine.Name, func(a store.Attempt) bool {
		return stage(a, store.StageLogin).State == store.StageDone && !stage(a, store.StageRead).At.IsZero()
	})
	b.must(err)
	return a
}

// Secure Boot for real: the firmware refuses the loader that nobody signed, which
// the diagnosis says; and starts the same loader signed with its key.
func TestSecureBootRefusesWhatIsNotSignedAndTheDiagnosisSaysSo(t *testing.T) {
	needs(t, "sbsigntool", "openssl")
	b := start(t, linuxLimit)
	c := b.secure("secure", 71)
	r := b.powerOn(c)
	on := time.Now()
	refused, err := r.Console.WaitFor(b.ctx, `failed to load Boot\d+ "UEFI PXEv4.*: Access Denied`)
	b.must(err)
	var first store.Attempt
	for { // it goes on to boot over HTTP, which is another attempt
		b.must(b.appliance.JSON(b.ctx, &first, "attempt", "show", "1"))
		if len(first.Diagnoses) > 0 {
			break
		}
		select {
		case <-b.ctx.Done():
			t.Fatalf("the attempt was not explained: %+v", first)
		case <-time.After(100 * time.Millisecond):
		}
	}
	r.Kill()
	t.Logf("refused %v after power-on", refused.At.Round(100*time.Millisecond))
	if d := first.Diagnoses[0]; d.Code != "LB-LOAD-09" || d.Title != "Secure Boot on secure refused snponly.efi" {
		t.Errorf("it is explained %v after power-on as %+v", time.Since(on), d)
	}
	b.cli("loader", "add", b.signed("/usr/lib/ipxe/snponly.efi", "snponly.efi"))
	if list := b.cli("loader", "list"); !strings.Contains(list, "signed") {
		t.Errorf("the signature is not shown:\n%s", list)
	}
	a := b.reads(c)
	t.Logf("signed, it reads %.1f s after it asked", stage(a, store.StageRead).At.Sub(a.Started).Seconds())
}

// The chain for machines with Secure Boot, on Debian's shim: the firmware starts
// the shim, and the shim fetches and checks the iPXE under the name that it has
// for it. Microsoft's signature is the shim's own; since no iPXE is signed by
// anybody whom that shim trusts, both carry SnakeOil's, which the firmware and so
// the shim trusts.
func TestSecureBootStartsAShimAndTheIPXEBehindIt(t *testing.T) {
	needs(t, "sbsigntool", "openssl", "binutils")
	b := start(t, linuxLimit)
	shim, err := lab.Shim(b.ctx)
	b.must(err)
	b.cli("loader", "add", b.signed(shim, "shimx64.efi"), "--chain", "secure", "--role", "first")
	unsigned := b.forShim()
	c := b.secure("chain", 72)
	if os.Getenv("LUNBOOT_SOAK") != "" { // a boot more, which the shim ends
		b.cli("loader", "add", unsigned, "--chain", "secure", "--role", "second")
		b.cli("machine", "set", "chain", "--loader", "secure")
		r := b.powerOn(c)
		_, err = r.Console.WaitFor(b.ctx, `Verification failed: .*Security Violation|Security Violation`)
		b.must(err)
		r.Kill()
	}
	b.cli("loader", "add", b.signed(unsigned, "snponly.efi"), "--chain", "secure", "--role", "second")
	b.cli("machine", "set", "chain", "--loader", "secure")
	a := b.reads(c)
	t.Logf("it reads %.1f s after it asked", stage(a, store.StageRead).At.Sub(a.Started).Seconds())
	log := b.cli("event", "list")
	for _, file := range []string{"secure/shimx64.efi", "secure/grubx64.efi"} {
		if !strings.Contains(log, file) {
			t.Errorf("no event names %s:\n%s", file, log)
		}
	}
	if s := stage(a, store.StageLoader); s.State != store.StageDone {
		t.Errorf("what the shim asks for and can do without counts as a failure: %+v", s)
	}
}

// Debian's own chain with Microsoft's keys: its shim starts its GRUB, by the names
// and in the order in which the appliance has them. GRUB is no iPXE and stops at
// its prompt; a signed iPXE, when there is one, takes its place.
func TestSecureBootStartsDebiansChainWithMicrosoftsKeys(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("a third Secure Boot; set LUNBOOT_SOAK=1")
	}
	b := start(t, linuxLimit)
	shim, err := lab.Shim(b.ctx)
	b.must(err)
	grub, err := lab.SecureGRUB(b.ctx)
	b.must(err)
	b.cli("loader", "add", shim, "--chain", "debian", "--role", "first")
	b.cli("loader", "add", grub, "--chain", "debian", "--role", "second")
	c := b.secure("debian", 73)
	c.Machine.Microsoft = true
	b.cli("machine", "set", "debian", "--loader", "debian")
	r := b.powerOn(c)
	defer r.Kill()
	found, err := r.Console.WaitFor(b.ctx, `GNU GRUB|grub>`)
	b.must(err)
	t.Logf("GRUB runs %v after power-on", found.At.Round(100*time.Millisecond))
	if log := b.cli("event", "list"); !strings.Contains(log, "debian/grubx64.efi") {
		t.Errorf("the shim did not fetch its second stage:\n%s", log)
	}
}
