package loaders

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// Bounds of what can be uploaded: the files are held in memory.
const (
	maxUploads     = 64
	maxUploadBytes = 128 << 20
)

// Rows keeps which loaders were uploaded, and says which machines name one.
type Rows interface {
	SuppliedLoaders(context.Context) ([]store.Loader, error)
	PutLoader(context.Context, store.Actor, store.Loader) (store.Loader, error)
	DeleteLoader(ctx context.Context, by store.Actor, chain, name string) error
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
}

// home is where uploads are kept: rows in the inventory, and bytes in a folder
// under their hash. A file is on disk before its row is, and goes after it.
type home struct {
	dir  string
	rows Rows
	log  *slog.Logger
}

// Keep takes up the loaders that were uploaded before, from dir, which it makes
// when it is not there. A file that is not what its row says is logged and not
// served; one that no row speaks of is removed.
func (s *Set) Keep(ctx context.Context, dir string, rows Rows, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("the folder of the uploaded loaders: %w", err)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	all, err := rows.SuppliedLoaders(ctx)
	if err != nil {
		return fmt.Errorf("list the uploaded loaders: %w", err)
	}
	h := &home{dir: dir, rows: rows, log: log}
	wanted := map[string]bool{}
	up := map[boot.Loader]file{}
	for _, row := range all {
		wanted[row.SHA256] = true
		f, err := h.read(row)
		if err != nil {
			log.Error("an uploaded loader cannot be used; upload it again", "loader", row.Key(), "reason", err)
			continue
		}
		up[boot.Loader(row.Key())] = f
	}
	if err := h.sweep(wanted); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.home, s.uploaded = h, up
	s.stock()
	return nil
}

// read takes a row's bytes from the folder. The hash, which names the file, is
// made of hexadecimal digits by store.Loader's Validate; it is checked again,
// since a name is opened here.
func (h *home) read(row store.Loader) (file, error) {
	if err := row.Validate(); err != nil {
		return file{}, err
	}
	data, err := readFile(filepath.Join(h.dir, row.SHA256))
	if err != nil {
		return file{}, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != row.SHA256 {
		return file{}, fmt.Errorf("its bytes are not those that were uploaded (SHA-256 %x)", sum)
	}
	f, err := inspect(data)
	if err != nil {
		return file{}, err
	}
	return uploadedFile(row, data, f), nil
}

func uploadedFile(row store.Loader, data []byte, f found) file {
	out := describe(boot.Loader(row.Key()), data, f, "uploaded", row.Version, asSupplied)
	out.info.Role, out.info.Supplied = row.Role, true
	return out
}

// sweep removes what a power cut left: files whose row never came, or is gone.
func (h *home) sweep(wanted map[string]bool) error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return fmt.Errorf("read the folder of the uploaded loaders: %w", err)
	}
	for _, e := range entries {
		if wanted[e.Name()] || e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(h.dir, e.Name())); err != nil {
			return fmt.Errorf("remove what is left of an upload: %w", err)
		}
		h.log.Info("removed what was left of an upload", "file", e.Name())
	}
	return nil
}

// Add takes a loader from the operator. It is on disk, and served, when Add
// returns. Its bytes say what it runs on; a name that says otherwise is refused.
func (s *Set) Add(ctx context.Context, by store.Actor, u boot.LoaderUpload, r io.Reader) (boot.LoaderInfo, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if s.home == nil {
		return boot.LoaderInfo{}, &store.Error{Kind: store.KindUnavailable, Op: "add loader", Msg: "uploaded loaders have no folder to be kept in"}
	}
	row := store.Loader{Chain: strings.ToLower(u.Chain), Role: u.Role}
	var err error
	if row.Name, err = s.nameOf(u); err != nil {
		return boot.LoaderInfo{}, err
	}
	// Everything that its name can say is said before its bytes are read.
	row.Firmware, row.Arch, row.Size, row.SHA256 = "?", "?", 1, strings.Repeat("0", 64)
	if err := row.Validate(); err != nil {
		return boot.LoaderInfo{}, err
	}
	name := boot.Loader(row.Key())
	if f, ok := s.folder[name]; ok { // it never changes after Load
		return boot.LoaderInfo{}, store.Conflict("name", "%s goes before an upload; replace that file, or start without --loaders", f.info.Source)
	}
	data, err := readLoader(r)
	if err != nil {
		return boot.LoaderInfo{}, store.Invalid("file", "loader %s: %v", name, err)
	}
	f, err := checked(name, data)
	if err != nil {
		return boot.LoaderInfo{}, store.Invalid("file", "%s is not accepted: %v", name, err)
	}
	if err := s.room(name, len(data)); err != nil {
		return boot.LoaderInfo{}, err
	}
	sum := sha256.Sum256(data)
	row.Firmware, row.Arch, row.Version = f.Platform.Firmware.String(), f.Platform.Arch.String(), f.Version
	row.Features, row.Opaque, row.Size, row.SHA256 = f.Features, f.Opaque, int64(len(data)), hex.EncodeToString(sum[:])
	if err := s.home.write(row.SHA256, data); err != nil {
		return boot.LoaderInfo{}, fmt.Errorf("keep the loader %s: %w", name, err)
	}
	kept, err := s.home.rows.PutLoader(ctx, by, row)
	if err != nil {
		s.unlink(row.SHA256)
		return boot.LoaderInfo{}, err
	}
	row = kept
	old, replaced := s.uploaded[name]
	s.mu.Lock()
	s.uploaded[name] = uploadedFile(row, data, f)
	s.stock()
	s.mu.Unlock()
	if replaced && old.info.SHA256 != row.SHA256 {
		s.unlink(old.info.SHA256)
	}
	for _, i := range s.Manifest() {
		if i.Name == name {
			return i, nil
		}
	}
	return boot.LoaderInfo{}, store.NotFound("loader", string(name))
}

