package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// status reads a number of kB, or a count, from /proc/PID/status.
func (p *child) status(t testing.TB, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in /proc", field)
	return 0
}

// files counts the open files.
func (p *child) files(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// attacked starts an appliance with a victim, its volume, and more machines.
func attacked(t *testing.T, machines ...string) *child {
	t.Helper()
	dir := dataDir(t)
	p := bear(t, dir, onLoopback...)
	p.enroll(t, machines...)
	return p
}

// enroll adds a victim and more machines, each with a volume.
func (p *child) enroll(t *testing.T, machines ...string) {
	t.Helper()
	for k, name := range append([]string{"victim"}, machines...) {
		for _, verb := range []string{
			fmt.Sprintf("machine add %s --mac 02:00:00:00:00:%02x --auth none --iqn iqn.2026-11.test:%s", name, k+1, name),
			fmt.Sprintf("volume create %s --size 64M", name),
			fmt.Sprintf("mapping add %s %s --lun 0", name, name),
		} {
			if code, _, errs := cliIn(p.dir, strings.Fields(verb)...); code != exitDone {
				t.Fatalf("%s: %s", verb, errs)
			}
		}
	}
}

// dial logs in from an address of 127.0.0.0/8.
func (p *child) dial(name string, n uint16, keys ...pdu.Pair) (*Initiator, error) {
	i, err := Dial(netip.MustParseAddrPort(p.up.Portal), Options{Name: "iqn.2026-11.test:" + name, Target: p.up.Target, ISID: Linux(n), Keys: append([]pdu.Pair{
		{Key: "InitialR2T", Value: "No"}, {Key: "MaxRecvDataSegmentLength", Value: "262144"}, {Key: "FirstBurstLength", Value: "262144"}, {Key: "MaxBurstLength", Value: "1048576"},
	}, keys...)})
	if err != nil {
		return nil, err
	}
	for range 3 { // unit attentions
		if r, err := i.Do(Ready(0)); err != nil || r.Status == 0 {
			return i, err
		}
	}
	return i, nil
}

// victim works without a pause: what it writes it reads back, and it remembers
// how long each command took.
type victim struct {
	i    *Initiator
	rnd  *rand.Rand
	took []time.Duration
}

func (v *victim) step(size int) error {
	lba := uint32(v.rnd.IntN((32<<20 - size) / 512))
	data := make([]byte, size)
	for at := 0; at < size; at += 8 {
		binary.BigEndian.PutUint64(data[at:], v.rnd.Uint64())
	}
	w := Write10(0, lba, data)
	w.Immediate = min(size, 64<<10)
	w.Segment = 256 << 10
	for _, c := range []Command{w, Read10(0, lba, uint16(size/512))} {
		at := time.Now()
		r, err := v.i.Do(c)
		if err != nil || r.Status != 0 {
			return fmt.Errorf("command %02X of %d bytes: %w, status %02X, sense %s", c.CDB[0], size, err, r.Status, r.Key())
		}
		v.took = append(v.took, time.Since(at))
		if c.Read > 0 && !bytes.Equal(r.Data, data) {
			return fmt.Errorf("%d bytes at block %d are not what was written", size, lba)
		}
	}
	return nil
}

// work steps until done is closed and returns the 99th percentile.
func (v *victim) work(done <-chan struct{}, sizes ...int) (p99 time.Duration, err error) {
	v.took = v.took[:0]
	for n := 0; ; n++ {
		select {
		case <-done:
			if len(v.took) == 0 {
				return 0, errors.New("no command came to its end")
			}
			slices.Sort(v.took)
			return v.took[len(v.took)*99/100], nil
		default:
		}
		if err := v.step(sizes[n%len(sizes)]); err != nil {
			return 0, err
		}
	}
}

// after is closed when a time is over.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// enoughFiles raises the limit of open files and says how many connections a
// test may have of those it wants.
func enoughFiles(t *testing.T, want int) int {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	// The runtime has raised the soft limit to the hard one already.
	if most := int(min(l.Cur, 1<<20)) - 500; most < want {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%d connections need a limit of open files of %d, it is %d", want, want+500, l.Cur)
		}
		return most
	}
	return want
}

