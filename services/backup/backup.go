// Package backup makes backups of an appliance while its machines boot, and puts
// one back into an empty data folder.
//
// It joins the rows and the files: which files belong to the appliance, and which
// of them have a moment that can be copied. What a backup looks like as bytes
// stands in store/archive.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"lunboot/store"
	"lunboot/store/archive"
)

// TLSFolder holds the certificate of the admin listener, below the data folder.
const TLSFolder = "tls"

// scratchPrefix begins the folder of the copies that a backup is made of.
const scratchPrefix = ".backup-"

// Maker makes backups while machines boot. There is one at a time.
type Maker struct {
	cfg  Config
	busy sync.Mutex
	seen seen
}

// Config is what a Maker stands on.
type Config struct {
	Dir     string // the data folder
	Version string // of this program
	Target  string // the appliance's iSCSI name
	Rows    Rows
	Volumes Volumes
	// Journal copies the journal.
	Journal func(ctx context.Context, path string) error
	// Sessions lists the live iSCSI sessions.
	Sessions func() []store.Session
	Now      func() time.Time
}

// Rows is the inventory.
type Rows interface {
	Backup(ctx context.Context, path string) error
	Volumes(context.Context) ([]store.Volume, error)
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	// Wipe returns nil when no wipe of the volume is unfinished.
	Wipe(context.Context, store.VolumeID) (*store.Wipe, error)
	Record(ctx context.Context, by store.Actor, action, subject, detail string) error
}

// New makes a Maker.
func New(cfg Config) *Maker { return &Maker{cfg: cfg} }

