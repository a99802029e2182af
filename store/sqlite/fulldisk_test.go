package sqlite

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
)

// inSmallDisk runs the calling test again in a process with a mount namespace of
// its own, on a file system of 96 MiB. It reports whether this is that process.
func inSmallDisk(t *testing.T) (dir string, inside bool) {
	t.Helper()
	if dir := os.Getenv("LUNBOOT_TEST_SMALL_DISK"); dir != "" {
		if err := syscall.Mount("lunboot-test", dir, "tmpfs", 0, "size=96m"); err != nil {
			t.Fatalf("mount: %v", err)
		}
		return dir, true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "LUNBOOT_TEST_SMALL_DISK="+t.TempDir())
	// Root needs no user namespace, which not every machine allows.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		t.Errorf("on a small disk: %v\n%s", err, out)
	case os.Getenv("CI") == "true":
		t.Fatalf("no namespace for a small disk: %v", err)
	default:
		t.Skipf("no namespace for a small disk: %v", err)
	}
	return "", false
}

// fill writes until nothing fits any more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func withReserve(n int64) Option { return func(o *options) { o.reserve = n } }

// Volumes fill the disk; machines must still be told where to boot.
func TestFullDiskStillTakesLeasesAndMappings(t *testing.T) {
	dir, inside := inSmallDisk(t)
	if !inside {
		return
	}
	db, err := Open(t.Context(), dir, time.Now, withReserve(20<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	held := filepath.Join(dir, "inventory.db.reserve")
	if st, err := os.Stat(held); err != nil || st.Size() != 20<<20 || st.Mode().Perm() != 0o600 {
		t.Fatalf("the reserve: %v, %v", st, err)
	}
	fill(t, filepath.Join(dir, "volume"))
	for n := range 2000 {
		if err := db.PutLease(t.Context(), testLease(n)); err != nil {
			t.Fatalf("lease %d on a full disk: %v", n, err)
		}
	}
	if _, err := os.Stat(held); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the reserve is still held: %v", err)
	}

	// When the reserve is used up too, the error says so and nothing is lost.
	fill(t, filepath.Join(dir, "volume"))
	accepted := 0
	for n := 2000; ; n++ {
		err := db.PutLease(t.Context(), testLease(n))
		if err == nil {
			accepted++
			continue
		}
		if store.KindOf(err) != store.KindUnavailable {
			t.Errorf("kind %s: %v", store.KindOf(err), err)
		}
		break
	}
	if err := db.PutSetting(t.Context(), "tester", "key", string(make([]byte, 1<<20))); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("a setting on a full disk: %v", err)
	}
	if ls, err := db.Leases(t.Context()); len(ls) != 2000+accepted || err != nil {
		t.Errorf("%d leases of %d, %v", len(ls), 2000+accepted, err)
	}
	if err := os.Remove(filepath.Join(dir, "volume")); err != nil {
		t.Fatal(err)
	}
	if err := db.PutLease(t.Context(), testLease(9999)); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(t.Context(), dir, time.Now, withReserve(20<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(held); err != nil {
		t.Errorf("no reserve after a restart: %v", err)
	}
	if l, err := db.LeaseByAddress(t.Context(), testLease(9999).Address); err != nil || l.MAC != testLease(9999).MAC {
		t.Errorf("the last lease: %v, %v", l, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNoReserveOnADiskThatIsNearlyFull(t *testing.T) {
	dir, inside := inSmallDisk(t)
	if !inside {
		return
	}
	db, err := Open(t.Context(), dir, time.Now, withReserve(32<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := os.Stat(filepath.Join(dir, "inventory.db.reserve")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a reserve of a third of the disk: %v", err)
	}
	if err := db.PutSetting(t.Context(), "tester", "key", "value"); err != nil {
		t.Error(err)
	}
}

// A process that is killed has lost nothing that it was told is written.
func TestKilledProcessLosesNoLease(t *testing.T) {
	if dir := os.Getenv("LUNBOOT_TEST_WRITER"); dir != "" {
		db, err := Open(t.Context(), dir, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; ; n++ {
			if err := db.PutLease(t.Context(), testLease(n)); err != nil {
				t.Fatal(err)
			}
			a := testLease(n).Address.As4()
			if _, err := os.Stdout.Write(a[:]); err != nil {
				return
			}
		}
	}
	for round := range 3 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "LUNBOOT_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var told []netip.Addr
		var a [4]byte
		for len(told) < 50+30*round {
			if _, err := io.ReadFull(out, a[:]); err != nil {
				t.Fatal(err)
			}
			told = append(told, netip.AddrFrom4(a))
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for {
			if n, err := io.ReadFull(out, a[:]); n < len(a) || err != nil {
				break
			}
			told = append(told, netip.AddrFrom4(a))
		}
		_ = cmd.Wait() // killed
		db, err := Open(t.Context(), dir, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range told {
			if _, err := db.LeaseByAddress(t.Context(), a); err != nil {
				t.Errorf("round %d: %s was acknowledged: %v", round, a, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
