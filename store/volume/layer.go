package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// mapSuffix is what a layer's map is called after its data file.
const mapSuffix = ".map"

// layer is an open layer. Whatever stands on it shares it, and so does the volume
// whose top it is: thirty clones of one golden volume read one file, from one page
// cache, through one map in memory.
type layer struct {
	id    store.LayerID // 0: of a volume whose row names no layers; nobody shares it
	name  string        // of its file
	f     file
	below atomic.Pointer[layer]
	write bool  // f is open for writing
	lazy  *lazy // what a volatile layer owes the disk; nil for another

	refs   int           // those who stand on it; under Pool.mu
	ready  chan struct{} // closed when opening it has ended
	err    error         // of opening it
	closed chan struct{} // closed when nobody stands on it and f is closed
}

// layersOf returns what a volume's bytes lie in, bottom to top. A row without
// layers has one that its kind describes. The row of the volume says how large
// its top layer is.
func layersOf(v store.Volume) []store.Layer {
	if len(v.Layers) == 0 {
		return []store.Layer{{Kind: store.LayerKind(v.Kind), Path: v.Path, Size: v.Size}}
	}
	all := append([]store.Layer{}, v.Layers...)
	all[len(all)-1].Size = v.Size
	return all
}

// layersOf is what a volume's bytes lie in, also when its row was read before
// some of the layers were merged: the files of then may be gone.
func (p *Pool) layersOf(v store.Volume) []store.Layer { return p.current(layersOf(v)) }

func (p *Pool) current(chain []store.Layer) []store.Layer {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(chain) - 1; i >= 0; i-- {
		known := p.merged[chain[i].ID]
		if n := len(known); n > 0 && known[n-1].Path != chain[i].Path {
			chain = append(append([]store.Layer{}, known...), chain[i+1:]...)
			i = n - 1
		}
	}
	return chain
}

// hold opens the uppermost layer of a chain and those below it, or takes them as
// they are open.
func (p *Pool) hold(v store.Volume, chain []store.Layer) (*layer, error) {
	top := chain[len(chain)-1]
	for {
		p.mu.Lock()
		l := p.layers[top.ID]
		if l == nil {
			l = &layer{id: top.ID, name: top.Path, refs: 1, ready: make(chan struct{}), closed: make(chan struct{})}
			if l.id != 0 {
				p.layers[l.id] = l
			}
			p.mu.Unlock()
			if l.err = p.openLayer(l, v, chain); l.err != nil {
				p.forget(l)
			}
			close(l.ready)
			return l, l.err
		}
		if l.refs == 0 { // it is just being closed, and a device opens only once
			p.mu.Unlock()
			<-l.closed
			continue
		}
		l.refs++
		p.mu.Unlock()
		<-l.ready
		return l, l.err // what could not be opened is forgotten already
	}
}

func (p *Pool) forget(l *layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.layers[l.id] == l {
		delete(p.layers, l.id)
	}
}

// drop lets go of a layer. The last one to do so closes it and lets go of what
// is below.
func (p *Pool) drop(l *layer) (err error) {
	for l != nil {
		p.mu.Lock()
		l.refs--
		last := l.refs == 0
		p.mu.Unlock()
		if !last {
			break
		}
		err = errors.Join(err, l.f.Close())
		p.forget(l)
		close(l.closed)
		l = l.below.Load()
	}
	return err
}

func (p *Pool) openLayer(l *layer, v store.Volume, chain []store.Layer) (err error) {
	row := chain[len(chain)-1]
	switch row.Kind {
	case store.LayerRaw:
		l.f, l.write, err = p.openTapped(row, v.ReadOnly, p.files.Open)
	case store.LayerDevice:
		l.f, l.write, err = p.openTapped(row, v.ReadOnly, func(path string, write bool) (file, error) {
			v.Path = path
			return openDeviceOf(v, write)
		})
	case store.LayerOverlay:
		err = p.openOverlay(l, v, chain)
	default:
		return store.Invalid("kind", "a volume of kind %q cannot be opened", row.Kind)
	}
	return layerFault(v.Name, row, err)
}

// layerFault names the layer in an error that is about its map.
func layerFault(name string, row store.Layer, err error) error {
	var (
		header *clone.HeaderError
		parent *clone.ParentError
		cut    *clone.CutError
	)
	if errors.As(err, &header) || errors.As(err, &parent) || errors.As(err, &cut) {
		return &store.Error{Kind: store.KindCorrupt, Op: "open volume", Subject: name, Err: err, Msg: fmt.Sprintf("its layer %s cannot be used", row.Path)}
	}
	return err
}

