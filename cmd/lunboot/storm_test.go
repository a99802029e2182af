package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/store/volume/volumetest"
)

const sector = 512

// held is one content that a sector may have. Of a write that was refused
// nobody knows how much of it was done.
type held struct {
	number uint64 // 0: the golden volume's
	zero   bool
	sure   bool
}

// verifier writes to a part of a disk and knows for each of its sectors what it
// may hold after a crash: what was flushed last, and everything written since.
type verifier struct {
	i       *iscsitest.Initiator
	from    uint32 // its first block
	golden  []byte
	allowed [][]held
	next    uint64
	rng     *rand.Rand
	// What it saw.
	written, flushed int
}

func newVerifier(from uint32, golden []byte, seed uint64) *verifier {
	v := &verifier{from: from, golden: golden, allowed: make([][]held, len(golden)/sector), rng: rand.New(rand.NewPCG(seed, 21))}
	for s := range v.allowed {
		v.allowed[s] = []held{{sure: true}}
	}
	return v
}

// content is what a sector of a version holds: no two of any sectors are the same.
func (v *verifier) content(b []byte, s int, ver held) []byte {
	switch {
	case ver.zero:
		clear(b)
	case ver.number == 0:
		copy(b, v.golden[s*sector:])
	default:
		x := ver.number<<24 ^ uint64(v.from) + uint64(s)
		for k := 0; k < sector; k += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(b[k:], x|1)
		}
	}
	return b
}

func (v *verifier) add(s, n int, ver held) {
	for k := s; k < s+n; k++ {
		v.allowed[k] = append(v.allowed[k], ver)
	}
}

// acknowledged takes back a doubt: the last n sectors' writes were acknowledged.
func (v *verifier) acknowledged(s, n int) {
	for k := s; k < s+n; k++ {
		v.allowed[k][len(v.allowed[k])-1].sure = true
	}
}

// do runs a command and returns its sense, "" for GOOD.
func (v *verifier) do(c iscsitest.Command) (string, error) {
	for {
		r, err := v.i.Do(c)
		if err != nil || r.Status == 0 {
			return "", err
		}
		if !strings.HasPrefix(r.Key(), "06/") { // not a unit attention
			return r.Key(), nil
		}
	}
}

func (v *verifier) write(s, n int) (string, error) {
	v.next++
	ver := held{number: v.next}
	b := make([]byte, n*sector)
	for k := range n {
		v.content(b[k*sector:][:sector], s+k, ver)
	}
	v.add(s, n, ver)
	key, err := v.do(iscsitest.Write10(0, v.from+uint32(s), b))
	if err == nil && key == "" {
		v.acknowledged(s, n)
		v.written++
	}
	return key, err
}

func (v *verifier) unmap(s, n int) (string, error) {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b, 22)
	binary.BigEndian.PutUint16(b[2:], 16)
	binary.BigEndian.PutUint64(b[8:], uint64(v.from)+uint64(s))
	binary.BigEndian.PutUint32(b[16:], uint32(n))
	cdb := make([]byte, 10)
	cdb[0], cdb[8] = 0x42, 24
	v.add(s, n, held{zero: true})
	key, err := v.do(iscsitest.Command{LUN: iscsitest.LUN(0), CDB: cdb, Write: b})
	if err == nil && key == "" {
		v.acknowledged(s, n)
	}
	return key, err
}

func (v *verifier) flush() (string, error) {
	key, err := v.do(iscsitest.Sync10(0))
	if err == nil && key == "" {
		v.flushed++
		for s, all := range v.allowed {
			last := len(all) - 1
			for !all[last].sure {
				last--
			}
			v.allowed[s] = slices.Clone(all[last:])
		}
	}
	return key, err
}

// step does something at random.
func (v *verifier) step() (string, error) {
	s := v.rng.IntN(len(v.allowed))
	n := 1 + v.rng.IntN(min(64, len(v.allowed)-s))
	if v.rng.IntN(2) == 0 && s+8 <= len(v.allowed) {
		s &^= 7
		n = max(8, n&^7)
	}
	n = min(n, len(v.allowed)-s)
	switch v.rng.IntN(12) {
	case 0:
		return v.unmap(s, n)
	case 1, 2:
		return v.flush()
	}
	return v.write(s, n)
}

