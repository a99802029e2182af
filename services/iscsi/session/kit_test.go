package session_test

import (
	"context"
	"os"
	"path/filepath"

	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// volume is bytes in memory with brakes.
type volume struct {
	mu    sync.RWMutex
	b     []byte
	cold  atomic.Bool  // Resident says no
	syncs gate         // holds Sync
	puts  gate         // holds WriteAt
	gets  gate         // holds ReadAt
	wrote atomic.Int64 // WriteAt calls that returned
	fault atomic.Bool  // WriteAt panics

	full atomic.Bool // there is no room for what is written

	file  *os.File     // has the bytes too, when it is set: they can be lent
	loans atomic.Int64 // that are not returned
	lent  atomic.Int64 // in all
}

// lendable gives the volume a file.
func (v *volume) lendable(t testing.TB) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt(v.b, 0); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.file = f
}

func (v *volume) Lend(off, _ int64) (int, int64, interface{ Return() }, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.file == nil || v.cold.Load() {
		return 0, 0, nil, false
	}
	v.loans.Add(1)
	v.lent.Add(1)
	return int(v.file.Fd()), off, v, true
}

func (v *volume) Return() { v.loans.Add(-1) }

// gate holds whoever passes until it is opened; the zero gate is open.
type gate struct {
	waiting atomic.Int64
	ch      atomic.Pointer[chan struct{}]
}

func (g *gate) shut() {
	ch := make(chan struct{})
	g.ch.Store(&ch)
}

func (g *gate) open() {
	if ch := g.ch.Swap(nil); ch != nil {
		close(*ch)
	}
}

func (g *gate) pass() {
	if ch := g.ch.Load(); ch != nil {
		g.waiting.Add(1)
		<-*ch
		g.waiting.Add(-1)
	}
}

func (v *volume) ReadAt(_ context.Context, p []byte, off int64) error {
	v.gets.pass()
	v.mu.RLock()
	defer v.mu.RUnlock()
	copy(p, v.b[off:])
	return nil
}

func (v *volume) WriteAt(_ context.Context, p []byte, off int64) error {
	v.puts.pass()
	if v.fault.Load() {
		panic("broken on purpose")
	}
	if v.full.Load() {
		return &store.Error{Kind: store.KindUnavailable, Msg: "injected"}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	copy(v.b[off:], p)
	if v.file != nil {
		if _, err := v.file.WriteAt(p, off); err != nil {
			return err
		}
	}
	v.wrote.Add(1)
	return nil
}

func (v *volume) Sync(context.Context) error {
	v.syncs.pass()
	return nil
}

func (v *volume) Unmap(ctx context.Context, off, n int64) error { return v.Zero(ctx, off, n) }

func (v *volume) Zero(_ context.Context, off, n int64) error {
	v.puts.pass()
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.b[off : off+n])
	return nil
}

func (v *volume) BlockStatus(_ context.Context, _, n int64) (bool, int64, error) {
	return true, n, nil
}

func (v *volume) Size() int64 { return int64(len(v.b)) }

func (v *volume) Resident(p []byte, off int64) bool {
	if v.cold.Load() {
		return false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	copy(p, v.b[off:])
	return true
}

// witness counts what a session tells.
type witness struct {
	mu       sync.Mutex
	used     []store.LUN
	failures []session.Failure
	logouts  int
	resets   int
}

func (w *witness) Used(l store.LUN, _ bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = append(w.used, l)
}

func (w *witness) Failed(f session.Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, f)
}

func (w *witness) LoggedOut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logouts++
}

func (w *witness) ColdReset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resets++
}

// rig is one session on a loopback connection, past its login. LUN 0 and LUN 1
// are mapped.
type rig struct {
	*iscsitest.Initiator
	session  *session.Session
	nexus    *scsi.Nexus
	volumes  [2]*volume
	witness  *witness
	released atomic.Int64
	ended    chan string
}

func params() login.Params {
	p := login.Defaults()
	p.TargetMaxRecvDataSegmentLength, p.MaxRecvDataSegmentLength = 256<<10, 256<<10
	p.FirstBurstLength, p.MaxBurstLength = 256<<10, 1<<20
	p.InitialR2T = false
	return p
}

func loopback(t testing.TB) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

func newRig(t testing.TB, p login.Params) *rig {
	t.Helper()
	server, client := loopback(t)
	return rigOn(t, p, server, client, 32<<20)
}