// 10,000 connections of many addresses that are up to no good: a machine that is
// at work goes on, one that comes logs in, and the appliance has hardly more
// memory and files than before.
func TestTenThousandConnectionsHarmNobody(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("opens 10,000 connections")
	}
	connections := enoughFiles(t, 10_000)
	p := attacked(t, "late")
	i, err := p.dial("victim", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Conn.Close()
	i.Timeout = 20 * time.Second
	v := &victim{i: i, rnd: rand.New(rand.NewPCG(1, 2))}
	calm, err := v.work(after(500*time.Millisecond), 4096)
	if err != nil {
		t.Fatal(err)
	}
	files, memory, threads := p.files(t), p.status(t, "VmRSS"), p.status(t, "Threads")

	hello := Attach(nil, 1, 0, false, false)
	stranger := hello.Bytes(&pdu.LoginRequest{Transit: true, CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: Linux(3), CID: 1, CmdSN: 1},
		pdu.AppendText(pdu.AppendText(nil, "InitiatorName", "iqn.2026-11.test:stranger"), "TargetName", p.up.Target))
	says := [][]byte{nil, stranger[:20], stranger[:80], stranger, []byte("GET / HTTP/1.1\r\nHost: lunboot\r\n\r\n"), bytes.Repeat([]byte{0x43}, 4096)}
	var conns []net.Conn
	var mu sync.Mutex
	var next, lateLogins, mostFiles atomic.Int64
	attack := make(chan struct{})
	var wg sync.WaitGroup
	begun := time.Now()
	for range 16 { // as many at a time
		wg.Go(func() {
			for n := next.Add(1); n <= int64(connections); n = next.Add(1) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+n%2), byte(1+n%250))}, Timeout: 10 * time.Second}
				nc, err := d.Dial("tcp", p.up.Portal)
				if err != nil {
					t.Errorf("connection %d: %v", n, err)
					return
				}
				_, _ = nc.Write(says[n%int64(len(says))]) // it may be closed already
				mu.Lock()
				conns = append(conns, nc)
				mu.Unlock()
			}
		})
	}
	var others sync.WaitGroup
	others.Go(func() { // machines that come meanwhile, from an address of their own
		for n := uint16(0); ; n++ {
			select {
			case <-attack:
				return
			case <-time.After(20 * time.Millisecond):
			}
			late, err := p.dial("late", n)
			if err != nil {
				t.Errorf("login %d of a machine that comes: %v", n, err)
				return
			}
			lateLogins.Add(1)
			late.Conn.Close()
			mostFiles.Store(max(mostFiles.Load(), int64(p.files(t))))
		}
	})
	go func() { wg.Wait(); close(attack) }()
	busy, err := v.work(attack, 4096)
	if err != nil {
		t.Errorf("the machine at work: %v", err)
	}
	others.Wait()
	held, err := v.work(after(300*time.Millisecond), 4096) // while they are all still there
	if err != nil {
		t.Errorf("the machine at work: %v", err)
	}
	grew := p.status(t, "VmHWM") - memory
	t.Logf("%d connections in %s; p99 %s before, %s meanwhile, %s after; %d logins meanwhile; %d KiB more memory, %d files (%d before, %d at most), %d threads (%d before)",
		len(conns), time.Since(begun).Round(time.Millisecond), calm, busy, held, lateLogins.Load(), grew, p.files(t), files, mostFiles.Load(), p.status(t, "Threads"), threads)
	if limit := 250 * time.Millisecond; busy > limit || held > limit {
		t.Errorf("the 99th percentile is %s and %s", busy, held)
	}
	// 256 connections that have not logged in, each with a goroutine, a buffer of
	// 4 KiB and a text.
	if bound := 64 << 10 * raceFactor; grew > bound {
		t.Errorf("the appliance took %d KiB for it", grew)
	}
	if most := files + 256 + 40; int(mostFiles.Load()) > most || p.files(t) > most {
		t.Errorf("%d files are open, %d at most, %d were before", p.files(t), mostFiles.Load(), files)
	}
	if lateLogins.Load() == 0 {
		t.Error("no machine came meanwhile")
	}
	for _, nc := range conns {
		nc.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); p.files(t) > files+8; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are still open, %d were before", p.files(t), files)
		}
	}
}

