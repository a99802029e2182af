package backup

import (
	"context"
	"errors"
	"os"
	"slices"

	"lunboot/store"
	"lunboot/store/archive"
	"lunboot/store/volume"
)

// Volumes takes views of volumes: a volume.Pool.
type Volumes interface {
	View(context.Context, store.Volume) (*volume.View, error)
}

// moments are the views of the volumes whose bytes are asked for and may change
// while they are copied.
type moments struct {
	files   map[string]volume.ViewFile // by name in the volume folder
	views   map[store.VolumeID]*volume.View
	leftOut map[store.VolumeID]string // why there is none; empty: nobody expects one
}

// attempts is how often a backup begins anew because machines got other layers
// while it began. It ends without their volumes then.
const attempts = 3

// inventory copies the inventory, and takes views of the volumes' bytes if those
// are wanted: of the layers that the copy speaks of.
func (p *backup) inventory(ctx context.Context, m *Maker, path string) ([]store.Volume, error) {
	for n := 1; ; n++ {
		before, err := m.cfg.Rows.Volumes(ctx)
		if err != nil {
			return nil, err
		}
		if p.spec.Volumes {
			if err := p.takeViews(ctx, m, before); err != nil {
				return nil, err
			}
		}
		if err := m.cfg.Rows.Backup(ctx, path); err != nil {
			return nil, err
		}
		after, err := m.cfg.Rows.Volumes(ctx)
		if err != nil {
			return nil, err
		}
		var moved []store.VolumeID
		for _, id := range moves(before, after) {
			if p.moments.views[id] != nil {
				moved = append(moved, id)
			}
		}
		if len(moved) == 0 {
			return after, nil
		}
		if n == attempts {
			for _, id := range moved {
				if err := p.leaveOut(id, "its layers changed while the backup began"); err != nil {
					return nil, err
				}
			}
			return after, nil
		}
		if err := errors.Join(p.moments.close(), os.Remove(path)); err != nil {
			return nil, err
		}
	}
}

// moves are the volumes that have other layers, or another size, than before.
func moves(before, after []store.Volume) (out []store.VolumeID) {
	now := map[store.VolumeID]store.Volume{}
	for _, v := range after {
		now[v.ID] = v
	}
	for _, v := range before {
		same := slices.EqualFunc(now[v.ID].Layers, v.Layers, func(a, b store.Layer) bool { return a.ID == b.ID && a.Path == b.Path && a.Kind == b.Kind })
		if !same || now[v.ID].Size != v.Size {
			out = append(out, v.ID)
		}
	}
	return out
}

// unlisted are the files of layers that were made since the inventory was copied.
func (m *Maker) unlisted(ctx context.Context, all []store.Volume) (map[string]bool, error) {
	now, err := m.cfg.Rows.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, v := range now {
		for _, l := range v.Layers {
			out[l.Path] = true
		}
	}
	for _, v := range all {
		for _, l := range v.Layers {
			delete(out, l.Path)
		}
	}
	return out, nil
}

// complete lists the files of which the inventory's copy speaks and that are not
// there. It fails when one was removed before it could be opened, since the layers of
// its volume were merged.
func (p *backup) complete(ctx context.Context, m *Maker, all []store.Volume) error {
	now, err := m.cfg.Rows.Volumes(ctx)
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, v := range p.volumes {
		listed[v.Name] = true
	}
	moved := moves(all, now)
	for _, v := range all {
		why, out := p.moments.leftOut[v.ID]
		if out && why == "" {
			continue
		}
		for _, l := range v.Layers {
			name := "volumes/" + l.Path
			if l.Kind == store.LayerDevice || listed[name] {
				continue
			}
			if slices.Contains(moved, v.ID) {
				return store.Conflict("layers", "the layers of volume %s changed while the backup began; back up again", v.Name)
			}
			if why == "" {
				why = "its file is missing; is the file system that holds it mounted?"
			}
			listed[name] = true
			p.volumes = append(p.volumes, archive.Volume{File: archive.File{Name: name, Size: l.Size}, Volume: v.Name, LeftOut: why})
		}
	}
	return nil
}

// takeViews takes a view of each volume that anybody may write to.
func (p *backup) takeViews(ctx context.Context, m *Maker, all []store.Volume) error {
	p.moments = moments{files: map[string]volume.ViewFile{}, views: map[store.VolumeID]*volume.View{}, leftOut: map[store.VolumeID]string{}}
	for _, v := range all {
		top := v.TopLayer()
		if top.Frozen || top.Kind == store.LayerDevice {
			continue
		}
		if v.State != store.VolumeReady {
			p.moments.leftOut[v.ID] = "" // it has no bytes that are worth to be kept yet, or any more
			continue
		}
		w, err := m.cfg.Volumes.View(ctx, v)
		if bad := ctx.Err(); bad != nil {
			if err == nil { // nobody else would end it, and machines would save for it for ever
				bad = errors.Join(bad, w.Close())
			}
			return bad
		}
		if store.CauseOf(err) == store.CauseDiscarded { // it begins anew with its machine, and nothing of it is worth a word
			p.moments.leftOut[v.ID] = ""
			continue
		}
		if err != nil {
			p.moments.leftOut[v.ID] = err.Error()
			continue
		}
		p.moments.views[v.ID] = w
		for _, f := range w.Files(ctx) {
			p.moments.files[f.Name] = f
		}
		// Asked afterwards: a wipe that begins from now on ends the view.
		switch wipe, err := m.cfg.Rows.Wipe(ctx, v.ID); {
		case err != nil:
			return err
		case wipe != nil:
			if err := p.leaveOut(v.ID, "a machine is wiping it, or has not done so to the end"); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaveOut ends the view of a volume.
func (p *backup) leaveOut(id store.VolumeID, why string) error {
	w := p.moments.views[id]
	for _, f := range w.Files(context.Background()) {
		delete(p.moments.files, f.Name)
	}
	delete(p.moments.views, id)
	p.moments.leftOut[id] = why
	return w.Close()
}

func (m *moments) close() (err error) {
	for id, w := range m.views {
		err = errors.Join(err, w.Close())
		delete(m.views, id)
	}
	return err
}

// past is a file of a view.
type past struct {
	volume.ViewFile
	view *volume.View
}

func (f past) Size() int64 { return f.ViewFile.Size }
func (f past) Lost() error { return f.view.Lost() }

// still is a file that nobody writes to, or nobody should. It stays open: while
// machines work, layers that they stand on are merged and their files removed.
type still struct {
	*os.File
	watched
}

func openStill(w watched) (*still, error) {
	f, err := os.Open(w.path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w.size, w.modified = st.Size(), st.ModTime()
	return &still{File: f, watched: w}, nil
}

func (s *still) Size() int64 { return s.size }

// Lost says that the file is not as it was.
func (s *still) Lost() error {
	st, err := s.Stat()
	return s.same(st, err)
}