// Prepare copies the databases and looks at what is to go with them. The copies
// are each of one moment; what comes after is not in the backup.
func (m *Maker) Prepare(ctx context.Context, by store.Actor, spec store.BackupSpec) (_ store.Backup, err error) {
	if !m.busy.TryLock() {
		return nil, store.InUse("another backup is being made; wait for its end")
	}
	p := &backup{head: archive.Head{Version: m.cfg.Version, Created: m.cfg.Now().UTC().Truncate(time.Second), Target: m.cfg.Target}, spec: spec, unlock: m.busy.Unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := removeScratch(m.cfg.Dir); err != nil { // of a run that was killed
		return nil, err
	}
	if p.scratch, err = os.MkdirTemp(m.cfg.Dir, scratchPrefix); err != nil {
		return nil, fmt.Errorf("make a folder for the backup: %w", err)
	}
	database := func(name string) string {
		path := filepath.Join(p.scratch, name)
		p.items = append(p.items, archive.Item{Name: name, Path: path})
		return path
	}
	all, err := p.inventory(ctx, m, database("inventory.db"))
	if err != nil {
		return nil, err
	}
	if spec.Journal {
		if err := m.cfg.Journal(ctx, database("journal.db")); err != nil {
			return nil, err
		}
	}
	folders := []string{"loaders", TLSFolder}
	if spec.Volumes {
		folders = append(folders, "media") // as large as volumes are
	}
	for _, folder := range folders {
		if err := p.add(m.cfg.Dir, folder); err != nil {
			return nil, err
		}
	}
	if err := p.look(ctx, m, all); err != nil {
		return nil, err
	}
	what := "without the volumes' bytes"
	if spec.Volumes {
		what = "with the bytes of the volumes"
	}
	return p, m.cfg.Rows.Record(ctx, by, "backup.create", p.Name(), what)
}

func removeScratch(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	for _, path := range old {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// backup is one that is ready to be sent.
type backup struct {
	head    archive.Head
	spec    store.BackupSpec
	scratch string
	items   []archive.Item
	volumes []archive.Volume
	moments moments
	stills  []*still // files that do not change while they are read
	unlock  func()
}

// watched is a file as it was when the backup began.
type watched struct {
	volume, path string
	size         int64
	modified     time.Time
}

// add adds the plain files of a folder below the data folder.
func (p *backup) add(data, folder string) error {
	err := filepath.WalkDir(filepath.Join(data, folder), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		name, err := filepath.Rel(data, path)
		p.items = append(p.items, archive.Item{Name: filepath.ToSlash(name), Path: path})
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// look lists the files of volumes, and adds those that are wanted.
func (p *backup) look(ctx context.Context, m *Maker, all []store.Volume) error {
	writing, err := m.writing(ctx)
	if err != nil {
		return err
	}
	owner := map[string]store.Volume{}
	for _, v := range all {
		owner[v.Path] = v
	}
	dir := filepath.Join(m.cfg.Dir, "volumes")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type reading struct {
		at   int
		path string
		watched
	}
	var read []reading
	total := int64(0)
	live, err := m.unlisted(ctx, all)
	if err != nil {
		return err
	}
	for _, f := range files {
		if live[strings.TrimSuffix(f.Name(), ".map")] {
			continue // made since; the inventory's copy does not know it
		}
		if !f.Type().IsRegular() || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		st, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		v := owner[strings.TrimSuffix(f.Name(), ".map")]
		entry := archive.Volume{File: archive.File{Name: "volumes/" + f.Name(), Size: st.Size()}, Volume: v.Name, Modified: st.ModTime().UTC()}
		path := filepath.Join(dir, f.Name())
		still := watched{v.Name, path, st.Size(), st.ModTime()}
		why, out := p.moments.leftOut[v.ID]
		then, viewed := p.moments.files[f.Name()]
		switch free := !writing[v.ID] && (v.ID == 0 || v.State == store.VolumeReady); {
		case viewed:
			entry.Size, entry.Running = then.Size, writing[v.ID]
			p.items = append(p.items, archive.Item{Name: entry.Name, Moment: past{then, p.moments.views[v.ID]}})
		case p.spec.Volumes && out:
			entry.LeftOut = why
		case p.spec.Volumes:
			s, err := openStill(still)
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
			p.stills = append(p.stills, s)
			p.items = append(p.items, archive.Item{Name: entry.Name, Moment: s})
		// What is golden, and what others stand on, never changes: it is read once.
		case free && (p.spec.Hash == store.HashAll || p.spec.Hash == store.HashFrozen && (v.Golden || v.ID == 0)):
			read = append(read, reading{len(p.volumes), path, still})
			total += st.Size()
		}
		p.volumes = append(p.volumes, entry)
	}
	if p.spec.Volumes {
		if err := p.complete(ctx, m, all); err != nil {
			return err
		}
	}
	return p.hash(ctx, m, total, func(sum func(path, volume string) (string, error)) error {
		for _, r := range read {
			text, err := sum(r.path, r.volume)
			if err != nil {
				return err
			}
			if r.check() == nil { // else a machine has begun to write meanwhile
				p.volumes[r.at].SHA256 = text
			}
		}
		return nil
	})
}

// hash lets each read the files that it wants the SHA-256 of, total bytes in all,
// and keeps what was read for the next backup.
func (p *backup) hash(ctx context.Context, m *Maker, total int64, each func(sum func(path, volume string) (string, error)) error) error {
	if total == 0 {
		return nil
	}
	kept, now := readSums(m.cfg.Dir), sums{}
	m.seen.done.Store(0)
	m.seen.total.Store(total)
	defer m.seen.what.Store(nil)
	err := each(func(path, volume string) (string, error) {
		m.seen.what.Store(&volume)
		name := filepath.Base(path)
		text, err := kept.of(ctx, path, name, &m.seen)
		now[name] = kept[name]
		return text, err
	})
	if err != nil {
		return err
	}
	return now.write(m.cfg.Dir)
}

// check fails when the file is not as it was.
func (w watched) check() error { return w.same(os.Stat(w.path)) }

func (w watched) same(st os.FileInfo, err error) error {
	if err == nil && st.Size() == w.size && st.ModTime().Equal(w.modified) {
		return nil
	}
	return &store.Error{Kind: store.KindInUse, Op: "back up volume", Subject: w.volume, Err: err,
		Msg: "it changed while it was copied, so the copy is of no moment; back up again"}
}

// writing are the volumes that a live session may write to.
func (m *Maker) writing(ctx context.Context) (map[store.VolumeID]bool, error) {
	out := map[store.VolumeID]bool{}
	for _, s := range m.cfg.Sessions() {
		maps, err := m.cfg.Rows.MappingsOf(ctx, s.Machine)
		if err != nil {
			return nil, err
		}
		for _, lun := range maps {
			out[lun.Volume] = out[lun.Volume] || !lun.ReadOnly
		}
	}
	return out, nil
}

// Name tells the backup from others.
func (p *backup) Name() string {
	return "lunboot-" + p.head.Created.Format("2006-01-02-150405") + ".tar.gz"
}

// Send writes the backup.
func (p *backup) Send(ctx context.Context, w io.Writer) error {
	_, err := archive.Write(ctx, w, p.head, p.items, p.volumes)
	return err
}

// Close removes the copies, and lets go of the volumes.
func (p *backup) Close() error {
	defer p.unlock()
	err := p.moments.close()
	for _, s := range p.stills {
		err = errors.Join(err, s.Close())
	}
	if p.scratch == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(p.scratch))
}