// Hundreds of sessions ask for all that they may and read nothing: the memory of
// all of them together is bounded, and another machine goes on with commands of
// every size.
func TestSessionsThatNeverReadHarmNobody(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("opens 192 sessions")
	}
	const each = 64
	greedy := []string{"greedy-1", "greedy-2", "greedy-3"}
	p := attacked(t, greedy...)
	i, err := p.dial("victim", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Conn.Close()
	i.Timeout = 20 * time.Second
	v := &victim{i: i, rnd: rand.New(rand.NewPCG(1, 2))}
	sizes := []int{4096, 4096, 1 << 20, 65536, 4096, 8 << 20}
	calm, err := v.work(after(500*time.Millisecond), sizes...)
	if err != nil {
		t.Fatal(err)
	}
	memory := p.status(t, "VmRSS")
	var conns []net.Conn
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	never := make([]byte, 8<<20)
	for k, name := range greedy {
		for n := range each {
			// With a data digest, or FUA, data cannot go straight from or to the
			// file: it is held.
			g, err := p.dial(name, uint16(n), pdu.Pair{Key: "DataDigest", Value: "CRC32C"})
			if err != nil {
				t.Fatalf("session %d of %s: %v", n, name, err)
			}
			conns = append(conns, g.Conn)
			_ = g.Conn.(*net.TCPConn).SetReadBuffer(4096)
			_ = g.Conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for range 32 {
				c := Command{CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, 0x40, 0, 0}, Read: 8 << 20} // data that is never taken
				if k == 2 {
					c = Command{CDB: []byte{0x2a, 0x08, 0, 0, 0, 0, 0, 0x40, 0, 0}, Write: never} // or asked for, and never sent
				}
				if _, err := g.Start(c); err != nil {
					break // it takes no more, which is its right
				}
			}
		}
	}
	time.Sleep(200 * time.Millisecond)
	busy, err := v.work(after(time.Second), sizes...)
	if err != nil {
		t.Errorf("the machine at work: %v", err)
	}
	grew := p.status(t, "VmHWM") - memory
	// A quarter of the pool for each machine, and 1.5 MiB for each session: none has
	// many commands that run.
	bound := (len(greedy)*128 + len(greedy)*each*3/2) << 10 * raceFactor
	t.Logf("%d sessions that do not read; p99 %s before, %s meanwhile, %d commands; %d MiB more memory, %d at most", len(conns), calm, busy, len(v.took), grew>>10, bound>>10)
	if grew > bound {
		t.Errorf("the appliance took %d MiB for it", grew>>10)
	}
	if os.Getenv("LUNBOOT_SOAK") == "" {
		return
	}
	// TCP gives up a peer that takes nothing for 30 s, at the next probe.
	begun := time.Now()
	deadline := begun.Add(90 * time.Second)
	for open := 1; open > 0; time.Sleep(time.Second) {
		code, out, errs := cliIn(p.dir, "session", "list")
		if code != exitDone {
			t.Fatal(errs)
		}
		if open = strings.Count(out, "greedy-1") + strings.Count(out, "greedy-2"); open > 0 && time.Now().After(deadline) {
			t.Fatalf("%d sessions that read nothing are still there", open)
		}
	}
	t.Logf("those that read nothing were given up after %s", time.Since(begun).Round(time.Second))
	if _, err := v.work(after(time.Second), sizes...); err != nil {
		t.Errorf("the machine at work: %v", err)
	}
}

// Where few files may be open, there are fewer sessions, and enough is left for
// those who do not come over iSCSI.
func TestFewOpenFilesAreEnough(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil { // it has exec -a
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := bearBy(t, dataDir(t), exec.Command(bash, append([]string{"-c", `ulimit -n 450; exec -a lunboot "$0" serve "$@"`, exe}, onLoopback...)...))
	p.enroll(t, "late")
	i, err := p.dial("victim", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Conn.Close()
	for n := range 600 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%100))}, Timeout: 10 * time.Second}
		nc, err := d.Dial("tcp", p.up.Portal)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	sessions := 1
	for n := uint16(0); n < 40; n++ {
		late, err := p.dial("late", n)
		var refused *LoginError
		if errors.As(err, &refused) && refused.Status == pdu.LoginOutOfResources {
			break
		}
		if err != nil {
			t.Fatalf("session %d: %v", n, err)
		}
		defer late.Conn.Close()
		sessions++
	}
	if sessions != sessionsWithin(450) {
		t.Errorf("there are %d sessions", sessions)
	}
	v := &victim{i: i, rnd: rand.New(rand.NewPCG(1, 2))}
	if err := v.step(4096); err != nil {
		t.Error(err)
	}
	if code, _, errs := cliIn(p.dir, "volume", "create", "another", "--size", "1M"); code != exitDone {
		t.Error(errs)
	}
	t.Logf("%d files are open", p.files(t))
}