// verify reads everything. After a kill, what it finds is what the disk holds from
// then on.
func (v *verifier) verify(killed bool) error {
	var want [sector]byte
	for s := 0; s < len(v.allowed); s += 128 {
		n := min(128, len(v.allowed)-s)
		var r iscsitest.Result
		for {
			var err error
			if r, err = v.i.Do(iscsitest.Read10(0, v.from+uint32(s), uint16(n))); err != nil {
				return err
			}
			if r.Status == 0 {
				break
			}
			if !strings.HasPrefix(r.Key(), "06/") {
				return fmt.Errorf("blocks from %d are answered with %s", v.from+uint32(s), r.Key())
			}
		}
		for k := range n {
			got := r.Data[k*sector:][:sector]
			found := -1
			for i := len(v.allowed[s+k]) - 1; i >= 0 && found < 0; i-- {
				if bytes.Equal(got, v.content(want[:], s+k, v.allowed[s+k][i])) {
					found = i
				}
			}
			if found < 0 {
				return fmt.Errorf("block %d holds neither what was flushed nor what was written since; it begins with % x, allowed are %v", v.from+uint32(s+k), got[:16], v.allowed[s+k])
			}
			if !killed {
				if later := v.allowed[s+k][found+1:]; slices.ContainsFunc(later, func(h held) bool { return h.sure }) {
					return fmt.Errorf("block %d holds what it held before it was written", v.from+uint32(s+k))
				}
				continue
			}
			v.allowed[s+k] = []held{{v.allowed[s+k][found].number, v.allowed[s+k][found].zero, true}}
		}
	}
	return nil
}

// storm is an appliance that is killed again and again.
type storm struct {
	*child
	t    *testing.T
	dir  string
	same []string
}

func (w *storm) cli(verb string) (int, string) {
	code, _, errs := cliIn(w.dir, strings.Fields(verb)...)
	return code, errs
}

func (w *storm) must(verb string) {
	w.t.Helper()
	if code, errs := w.cli(verb); code != exitDone {
		w.t.Fatalf("%s: %s", verb, errs)
	}
}

func newStorm(t *testing.T, dir string) *storm {
	w := &storm{t: t, dir: dir, child: bear(t, dir, onLoopback...)}
	w.same = []string{"--dhcp", "off", "--admin", w.up.Admin, "--boot", w.up.Boot, "--tftp", w.up.TFTP, "--iscsi", w.up.Portal, "--log-format", "json"}
	return w
}

func (w *storm) kill() {
	w.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGKILL)
	<-w.done
	_ = w.cmd.Wait()
	w.child = bear(w.t, w.dir, w.same...)
}

