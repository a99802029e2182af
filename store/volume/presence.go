package volume

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"lunboot/store"
)

// Trouble looks whether the files of a volume are there, long enough and readable. It
// opens them for a moment and reads the first bytes, no map, so that it costs little
// for many volumes; Check reads the maps.
func (p *Pool) Trouble(v store.Volume) (store.FileTrouble, bool) {
	for _, row := range p.layersOf(v) {
		t := store.FileTrouble{Volume: v.Name, File: row.Path, Size: row.Size}
		if row.Kind == store.LayerDevice {
			size, err := p.DeviceSize(row.Path)
			if err == nil && size < row.Size {
				err = io.ErrUnexpectedEOF
			}
			if t.Err = fault("look at device", v.Name, err); t.Err != nil {
				return t, true
			}
			continue
		}
		if t.Err = fault("look at volume", v.Name, p.readable(row.Path, row.Size)); t.Err == nil && row.Kind == store.LayerOverlay {
			t.File, t.Size = row.Path+mapSuffix, 0
			t.Err = fault("look at volume", v.Name, p.readable(t.File, 1))
		}
		if t.Err != nil {
			p.mu.Lock()
			_, t.Open = p.layers[row.ID]
			p.mu.Unlock()
			return t, true
		}
	}
	return store.FileTrouble{}, false
}

// readable reads the beginning of a file that has at least some bytes.
func (p *Pool) readable(name string, size int64) error {
	f, err := p.files.Open(name, false)
	if err != nil {
		return err
	}
	have, err := f.Size()
	if err == nil && have < size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = f.ReadAt(make([]byte, min(size, 512)), 0)
	}
	return errors.Join(err, f.Close())
}

// Strays lists the files of the folder that belong to none of the layers and volumes
// that rows returns. A row is there before its file and until that is gone, so rows is
// asked after the folder: what is just being made or removed is no stray. Nor is what
// an import, a copy or a view has under way, which the next start removes at the
// latest. A folder that the folder holds is its owner's business.
func (p *Pool) Strays(rows func() ([]store.Layer, []store.Volume, error)) ([]store.StrayFile, error) {
	folder, ok := p.files.(interface {
		Lstat(name string) (fs.FileInfo, error)
	})
	if !ok {
		return nil, errors.ErrUnsupported
	}
	names, err := p.files.Names()
	if err != nil {
		return nil, fault("list the volume folder", "", err)
	}
	layers, volumes, err := rows()
	if err != nil {
		return nil, err
	}
	ours := map[string]bool{lockName: true}
	for _, l := range layers {
		ours[l.Path] = true
	}
	for _, v := range volumes {
		ours[v.Path] = true
	}
	var out []store.StrayFile
	for _, name := range names {
		if ours[name] || ours[strings.TrimSuffix(name, mapSuffix)] || ours[strings.TrimSuffix(name, markSuffix)] ||
			strings.HasPrefix(name, ".") && strings.HasSuffix(name, importSuffix) ||
			strings.HasPrefix(name, ".nfs") { // of the NFS client, for a file that is removed and still open
			continue
		}
		st, err := folder.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault("list the volume folder", name, err)
		}
		if !st.IsDir() {
			out = append(out, store.StrayFile{Name: name, Size: st.Size(), Changed: st.ModTime()})
		}
	}
	return out, nil
}

// Lstat looks at a file of the folder.
func (d *folder) Lstat(name string) (fs.FileInfo, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return d.root.Lstat(name)
}