func rigOn(t testing.TB, p login.Params, server, client net.Conn, size int) *rig {
	t.Helper()
	return rigWith(t, p, server, client, size, slog.New(slog.NewTextHandler(io.Discard, nil)))
}

func rigWith(t testing.TB, p login.Params, server, client net.Conn, size int, log *slog.Logger) *rig {
	t.Helper()
	return rigOf(t, p, server, client, size, log, "iqn.2026-11.test:a", session.NewShared())
}

// rigOf is a session of a named initiator beside the others of shared.
func rigOf(t testing.TB, p login.Params, server, client net.Conn, size int, log *slog.Logger, initiator store.IQN, shared *session.Shared) *rig {
	t.Helper()
	return rigFrom(t, p, server, client, size, log, initiator, shared, 1)
}

// newRigAt is a rig whose numbers begin elsewhere.
func newRigAt(t testing.TB, p login.Params, sn pdu.Serial) *rig {
	t.Helper()
	server, client := loopback(t)
	return rigFrom(t, p, server, client, 32<<20, slog.New(slog.NewTextHandler(io.Discard, nil)), "iqn.2026-11.test:a", session.NewShared(), sn)
}

func rigFrom(t testing.TB, p login.Params, server, client net.Conn, size int, log *slog.Logger, initiator store.IQN, shared *session.Shared, sn pdu.Serial) *rig {
	t.Helper()
	r := &rig{Initiator: iscsitest.Attach(client, sn, sn, p.HeaderDigest, p.DataDigest), witness: &witness{}, ended: make(chan string, 1)}
	res := login.Result{Initiator: initiator, Params: p, ExpCmdSN: sn, StatSN: sn, CID: 1}
	c := session.NewConn(server, shared)
	c.SetDigests(p.HeaderDigest, p.DataDigest)
	units := map[store.LUN]scsi.MapEntry{}
	for n := range r.volumes {
		r.volumes[n] = &volume{b: make([]byte, size)}
		units[store.LUN(n)] = scsi.MapEntry{Unit: scsi.NewUnit(scsi.UnitConfig{Name: "v", UUID: store.UUID{15: byte(n)}, BlockSize: 512, Volume: r.volumes[n]})}
	}
	r.nexus = scsi.NewNexus(scsi.NexusConfig{Initiator: string(res.Initiator), Abort: func(l store.LUN, rest func()) int { return r.session.AbortUnit(l, rest) }})
	r.session = session.New(c, r.nexus, session.Config{
		Result: res, Shared: shared, Observer: r.witness, Log: log,
		Targets: func() []pdu.Pair {
			return []pdu.Pair{{Key: "TargetName", Value: "iqn.2026-11.lunboot:t"}, {Key: "TargetAddress", Value: "127.0.0.1:3260,1"}}
		},
	})
	r.session.SetMap(units, func() { r.released.Add(1) })
	go func() {
		r.ended <- r.session.Serve(res)
		r.session.Finish()
	}()
	t.Cleanup(func() {
		for _, v := range r.volumes {
			v.syncs.open()
			v.puts.open()
			v.gets.open()
		}
		_ = client.Close()
		select {
		case <-r.session.Done():
		case <-time.After(5 * time.Second):
			t.Error("the session does not end")
		}
		if n := r.released.Load(); n != 1 {
			t.Errorf("the map was released %d times", n)
		}
		if pool, own := r.session.Held(); pool != 0 || own != 0 {
			t.Errorf("%d bytes of the session's data are left, %d of those that all share", own, pool)
		}
	})
	return r
}

// ready takes the power-on unit attention conditions.
func (r *rig) ready(t testing.TB) *rig {
	t.Helper()
	r.Must(t, iscsitest.Ready(0))
	r.Must(t, iscsitest.Ready(1))
	return r
}

func (r *rig) reason(t testing.TB) string {
	t.Helper()
	select {
	case s := <-r.ended:
		return s
	case <-time.After(5 * time.Second):
		t.Fatal("the session does not end")
		return ""
	}
}

func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

// quiet makes sure that nothing comes: a ping is the next thing to be answered.
func (r *rig) quiet(t testing.TB) {
	t.Helper()
	tag := r.Tag()
	if err := r.Send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: tag, TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	if p, _ := iscsitest.Expect[*pdu.NOPIn](t, r.Initiator); p.InitiatorTaskTag != tag {
		t.Fatalf("another ping's answer: %+v", p)
	}
}
