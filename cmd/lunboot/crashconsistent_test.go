package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	. "lunboot/services/iscsi/iscsitest"
)

// counting is a machine that writes the numbers 1, 2, 3 … to its disk, one after the
// other, each with what tells it from what is torn: number n to place n of places.
type counting struct {
	i     *Initiator
	lun   byte
	last  uint64
	stop  chan struct{}
	wg    sync.WaitGroup
	ready chan struct{} // closed when all places were written once
}

const (
	ledgerPlaces = 500
	ledgerStride = 128 // blocks from place to place: each in a granule of its own
)

func ledgerEntry(n uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), 4096/8)
}

func keepLedger(t *testing.T, i *Initiator, lun byte) *counting {
	l := &counting{i: i, lun: lun, stop: make(chan struct{}), ready: make(chan struct{})}
	l.wg.Go(func() {
		for {
			select {
			case <-l.stop:
				return
			default:
			}
			n := l.last + 1
			w := Write10(l.lun, uint32(n%ledgerPlaces*ledgerStride), ledgerEntry(n))
			w.Immediate = len(w.Write)
			if r, err := l.i.Do(w); err != nil || r.Status != 0 {
				t.Errorf("number %d of LUN %d: status %d, %v", n, l.lun, r.Status, err)
				return
			}
			if l.last = n; n == ledgerPlaces {
				close(l.ready)
			}
			if n%100 == 0 {
				if r, err := l.i.Do(Sync10(l.lun)); err != nil || r.Status != 0 {
					t.Errorf("a flush of LUN %d: status %d, %v", l.lun, r.Status, err)
					return
				}
			}
		}
	})
	return l
}

func (l *counting) end() { close(l.stop); l.wg.Wait() }

// wantPrefix says that a disk is that of a ledger at one moment: all numbers up to
// one, and none that came later.
func wantPrefix(t *testing.T, what string, read func(place uint64) []byte, least, most uint64) uint64 {
	t.Helper()
	newest, found := uint64(0), make([]uint64, ledgerPlaces)
	for p := range found {
		b := read(uint64(p))
		n := binary.BigEndian.Uint64(b)
		require.Equal(t, ledgerEntry(n), b, "%s: place %d is torn", what, p)
		found[p] = n
		newest = max(newest, n)
	}
	require.True(t, newest >= least && newest <= most, "%s: it ends with number %d; between %d and %d would be right", what, newest, least, most)
	for p, n := range found {
		want := newest - (newest-uint64(p))%ledgerPlaces
		require.Equal(t, want, n, "%s: place %d, where all up to %d were written", what, p, newest)
	}
	return newest
}

// What a machine wrote while it was backed up comes back as of one moment.
func TestARunningMachineIsBackedUpAsAfterAPowerCut(t *testing.T) {
	dir := furnished(t)
	p := bear(t, dir, onLoopback...)
	p.enroll(t)
	p.must(t, "volume", "create", "gold", "--size", "64M")
	p.must(t, "volume", "freeze", "gold")
	p.must(t, "volume", "clone", "gold", "cloned")
	p.must(t, "mapping", "add", "victim", "cloned", "--lun", "1")
	machines := map[byte]string{0: "victim", 1: "cloned"}
	ledgers := map[byte]*counting{}
	for lun := range machines {
		i, err := p.dial("victim", uint16(lun)+1)
		require.NoError(t, err)
		i.Must(t, Ready(lun)) // past unit attentions
		ledgers[lun] = keepLedger(t, i, lun)
		<-ledgers[lun].ready
	}
	file, image := filepath.Join(t.TempDir(), "lab.tar.gz"), filepath.Join(t.TempDir(), "cloned.raw")
	said := p.must(t, "backup", file, "--volumes")
	p.must(t, "volume", "export", "cloned", image)
	for _, l := range ledgers {
		l.end()
	}
	if t.Failed() {
		return
	}
	require.Regexp(t, `victim .*in it, running: as after a power cut`, said)
	require.Regexp(t, `cloned .*in it, running: as after a power cut`, said)
	spare, err := filepath.Glob(filepath.Join(dir, "volumes", ".*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "volumes", ".lock")}, spare)

	raw, err := os.ReadFile(image)
	require.NoError(t, err)
	exported := wantPrefix(t, "the export", func(place uint64) []byte { return raw[place*ledgerStride*512:][:4096] }, ledgerPlaces, ledgers[1].last)

	empty := filepath.Join(dataDir(t), "lunboot")
	code, out, errs := cliIn(empty, "restore", file)
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "volume cloned was running when it was copied: its machine finds it as after a power cut")
	q := bear(t, empty, onLoopback...)
	i, err := q.dial("victim", 9)
	require.NoError(t, err)
	for lun, name := range machines {
		most := ledgers[lun].last
		if name == "cloned" {
			most = exported // which began when the backup had ended
		}
		wantPrefix(t, name, func(place uint64) []byte {
			return i.Must(t, Read10(lun, uint32(place*ledgerStride), 8)).Data
		}, ledgerPlaces, most)
	}
	_ = i.Conn.Close()
}
