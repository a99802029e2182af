// Package archive is a backup as one file: a gzip-compressed tar of the files
// that an appliance is made of, which begins with a line that says what it is
// and ends with a manifest of every file's size and SHA-256.
//
// The manifest comes last, so that a backup is made in one pass and one that was
// cut off is known by its absence. It also says which files were lost while they
// were copied: what came of those is removed again. Nothing that is read is trusted: names are
// checked before a path is made of them, sizes against what was announced, and
// every byte against the manifest.
package archive

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lunboot/store"
)

// Format is the layout that this program writes and reads.
const Format = 1

// Names of the two entries that are not files of the appliance.
const (
	headName     = "lunboot-backup.json"
	manifestName = "manifest.json"
)

// Bounds of what is read.
const (
	maxManifest = 64 << 20
	maxHead     = 64 << 10
	maxFiles    = 100000
)

// Head is what a backup says of itself first.
type Head struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the lunboot that wrote it
	Created time.Time `json:"created"`
	Target  string    `json:"target"` // the appliance's iSCSI name
}

// Manifest is the whole of a backup's contents.
type Manifest struct {
	Head
	Files   []File   `json:"files"`
	Volumes []Volume `json:"volumes"`
}

// File is one file of the appliance, by its path below the data folder.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Volume is a file of the volume folder, which a backup holds only when it was
// asked to.
type Volume struct {
	File
	Volume   string    `json:"volume,omitempty"` // the volume's name, when one is known by this file
	Modified time.Time `json:"modified"`
	Included bool      `json:"included"` // its bytes are in the backup; SHA256 is known
	// Running: a machine could write to it when it was copied. What is in the backup
	// is crash-consistent, as after a power cut at one moment.
	Running bool `json:"running,omitempty"`
	// LeftOut says why its bytes, which were asked for, are not in the backup.
	LeftOut string `json:"left_out,omitempty"`
}

// layer is what a file and its map have in common: neither is worth anything
// without the other.
func (v Volume) layer() string { return strings.TrimSuffix(v.Name, ".map") }

// Item is a file to put into a backup: Name is its path below the data folder,
// Path where its bytes are read, or Moment is what it held.
type Item struct {
	Name, Path string
	Moment     Moment
}

// Moment is what a file of a volume held at one moment, read once. It can be lost
// while it is read, also after its last byte: the backup goes on without it then.
type Moment interface {
	io.Reader
	Size() int64
	Lost() error
}

// Write writes a backup of items to w. The files of volumes are among the items
// when their bytes are wanted; volumes lists all of them.
func Write(ctx context.Context, w io.Writer, head Head, items []Item, volumes []Volume) (Manifest, error) {
	head.Format = Format
	m := Manifest{Head: head, Files: []File{}, Volumes: append([]Volume{}, volumes...)}
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return m, err
	}
	out := tar.NewWriter(zip)
	if err := putJSON(out, headName, head); err != nil {
		return m, err
	}
	lost := map[string]error{} // by layer
	for _, item := range items {
		f, bad, err := put(ctx, out, item, head.Created)
		if err != nil {
			return m, fmt.Errorf("back up %s: %w", item.Name, err)
		}
		m.Files = append(m.Files, f)
		for i := range m.Volumes {
			if v := &m.Volumes[i]; v.Name == f.Name {
				v.File, v.Included = f, true
				if bad != nil && lost[v.layer()] == nil {
					lost[v.layer()] = bad
				}
			}
		}
	}
	for i := range m.Volumes {
		if v := &m.Volumes[i]; lost[v.layer()] != nil {
			v.SHA256, v.Included, v.Running, v.LeftOut = "", false, false, lost[v.layer()].Error()
		}
	}
	return m, errors.Join(putJSON(out, manifestName, m), out.Close(), zip.Close())
}

func putJSON(out *tar.Writer, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = out.Write(b)
	return err
}

