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

	"lunboot/store"
	"lunboot/store/volume/image"
)

const (
	copyChunk = 1 << 20
	// granule is the run of zeros that becomes a hole: a block of the usual
	// file systems.
	granule = 4096
	// flushEvery bounds what an import leaves to its last flush: on a
	// journaling file system a large one holds up other volumes' flushes.
	flushEvery = 64 << 20
	// keepFree is what imports and copies leave to the machines that run: they
	// end before they have filled the file system.
	keepFree = 256 << 20
)

// Import fills a new volume with what r gives and returns the SHA-256 of that
// in hexadecimal. Runs of zeros become holes. r must end within the volume's
// last block; the rest of that block reads zero. The volume's file appears
// whole and durable, or not at all: whatever goes wrong, nothing is left
// behind. A running import ends when ctx does and r returns.
func (p *Pool) Import(ctx context.Context, v store.Volume, r io.Reader, progress func(done int64)) (sum string, err error) {
	err = p.bring(ctx, v, func(f file) error {
		hash := sha256.New()
		done, err := p.fill(ctx, f, v, io.TeeReader(r, hash), progress)
		if err == nil && v.Size-done >= int64(max(v.BlockSize, 512)) {
			err = store.Invalid("source", "the source ended after %d bytes, %d were announced", done, v.Size)
		}
		sum = hex.EncodeToString(hash.Sum(nil))
		return err
	})
	if err != nil {
		return "", err
	}
	return sum, nil
}

// bring makes a new volume's file with fill.
func (p *Pool) bring(ctx context.Context, v store.Volume, fill func(file) error) error {
	if v.Kind != store.VolumeRaw {
		return store.Invalid("kind", "a volume of kind %q cannot be imported", v.Kind)
	}
	if err := checkName(v.Path); err != nil {
		return fault("import volume", v.Name, err)
	}
	err := p.whole(ctx, v.Name, v.Path, func(f file) error {
		if err := f.Truncate(v.Size); err != nil {
			return err
		}
		if err := fill(f); err != nil {
			return err
		}
		return f.Sync()
	})
	if err == nil || err == ctx.Err() {
		return err
	}
	return fault("import volume", v.Name, err)
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

// fill copies r, which has at most v.Size bytes, to a file.
func (p *Pool) fill(ctx context.Context, f file, v store.Volume, r io.Reader, progress func(int64)) (done int64, err error) {
	w := &filler{pool: p, f: f, v: v}
	buf := make([]byte, copyChunk)
	for {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		n, end := image.ReadChunk(r, buf)
		if done+int64(n) > v.Size {
			return done, store.Invalid("size", "the source has more than the %d bytes that were announced", v.Size)
		}
		if err := w.write(buf[:n], done); err != nil {
			return done, err
		}
		done += int64(n)
		if progress != nil {
			progress(done)
		}
		if end == io.EOF {
			break
		} else if end != nil {
			var known *store.Error
			if errors.As(end, &known) {
				return done, end // the reader knows more than we
			}
			return done, &store.Error{Kind: store.KindUnavailable, Op: "import volume", Subject: v.Name, Err: end,
				Msg: fmt.Sprintf("the source could not be read beyond byte %d", done)}
		}
	}
	if done == 0 {
		return 0, store.Invalid("source", "the source is empty")
	}
	return done, nil
}

// filler writes to the file of a volume that is being made.
type filler struct {
	pool  *Pool
	f     file
	v     store.Volume
	dirty int64
}

// write writes what is not zero, and looks now and then whether there is still
// room for the machines that run.
func (w *filler) write(b []byte, off int64) error {
	wrote, err := writeSparse(w.f, b, off)
	if err != nil {
		return err
	}
	if w.dirty += wrote; w.dirty < flushEvery {
		return nil
	}
	w.dirty = 0
	if err := w.f.Sync(); err != nil {
		return err
	}
	return w.pool.spare("import volume", w.v.Name)
}

// spare ends what fills the file system while there is still room for the
// machines that run.
func (p *Pool) spare(op, name string) error {
	free, err := p.Free()
	if err != nil {
		return err
	}
	if free < keepFree {
		return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: name, Field: SpaceField,
			Msg: fmt.Sprintf("only %s are free in the file system that holds the volumes, and machines that run need them; make room and try again", store.Bytes(free))}
	}
	return nil
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