// openSized opens for writing even what is read-only, which may become writable
// while it is open; where that is not allowed, reading is enough. A frozen layer
// is never opened for writing.
func (p *Pool) openSized(row store.Layer, readOnly bool, open func(path string, write bool) (file, error)) (f file, write bool, err error) {
	write = !row.Frozen
	if f, err = open(row.Path, write); write && readOnly && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) {
		write = false
		f, err = open(row.Path, false)
	}
	if err != nil {
		return nil, false, err
	}
	// A file longer than the row is a growth that was not committed.
	size, err := f.Size()
	if err == nil && size < row.Size {
		err = &store.Error{Kind: store.KindCorrupt, Op: "open volume", Subject: row.Path,
			Msg: fmt.Sprintf("the file has %d bytes, the volume %d; something cut it", size, row.Size)}
	}
	if err != nil {
		f.Close()
		return nil, false, err
	}
	if o, ok := f.(*osFile); ok && row.Frozen {
		_ = o.Chmod(0o440) // so that no other program writes to it by mistake, where that can be
	}
	return f, write, nil
}

// openTapped is openSized of a file of which views can be taken, when it can be
// written.
func (p *Pool) openTapped(row store.Layer, readOnly bool, open func(path string, write bool) (file, error)) (f file, write bool, err error) {
	f, write, err = p.openSized(row, readOnly, open)
	if write && err == nil {
		f = tap(f)
	}
	return f, write, err
}

func (p *Pool) openOverlay(l *layer, v store.Volume, chain []store.Layer) error {
	n := len(chain)
	if n < 2 || chain[n-1].Below != chain[n-2].ID {
		return &store.Error{Kind: store.KindInternal, Op: "open volume", Subject: v.Name, Msg: "the layer " + chain[n-1].Path + " stands on another one than the volume's rows say"}
	}
	below, err := p.hold(v, chain[:n-1])
	if err != nil {
		return err
	}
	row := chain[n-1]
	if row.Volatile {
		if l.lazy, err = p.volatile(v.Name, row); err != nil {
			return errors.Join(err, p.drop(below))
		}
	}
	if l.f, l.write, err = p.openOver(below.f, row, chain[n-2], v, l.lazy); err != nil {
		return errors.Join(err, p.drop(below))
	}
	l.below.Store(below)
	return nil
}

// openOver opens the two files of an overlay over open bytes.
func (p *Pool) openOver(parent file, row, below store.Layer, v store.Volume, z *lazy) (*clone.Layer, bool, error) {
	data, write, err := p.openTapped(row, v.ReadOnly, p.files.Open)
	if err != nil {
		return nil, false, err
	}
	m, err := p.files.Open(row.Path+mapSuffix, write)
	if err != nil {
		return nil, false, errors.Join(err, data.Close())
	}
	if write {
		m = tap(m)
	}
	if z != nil {
		data, m = z.wrap(data), z.wrap(m)
	}
	l, err := clone.Open(data, m, parent, identity(row, below, v.BlockSize), write)
	if err != nil {
		return nil, false, errors.Join(err, data.Close(), m.Close())
	}
	return l, write, nil
}

func identity(row, below store.Layer, blockSize int) clone.Identity {
	return clone.Identity{UUID: row.UUID, Parent: below.UUID, ParentSize: below.Size, Size: row.Size, BlockSize: blockSize}
}

// createOverlay makes the files of an empty overlay. When it returns nil they
// survive a power cut; otherwise there are none.
func (p *Pool) createOverlay(v store.Volume, row, below store.Layer) error {
	if row.Kind != store.LayerOverlay || row.Below != below.ID {
		return store.Invalid("below", "the layer %s does not stand on %s", row.Path, below.Path)
	}
	if below.Kind != store.LayerDevice {
		now := p.current([]store.Layer{below})
		f, err := p.files.Open(now[len(now)-1].Path, false) // or nobody would notice before a machine boots
		if err != nil {
			return fault("create layer", v.Name, err)
		}
		f.Close()
	}
	data, err := p.files.Create(row.Path)
	if err != nil {
		return fault("create layer", v.Name, err)
	}
	m, err := p.files.Create(row.Path + mapSuffix)
	if err != nil {
		return fault("create layer", v.Name, errors.Join(err, data.Close(), p.discard(row.Path)))
	}
	err = clone.Create(data, m, identity(row, below, v.BlockSize))
	err = errors.Join(err, data.Close(), m.Close())
	if err == nil {
		err = p.files.Sync()
	}
	if err != nil {
		return fault("create layer", v.Name, errors.Join(err, p.discardLayer(row)))
	}
	return nil
}

// discardLayer removes the files of a layer, any of which may be missing. The
// map of one that was flattened may be left.
func (p *Pool) discardLayer(rows ...store.Layer) error {
	var err error
	for _, row := range rows {
		if row.Kind == store.LayerDevice {
			continue
		}
		p.mu.Lock()
		delete(p.merged, row.ID)
		p.mu.Unlock()
		for _, name := range []string{row.Path, row.Path + mapSuffix, row.Path + markSuffix} {
			if gone := p.files.Remove(name); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}
	return errors.Join(err, p.files.Sync())
}

// overlay returns the layer that is a clone's, nil for a plain file.
func (l *layer) overlay() *clone.Layer {
	o, _ := l.f.(*clone.Layer)
	return o
}

// damage returns the first damage that is known of a layer or of one below.
func (l *layer) damage() *clone.DamageError {
	for ; l != nil; l = l.below.Load() {
		if o := l.overlay(); o != nil {
			if d := o.Damage(); d != nil {
				return d
			}
		}
	}
	return nil
}