func (w *storm) login(n uint16) *iscsitest.Initiator {
	w.t.Helper()
	i, err := iscsitest.Dial(netip.MustParseAddrPort(w.up.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: w.up.Target, ISID: iscsitest.Linux(n)})
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

// withClone gives machine lab1 a clone of a golden volume, which is returned.
func (w *storm) withClone(size, data int) []byte {
	w.t.Helper()
	golden := make([]byte, size)
	volumetest.Pattern(golden[:data], 5)
	image := filepath.Join(w.t.TempDir(), "golden.raw")
	if err := errors.Join(os.WriteFile(image, golden[:data], 0o600), os.Truncate(image, int64(size))); err != nil {
		w.t.Fatal(err)
	}
	w.must("volume import golden " + image)
	w.must("volume freeze golden")
	w.must("volume clone golden lab1")
	w.must("machine add lab1 --mac 00:07:e9:0f:ea:f5 --auth none --iqn iqn.2026-11.test:lab1")
	w.must("mapping add lab1 lab1 --lun 0")
	return golden
}

// Two sessions write to a clone, with UNMAP and flushes in between, while it gets
// snapshots and is flattened; the process is killed at any moment. No flushed
// block is lost, and no sector is neither old nor new.
func TestAStormOfKillsTearsNoClone(t *testing.T) {
	rounds := 6
	if os.Getenv("LUNBOOT_SOAK") != "" {
		rounds = 250
	}
	w := newStorm(t, dataDir(t))
	const part = 2 << 20
	golden := w.withClone(64<<20, 3<<20)
	verifiers := []*verifier{newVerifier(0, golden[:part], 1), newVerifier(part/sector, golden[part:2*part], 2)}
	rng := rand.New(rand.NewPCG(1, 22))
	acts := 0
	for round := range rounds {
		for k, v := range verifiers {
			v.i = w.login(uint16(2*round + k))
			if err := v.verify(true); err != nil {
				t.Fatalf("after %d kills: %v", round, err)
			}
		}
		var wg sync.WaitGroup
		for _, v := range verifiers {
			wg.Go(func() {
				for {
					key, err := v.step()
					if err != nil {
						return // the kill
					}
					if key != "" {
						t.Errorf("round %d: a command is answered with %s", round, key)
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(20+rng.IntN(100)) * time.Millisecond)
		if round%3 == 1 {
			wg.Go(func() { // its answer may be the kill
				act := fmt.Sprintf("volume snapshot lab1 s%d", round)
				if acts++; acts%3 == 0 {
					act = "volume flatten lab1"
				}
				code, errs := w.cli(act)
				t.Logf("round %d: %s: %d %s", round, act, code, strings.TrimSpace(errs))
			})
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		}
		_ = w.cmd.Process.Signal(syscall.SIGKILL)
		wg.Wait()
		for _, v := range verifiers {
			_ = v.i.Conn.Close()
		}
		w.kill()
		if t.Failed() {
			return
		}
	}
	for k, v := range verifiers {
		v.i = w.login(uint16(9000 + k))
		if err := v.verify(true); err != nil {
			t.Fatal(err)
		}
		_ = v.i.Conn.Close()
		if v.written < rounds || v.flushed < rounds/2 {
			t.Errorf("only %d writes and %d flushes were seen", v.written, v.flushed)
		}
		t.Logf("%d kills, %d writes, %d flushes", rounds, v.written, v.flushed)
	}
	for _, name := range []string{"lab1", "golden"} {
		if code, errs := w.cli("volume check " + name); code != exitDone {
			t.Errorf("volume check %s: %s", name, errs)
		}
	}
}

// A clone fills the file system of the volumes: the write that finds no room is
// answered SPACE ALLOCATION FAILED WRITE PROTECT, everything before it can be
// flushed, a kill loses none of that, and writing goes on when there is room.
func TestAStormOfKillsOnAFullDisk(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	rounds := 3
	if os.Getenv("LUNBOOT_SOAK") != "" {
		rounds = 200
	}
	dir := dataDir(t)
	volumes := filepath.Join(dir, "volumes")
	smallDisk(t, volumes, 48<<20)
	w := newStorm(t, dir)
	const size = 64 << 20
	golden := w.withClone(size, 2<<20)
	v := newVerifier(0, golden, 3)
	full := 0
	for round := range rounds {
		v.i = w.login(uint16(round))
		if err := v.verify(true); err != nil {
			t.Fatalf("after %d kills: %v", round, err)
		}
		refused := 0
		for refused < 8 {
			s := v.rng.IntN(len(v.allowed) - 128)
			key, err := v.write(s, 1+v.rng.IntN(127))
			if err != nil {
				t.Fatal(err)
			}
			switch key {
			case "":
			case "07/27/07":
				refused++
				full++
			default:
				t.Fatalf("round %d: a write on a full disk is answered with %s", round, key)
			}
			if v.rng.IntN(40) == 0 || refused == 3 {
				if key, err = v.flush(); err != nil || key != "" {
					t.Fatalf("round %d: a flush with %d writes refused: %s, %v", round, refused, key, err)
				}
			}
		}
		_ = v.i.Conn.Close()
		filler := filepath.Join(volumes, "filler")
		fillUp(t, filler)
		w.kill()
		v.i = w.login(uint16(round) + 5000)
		if err := v.verify(true); err != nil {
			t.Fatalf("round %d, on the full disk: %v", round, err)
		}
		// The machine gives room back, the operator more, and it is served again.
		for n := range 8 {
			if key, err := v.unmap(n*(len(v.allowed)/8), len(v.allowed)/8-64); err != nil || key != "" {
				t.Fatalf("round %d: UNMAP on a full disk: %s, %v", round, key, err)
			}
		}
		if key, err := v.flush(); err != nil || key != "" {
			t.Fatalf("round %d: a flush after UNMAP: %s, %v", round, key, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			if key, err := v.write(v.rng.IntN(len(v.allowed)-128), 127); err != nil || key != "" {
				t.Fatalf("round %d: a write when there is room: %s, %v", round, key, err)
			}
		}
		if err := v.verify(false); err != nil {
			t.Fatalf("round %d, with room: %v", round, err)
		}
		_ = v.i.Conn.Close()
		w.kill()
		if round%20 == 19 {
			t.Logf("%d rounds, %d writes, %d flushes, %d writes refused", round+1, v.written, v.flushed, full)
		}
	}
	// After the last kill every block is read once more, and the maps are sound.
	v.i = w.login(9000)
	if err := v.verify(true); err != nil {
		t.Errorf("after the last of %d rounds: %v", rounds, err)
	}
	_ = v.i.Conn.Close()
	t.Logf("%d rounds, %d writes, %d flushes, %d writes refused", rounds, v.written, v.flushed, full)
	if full < 8*rounds || v.written < 8*rounds {
		t.Errorf("only %d writes were refused and %d done", full, v.written)
	}
	for _, name := range []string{"lab1", "golden"} {
		if code, errs := w.cli("volume check " + name); code != exitDone {
			t.Errorf("volume check %s: %s", name, errs)
		}
	}
}

// fillUp takes the last byte of a file system.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 64<<10); len(b) > 0; {
		if _, err := f.Write(b); errors.Is(err, syscall.ENOSPC) {
			b = b[:len(b)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Sync() // what was promised room may find none; that is what is wanted
}

// smallDisk mounts a file system of its own. The caller's mount table is its own.
func smallDisk(t *testing.T, dir string, size int64) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = errors.Join(os.Truncate(image, size), os.MkdirAll(dir, 0o750))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(line[0], line[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v: %v: %s", line, err, out)
			}
			t.Skipf("%v: %v: %s", line, err, out)
		}
	}
	t.Cleanup(func() { // the loop device goes with the mount
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
}
