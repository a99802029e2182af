package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lunboot/store"
)

// A volatile layer is written like any other, and nobody waits for its bytes to be
// on the disk: what its machine flushed is in the page cache, which outlives the
// death of this process and not that of the host. While one is open for writing, a
// mark beside it names the boot of the host. The mark is durable before the first
// byte is written. When the appliance is stopped in order it says that all bytes are
// on the disk, after they are, or that some could not be written. A mark of another
// boot says that the host crashed: nobody knows which of the bytes are there, and
// none of them is handed out. A mark is written over in place, which needs no room
// on a disk that is full.
const (
	markSuffix = ".running"
	markSize   = 36 // /proc/sys/kernel/random/boot_id is a UUID (random(4))

	markSettled = "all of it is on the disk"
	markLost    = "some of it could not be written"
)

// errDiscarded is in the error of a volume whose volatile layer is not all on the
// disk.
var errDiscarded = errors.New("volatile, and not all of it is on the disk")

// lazy is what a volatile layer owes the disk: its files, and the mark.
type lazy struct {
	mark  string
	files []file
}

// unhurried is a file of a volatile layer.
type unhurried struct{ file }

// Sync promises nothing.
func (unhurried) Sync() error { return nil }

func (z *lazy) wrap(f file) file {
	z.files = append(z.files, f)
	return unhurried{f}
}

// settle makes everything durable: the data before the map, which speaks of it,
// and both before the mark says so. When some of it cannot be, the mark says that:
// what the page cache still has is not what the disk will have.
func (z *lazy) settle(folder files) error {
	for _, f := range z.files {
		if err := f.Sync(); err != nil {
			return errors.Join(err, mark(folder, z.mark, markLost))
		}
	}
	err := mark(folder, z.mark, markSettled)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the layer is being removed
	}
	return err
}

// mark writes over a mark that there is. When it returns nil that survives a power
// cut.
func mark(folder files, name, says string) error {
	f, err := folder.Open(name, true)
	if err != nil {
		return err
	}
	return errors.Join(writeMark(f, says), f.Close())
}

func writeMark(f file, says string) error {
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-*s", markSize, says), 0); err != nil {
		return err
	}
	return f.Sync()
}

// settleRest does the same for the volatile layers that nobody has open: their
// machines are off, or just between two sessions.
func (p *Pool) settleRest() error {
	names, err := p.files.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		data, marked := strings.CutSuffix(name, markSuffix)
		if !marked || p.unsettled[name] {
			continue
		}
		if says, bad := p.marked(name); bad != nil || says != p.boot {
			err = errors.Join(err, bad)
			continue
		}
		z := &lazy{mark: name}
		var bad error
		for _, part := range []string{data, data + mapSuffix} {
			f, e := p.files.Open(part, true)
			if bad = errors.Join(bad, e); e == nil {
				z.files = append(z.files, f)
			}
		}
		if bad == nil {
			bad = z.settle(p.files)
		}
		for _, f := range z.files {
			bad = errors.Join(bad, f.Close())
		}
		err = errors.Join(err, bad)
	}
	return err
}

// marked is what a mark says.
func (p *Pool) marked(name string) (string, error) {
	f, err := p.files.Open(name, false)
	if err != nil {
		return "", err
	}
	said := make([]byte, markSize)
	n, err := f.ReadAt(said, 0)
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(bytes.TrimRight(said[:n], " ")), nil
}

// volatile marks a volatile layer as being written, or says that it is lost.
func (p *Pool) volatile(name string, row store.Layer) (*lazy, error) {
	z := &lazy{mark: row.Path + markSuffix}
	says, err := p.marked(z.mark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return z, p.markNew(z.mark)
	case err != nil:
		return nil, err
	case says == p.boot:
		return z, nil
	case says == markSettled:
		return z, mark(p.files, z.mark, p.boot)
	case says == markLost:
		return nil, discardedError(name, "what was written to it could not all be brought to the disk when lunboot was stopped; it is discarded")
	}
	return nil, discardedError(name, "the appliance’s machine went down without stopping lunboot first: what was written to it is discarded")
}

// markNew marks a layer that was never written.
func (p *Pool) markNew(name string) error {
	f, err := p.files.Create(name)
	if err != nil {
		return err
	}
	err = errors.Join(writeMark(f, p.boot), f.Close())
	if err == nil {
		err = p.files.Sync()
	}
	if err != nil {
		return errors.Join(err, p.discard(name))
	}
	return nil
}

func discardedError(name, why string) error {
	return &store.Error{Kind: store.KindUnavailable, Op: "open volume", Subject: name, Cause: store.CauseDiscarded, Err: errDiscarded,
		Msg: fmt.Sprintf("volume %s is volatile, and %s; switch its machine off and on, and it begins anew", name, why)}
}

// discarded tells of a volume that cannot be opened because its layer is lost: once,
// until the volume begins anew.
func (p *Pool) discarded(v store.Volume, err error) {
	if !errors.Is(err, errDiscarded) {
		return
	}
	var e *store.Error
	if !errors.As(err, &e) {
		return
	}
	f := Fault{v.Name, e.Msg}
	p.mu.Lock()
	fn := p.onFault
	known := p.faults[v.ID] == f
	p.faults[v.ID] = f
	p.mu.Unlock()
	if known {
		return
	}
	p.log.Error("volume failed", "volume", v.Name, "err", err)
	if fn != nil {
		fn(f.Volume, f.Sentence)
	}
}

// boot names this boot of the host. Where the kernel does not say, each process is
// one, and no volatile layer outlives it.
func (h host) boot() string {
	b, err := os.ReadFile(filepath.Join(h.proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return store.NewUUID().String()
	}
	return string(bytes.TrimSpace(b))
}