// put writes one file. One that grows while it is read is cut at the size that
// was announced; one that shrinks fails. lost says that the moment of a file was
// lost: zeros stand in the place of the rest of it then, since its size was
// announced.
func put(ctx context.Context, out *tar.Writer, item Item, at time.Time) (f File, lost, err error) {
	in, size := io.Reader(item.Moment), int64(0)
	if item.Moment != nil {
		size = item.Moment.Size()
	} else {
		file, err := os.Open(item.Path)
		if err != nil {
			return f, nil, err
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil {
			return f, nil, err
		}
		if !st.Mode().IsRegular() {
			return f, nil, store.Invalid("file", "%s is no plain file", item.Path)
		}
		in, size = file, st.Size()
	}
	if err := out.WriteHeader(&tar.Header{Name: item.Name, Mode: 0o600, Size: size, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return f, nil, err
	}
	sum := sha256.New()
	w := &counted{w: io.MultiWriter(out, sum)}
	buf := make([]byte, hole)
	_, err = io.CopyBuffer(w, &patient{ctx, io.LimitReader(in, size)}, buf)
	if err == nil && w.n < size {
		err = io.ErrUnexpectedEOF
	}
	if item.Moment != nil && ctx.Err() == nil && w.err == nil {
		if lost = item.Moment.Lost(); lost == nil {
			lost = err
		}
		_, err = io.CopyBuffer(w, &patient{ctx, io.LimitReader(nothing{}, size-w.n)}, buf)
	}
	if err != nil {
		return f, nil, err
	}
	return File{Name: item.Name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, lost, nil
}

// counted tells its writer's errors from a reader's.
type counted struct {
	w   io.Writer
	n   int64
	err error
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n, c.err = c.n+int64(n), err
	return n, err
}

// nothing is zeros without end.
type nothing struct{}

func (nothing) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

// Verify reads a whole backup and checks every byte of it.
func Verify(ctx context.Context, r io.Reader) (Manifest, error) {
	return read(ctx, r, func(string) (target, error) { return discard{}, nil })
}

// Unpack writes the files of a backup below dir, checks every byte and returns
// when all is on disk. dir must be there; what is in it after an error is to be
// thrown away.
func Unpack(ctx context.Context, r io.Reader, dir string) (Manifest, error) {
	folders := map[string]bool{dir: true}
	m, err := read(ctx, r, func(name string) (target, error) {
		path := filepath.Join(dir, filepath.FromSlash(name))
		parent := filepath.Dir(path)
		if err := os.MkdirAll(parent, 0o750); err != nil {
			return nil, err
		}
		for d := parent; d != dir; d = filepath.Dir(d) {
			folders[d] = true
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		return &sparse{f: f}, nil
	})
	if err != nil {
		return m, err
	}
	if err := m.removeLost(dir); err != nil {
		return m, err
	}
	for d := range folders {
		if err := syncDir(d); err != nil {
			return m, err
		}
	}
	return m, nil
}

// removeLost removes the parts that came of what was lost while it was copied.
func (m Manifest) removeLost(dir string) error {
	lost := map[string]bool{}
	for _, v := range m.Volumes {
		lost[v.Name] = v.LeftOut != ""
	}
	for _, f := range m.Files { // whose names were checked
		if lost[f.Name] {
			if err := os.Remove(filepath.Join(dir, filepath.FromSlash(f.Name))); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// target takes the bytes of one file. Done is told that all came.
type target interface {
	io.Writer
	Done() error
	Close() error
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Done() error                 { return nil }
func (discard) Close() error                { return nil }

// sparse leaves holes where zeros would stand: a volume takes no more room than
// it did.
type sparse struct {
	f    *os.File
	size int64
}

const hole = 64 << 10

func (s *sparse) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		part := b[done:min(len(b), done+hole)]
		if !zeros(part) {
			if _, err := s.f.WriteAt(part, s.size); err != nil {
				return done, err
			}
		}
		s.size += int64(len(part))
		done += len(part)
	}
	return done, nil
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (s *sparse) Done() error  { return errors.Join(s.f.Truncate(s.size), s.f.Sync()) }
func (s *sparse) Close() error { return s.f.Close() }

// read goes through a backup once, gives each file to what open returns, and
// compares what came with the manifest.
func read(ctx context.Context, r io.Reader, open func(name string) (target, error)) (m Manifest, err error) {
	zip, err := gzip.NewReader(bufio.NewReaderSize(&patient{ctx, r}, 1<<20))
	if err != nil {
		return m, damaged("it is no backup of lunboot", err)
	}
	in := tar.NewReader(zip)
	var head Head
	if err := getJSON(in, headName, maxHead, &head); err != nil {
		return m, err
	}
	if head.Format != Format {
		return m, store.Invalid("file", "the backup has the format %d, written by lunboot %s; this program reads format %d", head.Format, head.Version, Format)
	}
	got := map[string]File{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return m, damaged("it was cut off: its manifest is missing", nil)
		}
		if err != nil {
			return m, damaged("it is damaged, or was cut off", err)
		}
		if h.Name == manifestName {
			if err := decode(in, h, maxManifest, &m); err != nil {
				return m, err
			}
			break
		}
		if err := checkName(h, got); err != nil {
			return m, err
		}
		t, err := open(h.Name)
		if err != nil {
			return m, fmt.Errorf("write %s: %w", h.Name, err)
		}
		sum := sha256.New()
		if got[h.Name], err = take(in, h, t, sum); err != nil {
			return m, errors.Join(err, t.Close())
		}
		if err := errors.Join(t.Done(), t.Close()); err != nil {
			return m, fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		return m, damaged("something follows its manifest", err)
	}
	// To the end of the compressed stream, where its checksum stands.
	if _, err := io.Copy(io.Discard, zip); err != nil {
		return m, damaged("it is damaged at its end", err)
	}
	return m, compare(m, got)
}

func getJSON(in *tar.Reader, name string, limit int64, v any) error {
	h, err := in.Next()
	if err != nil || h.Name != name {
		return damaged("it is no backup of lunboot", err)
	}
	return decode(in, h, limit, v)
}

func decode(in io.Reader, h *tar.Header, limit int64, v any) error {
	if h.Size > limit {
		return damaged(h.Name+" is larger than it can be", nil)
	}
	b, err := io.ReadAll(in)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return damaged(h.Name+" cannot be read", err)
	}
	return nil
}

// checkName refuses an entry that is no plain file below the data folder.
func checkName(h *tar.Header, got map[string]File) error {
	_, again := got[h.Name]
	switch {
	case h.Typeflag != tar.TypeReg:
		return damaged(fmt.Sprintf("%q is no plain file", h.Name), nil)
	case !fs.ValidPath(h.Name) || h.Name == "." || !filepath.IsLocal(h.Name) || strings.HasPrefix(h.Name, "."):
		return damaged(fmt.Sprintf("%q is no name below the data folder", h.Name), nil)
	case again:
		return damaged(fmt.Sprintf("%q is in it twice", h.Name), nil)
	case len(got) >= maxFiles:
		return damaged(fmt.Sprintf("it has more than %d files", maxFiles), nil)
	}
	return nil
}

func take(in io.Reader, h *tar.Header, t io.Writer, sum hash.Hash) (File, error) {
	n, err := copyChunks(io.MultiWriter(t, sum), in)
	switch {
	case errors.Is(err, errWrite):
		return File{}, fmt.Errorf("write %s: %w", h.Name, err)
	case err != nil:
		return File{}, damaged(h.Name+" was cut off, or is damaged", err)
	case n != h.Size:
		return File{}, damaged(fmt.Sprintf("%s has %d bytes where %d were announced", h.Name, n, h.Size), nil)
	}
	return File{Name: h.Name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

var errWrite = errors.New("the folder does not take it")

// copyChunks is io.Copy with chunks that make holes, which tells its writer's
// errors from its reader's.
func copyChunks(w io.Writer, r io.Reader) (n int64, err error) {
	b := make([]byte, hole)
	for {
		k, rerr := io.ReadFull(r, b)
		if k > 0 {
			if _, err := w.Write(b[:k]); err != nil {
				return n, errors.Join(errWrite, err)
			}
			n += int64(k)
		}
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) && k > 0 {
			if errors.Is(rerr, io.ErrUnexpectedEOF) {
				// A short last chunk; a tar that was cut off says the same on the next read.
				if _, err := r.Read(b[:1]); err != nil && !errors.Is(err, io.EOF) {
					return n, err
				}
			}
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// compare holds what came against the manifest.
func compare(m Manifest, got map[string]File) error {
	if len(m.Files) != len(got) {
		return damaged(fmt.Sprintf("it has %d files and its manifest names %d", len(got), len(m.Files)), nil)
	}
	for _, want := range m.Files {
		have, ok := got[want.Name]
		if !ok {
			return damaged(want.Name+" is missing", nil)
		}
		if have != want {
			return damaged(want.Name+" is not what it was when the backup was made", nil)
		}
	}
	return nil
}

func damaged(what string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &store.Error{Kind: store.KindCorrupt, Op: "read backup", Msg: what + "; take another backup", Err: err}
}
