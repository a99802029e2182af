package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

const (
	copyChunk = 1 << 20
	// granule is the run of zeros that becomes a hole: a block of the usual
	// file systems.
	granule = 4096
	// flushEvery bounds what an import leaves to its last flush: on a
	// journaling file system a large one holds up other volumes' flushes.
	flushEvery = 64 << 20
)

// Import fills a new volume with what r gives and returns the SHA-256 of that
// in hexadecimal. Runs of zeros become holes. r must end within the volume's
// last block; the rest of that block reads zero. The volume's file appears
// whole and durable, or not at all: whatever goes wrong, nothing is left
// behind. A running import ends when ctx does and r returns.
func (p *Pool) Import(ctx context.Context, v store.Volume, r io.Reader, progress func(done int64)) (sum string, err error) {
	if v.Kind != store.VolumeRaw {
		return "", store.Invalid("kind", "a volume of kind %q cannot be imported", v.Kind)
	}
	if err := checkName(v.Path); err != nil {
		return "", fault("import volume", v.Name, err)
	}
	err = p.whole(ctx, v.Name, v.Path, func(f file) (err error) {
		sum, err = fill(ctx, f, v, r, progress)
		return err
	})
	if err == nil || err == ctx.Err() {
		return sum, err
	}
	return "", fault("import volume", v.Name, err)
}

// whole makes a file that appears whole and durable under its name, or not at
// all: fill writes it under another one.
func (p *Pool) whole(ctx context.Context, volume, path string, fill func(file) error) error {
	temp := "." + path + importSuffix
	if err := p.discard(temp); err != nil {
		return err
	}
	f, err := p.files.Create(temp)
	if err != nil {
		return err
	}
	err = errors.Join(fill(f), f.Close())
	name := temp
	if err == nil {
		err = p.absent(path)
	}
	if err == nil {
		if err = p.files.Rename(temp, path); err == nil {
			name = path
			err = p.files.Sync()
		}
	}
	if err == nil {
		return nil
	}
	if cleanup := p.discard(name); cleanup != nil {
		p.log.Error("a file that was to be filled could not be cleaned up", "volume", volume, "file", name, "err", cleanup)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// absent keeps the rename from replacing another volume's file.
func (p *Pool) absent(name string) error {
	names, err := p.files.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == name {
			return fmt.Errorf("%s: %w", name, os.ErrExist)
		}
	}
	return nil
}

func fill(ctx context.Context, f file, v store.Volume, r io.Reader, progress func(int64)) (string, error) {
	if err := f.Truncate(v.Size); err != nil {
		return "", err
	}
	sum := sha256.New()
	buf := make([]byte, copyChunk)
	var done, dirty int64
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, end := io.ReadFull(r, buf)
		if done+int64(n) > v.Size {
			return "", store.Invalid("size", "the source has more than the %d bytes that were announced", v.Size)
		}
		sum.Write(buf[:n])
		wrote, err := writeSparse(f, buf[:n], done)
		if err != nil {
			return "", err
		}
		done, dirty = done+int64(n), dirty+wrote
		if progress != nil {
			progress(done)
		}
		if end == io.EOF || end == io.ErrUnexpectedEOF {
			break
		} else if end != nil {
			return "", &store.Error{Kind: store.KindUnavailable, Op: "import volume", Subject: v.Name, Err: end,
				Msg: fmt.Sprintf("the source could not be read beyond byte %d", done)}
		}
		if dirty >= flushEvery {
			if err := f.Sync(); err != nil {
				return "", err
			}
			dirty = 0
		}
	}
	if done == 0 {
		return "", store.Invalid("source", "the source is empty")
	}
	if v.Size-done >= int64(max(v.BlockSize, 512)) {
		return "", store.Invalid("source", "the source ended after %d bytes, %d were announced", done, v.Size)
	}
	return hex.EncodeToString(sum.Sum(nil)), f.Sync()
}

// writeSparse writes the runs of b that are not zero.
func writeSparse(f file, b []byte, off int64) (wrote int64, err error) {
	for start := 0; start < len(b); {
		end := start
		for end < len(b) && !isZero(b[end:min(end+granule, len(b))]) {
			end = min(end+granule, len(b))
		}
		if end > start {
			if _, err := f.WriteAt(b[start:end], off+int64(start)); err != nil {
				return wrote, err
			}
			wrote += int64(end - start)
			start = end
			continue
		}
		start = min(start+granule, len(b))
	}
	return wrote, nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// Export writes a volume's bytes to w. Holes are not read from the disk. A
// volume that a machine writes meanwhile is a mixture of old and new.
func (p *Pool) Export(ctx context.Context, v store.Volume, w io.Writer, progress func(done int64)) error {
	h, err := p.Open(ctx, v)
	if err != nil {
		return err
	}
	return errors.Join(h.export(ctx, w, progress), h.Close())
}

func (h *Handle) export(ctx context.Context, w io.Writer, progress func(int64)) error {
	buf := make([]byte, copyChunk)
	size := h.Size()
	for off := int64(0); off < size; {
		mapped, run, err := h.BlockStatus(ctx, off, size-off)
		if err != nil {
			return err
		}
		out := zeros[:min(run, int64(len(zeros)))]
		if mapped {
			out = buf[:min(run, copyChunk)]
			if err := h.ReadAt(ctx, out, off); err != nil {
				return err
			}
		}
		if _, err := w.Write(out); err != nil {
			return fmt.Errorf("export volume %s: %w", *h.s.name.Load(), err)
		}
		off += int64(len(out))
		if progress != nil {
			progress(off)
		}
	}
	return nil
}

// Source is a file of the appliance that is to be imported.
type Source struct {
	*os.File
	Size int64 // bytes
}

// OpenSource opens a file to import and refuses what cannot become a volume:
// a folder, an empty file, anything that is neither a file nor a block device,
// and a file that needs more room than there is. It changes nothing.
func (p *Pool) OpenSource(path string) (*Source, error) {
	if !filepath.IsAbs(path) {
		return nil, store.Invalid("source", "%q is not a full path; name the file from / on", path)
	}
	// Without O_NONBLOCK, opening a named pipe waits for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &store.Error{Kind: store.KindInvalid, Op: "import", Subject: path, Field: "source", Err: err,
			Msg: "the file cannot be opened by the appliance"}
	}
	s, err := p.checkSource(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (p *Pool) checkSource(f *os.File, path string) (*Source, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, fault("import", path, err)
	}
	size, mode := fi.Size(), fi.Mode()
	need := size
	switch {
	case mode.IsDir():
		return nil, store.Invalid("source", "%s is a folder; name the file to import", path)
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		if size, err = f.Seek(0, io.SeekEnd); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return nil, fault("import", path, err)
		}
		need = size
	case !mode.IsRegular():
		return nil, store.Invalid("source", "%s is neither a file nor a block device", path)
	}
	if size == 0 {
		return nil, store.Invalid("source", "%s is empty", path)
	}
	// Holes of the source stay holes.
	var st unix.Stat_t
	if mode.IsRegular() && unix.Fstat(int(f.Fd()), &st) == nil {
		need = min(need, st.Blocks*512)
	}
	free, err := p.Free()
	if err != nil {
		return nil, fault("import", path, err)
	}
	if need > free {
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "import", Subject: path, Field: SpaceField,
			Msg: fmt.Sprintf("%s holds %s, and %s are free for volumes; make room and try again", path, store.Bytes(need), store.Bytes(free))}
	}
	return &Source{File: f, Size: size}, nil
}
