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
// byte is written, and it goes when the appliance is stopped in order, after all
// bytes are on the disk. A mark of another boot says that the host crashed: nobody
// knows which of the bytes are there, and none of them is handed out.
const (
	markSuffix = ".running"
	bootIDSize = 36 // /proc/sys/kernel/random/boot_id is a UUID (random(4))
)

// errDiscarded is in the error of a volume whose volatile layer did not outlive a
// crash of the host.
var errDiscarded = errors.New("volatile, and the host has crashed since")

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
// and both before the mark goes.
func (z *lazy) settle(folder files) error {
	for _, f := range z.files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := folder.Remove(z.mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return folder.Sync()
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
		if mine, bad := p.marked(name); bad != nil || !mine {
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

// marked reports whether a mark is of this boot of the host.
func (p *Pool) marked(name string) (bool, error) {
	f, err := p.files.Open(name, false)
	if err != nil {
		return false, err
	}
	said := make([]byte, bootIDSize)
	n, err := f.ReadAt(said, 0)
	if err = errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(said[:n]) == p.boot, nil
}

// volatile marks a volatile layer as being written, or says that it is lost.
func (p *Pool) volatile(name string, row store.Layer) (*lazy, error) {
	z := &lazy{mark: row.Path + markSuffix}
	switch mine, err := p.marked(z.mark); {
	case err == nil && mine:
		return z, nil
	case err == nil:
		return nil, discardedError(name)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	f, err := p.files.Create(z.mark)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(p.boot), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.files.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, p.discard(z.mark))
	}
	return z, nil
}

func discardedError(name string) error {
	return &store.Error{Kind: store.KindUnavailable, Op: "open volume", Subject: name, Err: errDiscarded,
		Msg: fmt.Sprintf("volume %s is volatile, and the appliance’s machine went down without stopping lunboot first: what was written to it is discarded; switch its machine off and on, and it begins anew", name)}
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