// nameOf settles under which name an upload is asked for; changes is held.
func (s *Set) nameOf(u boot.LoaderUpload) (string, error) {
	name := u.Name
	if name == "" && u.Role == store.LoaderSecond {
		for l, f := range s.uploaded {
			if l.Chain() == strings.ToLower(u.Chain) && f.info.Role == store.LoaderFirst {
				return boot.SecondOf(l.File())
			}
		}
		return "", store.Invalid("role", "the chain %s has no first file; add that before the second, or say under which name the second is asked for", u.Chain)
	}
	if name == "" {
		name = u.File[strings.LastIndexAny(u.File, `/\`)+1:]
	}
	return strings.ToLower(name), nil
}

// room refuses what would not fit besides the others; changes is held.
func (s *Set) room(name boot.Loader, size int) error {
	total, n := size, 1
	for other, f := range s.uploaded {
		if other != name {
			total += len(f.data)
			n++
		}
	}
	if n > maxUploads || total > maxUploadBytes {
		return store.Invalid("file", "up to %d loaders of %d MiB together can be uploaded; remove one first", maxUploads, maxUploadBytes>>20)
	}
	return nil
}

// write puts bytes into the folder under their hash. They are on disk when it
// returns.
func (h *home) write(sum string, data []byte) error {
	path := filepath.Join(h.dir, sum)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	tmp, err := os.CreateTemp(h.dir, "new-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncFolder(h.dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// unlink removes bytes that no row speaks of any more; changes is held. What
// stays is swept at the next start.
func (s *Set) unlink(sum string) {
	for _, f := range s.uploaded {
		if f.info.SHA256 == sum {
			return
		}
	}
	if err := os.Remove(filepath.Join(s.home.dir, sum)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.home.log.Warn("a removed loader's bytes stay until the next start", "file", sum, "err", err)
	}
}

// Remove takes back a loader that was uploaded, or a whole chain. The built-in
// one of its name serves again. One that a machine names, and that nothing
// stands in for, stays.
func (s *Set) Remove(ctx context.Context, by store.Actor, name string) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if s.home == nil {
		return store.NotFound("uploaded loader", name)
	}
	var gone []boot.Loader
	for l := range s.uploaded {
		if string(l) == name || l.Chain() == name {
			gone = append(gone, l)
		}
	}
	slices.Sort(gone)
	if len(gone) == 0 {
		if _, ok := s.Open(boot.Loader(name)); ok {
			return store.Invalid("name", "%s was not uploaded, so it cannot be removed here", name)
		}
		return store.NotFound("uploaded loader", name)
	}
	machines, _, err := s.home.rows.Machines(ctx, store.MachineFilter{})
	if err != nil {
		return err
	}
	for _, m := range machines {
		for _, l := range gone {
			_, other := s.built[l]
			if _, dir := s.folder[l]; !other && !dir && (m.Loader == string(l) || l.Chain() != "" && m.Loader == l.Chain()) {
				return store.InUse("machine %s starts from %s; choose another loader for it first", m.Name, m.Loader)
			}
		}
	}
	for _, l := range gone {
		if err := s.home.rows.DeleteLoader(ctx, by, l.Chain(), l.File()); err != nil {
			return err
		}
		sum := s.uploaded[l].info.SHA256
		s.mu.Lock()
		delete(s.uploaded, l)
		s.stock()
		s.mu.Unlock()
		s.unlink(sum)
	}
	return nil
}
