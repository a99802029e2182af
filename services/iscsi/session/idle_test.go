package session_test

import (
	"bytes"
	"io"
	"log/slog"
	"runtime"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/session"
)

// Most machines say nothing most of the time, and then their sessions need none of
// the buffers that they have read and written with.
func TestAnIdleSessionHoldsNoBuffers(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector keeps what pools let go")
	}
	shared := session.NewShared()
	const size, many = 64 << 10, 40
	idle := func() {
		server, client := loopback(t)
		r := rigOf(t, params(), server, client, size, slog.New(slog.NewTextHandler(io.Discard, nil)), "iqn.2026-11.test:a", shared).ready(t)
		r.Must(t, Read10(0, 0, size/512))
		durable := Write10(0, 0, bytes.Repeat([]byte{1}, 512))
		durable.CDB[1] = 0x08 // FUA: it is answered while the reader waits already
		r.Must(t, durable)
	}
	heap := func() int {
		for range 3 { // what lies in pools goes with the second
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	idle()
	before, got := heap(), 0
	for range many {
		idle()
	}
	eventually(t, func() bool { got = (heap()-before)/many - 2*size; return got < 16<<10 }, "idle sessions without buffers")
	t.Logf("an idle session, its initiator and their connections hold %d bytes", got)
}
