package inventory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"lunboot/store"
	"lunboot/store/volume/image"
)

// formats are what an operator may say that an image is. An image of a VMware or
// Hyper-V disk and the like is told by its content as well, and none is what its
// name says.
const formatAuto = "auto"

// source is an image that becomes a volume.
type source struct {
	from   string // where it comes from, for people
	file   io.ReaderAt
	size   int64  // bytes of the file
	sum    string // SHA-256 of the file when it is known already
	want   string // the one that was announced
	format image.Format
	disk   *image.Image // nil for raw bytes and a compressed stream of them, which are read from end to end
}

// openSource finds out what an image is, or takes the operator's word for raw
// bytes; every other word must be true.
func openSource(from string, file io.ReaderAt, size int64, format, want string) (*source, error) {
	want = strings.ToLower(want)
	if b, err := hex.DecodeString(want); err != nil || len(b) != 0 && len(b) != sha256.Size {
		return nil, store.Invalid("sha256", "a SHA-256 has 64 hexadecimal digits")
	}
	s := &source{from: from, file: file, size: size, want: want, format: image.FormatRaw}
	format = strings.ToLower(format)
	if format == string(image.FormatRaw) {
		return s, nil
	}
	found, err := image.Detect(file, size)
	if err != nil {
		return nil, of(from, err)
	}
	if format != "" && format != formatAuto && format != string(found) {
		return nil, store.Invalid("format", "%s is %s, not %s", from, article(found), format)
	}
	s.format = found
	if found.Compressed() {
		return s, s.begins()
	}
	if found == image.FormatRaw {
		return s, nil
	}
	if s.disk, err = image.Open(file, size); err != nil {
		return nil, of(from, err)
	}
	return s, nil
}

// begins unpacks the first byte, so that what cannot be unpacked at all is refused
// before there is a volume.
func (s *source) begins() error {
	stream, err := image.OpenStream(io.NewSectionReader(s.file, 0, s.size), s.format, store.MaxVolumeSize)
	if err != nil {
		return of(s.from, err)
	}
	defer stream.Close()
	if _, err := io.ReadFull(stream, make([]byte, 1)); err == io.EOF {
		return of(s.from, store.Invalid("source", "there is nothing in it but the wrapping of %s", s.format))
	} else if err != nil {
		return of(s.from, err)
	}
	return nil
}

// of names the image in an error that the reader of images cannot name.
func of(from string, err error) error {
	if e, ok := err.(*store.Error); ok && e.Subject == "" { //nolint:errorlint // one that is wrapped has a name already
		named := *e
		named.Op, named.Subject = "import", from
		return &named
	}
	return err
}

// article is a format in a sentence.
func article(f image.Format) string {
	switch {
	case f == image.FormatRaw:
		return "the raw bytes of a disk"
	case f.Compressed():
		return "compressed with " + string(f)
	}
	return "a " + string(f) + " image"
}

// bytes is the disk's size, and whether it is known before the end.
func (s *source) bytes() (n int64, known bool) {
	switch {
	case s.disk != nil:
		return s.disk.Size(), true
	case s.format.Compressed():
		return 1, false
	}
	return s.size, true
}

// blockSize is that of a disk that was made for others than 512, else 0.
func (s *source) blockSize() int {
	if s.disk != nil && s.disk.BlockSize() != 512 {
		return s.disk.BlockSize()
	}
	return 0
}

// said is what is kept of where a volume is from.
func (s *source) said(sum string) string {
	if s.format != image.FormatRaw {
		return fmt.Sprintf("%s (%s) sha256:%s", s.from, s.format, sum)
	}
	return s.from + " sha256:" + sum
}

// check compares the announced SHA-256 with what was read.
func (s *source) check(sum string) error {
	if s.want != "" && s.want != sum {
		return store.Invalid("sha256", "the image has the SHA-256 %s, not the announced %s: copy it again, or ask for the right sum", sum, s.want)
	}
	return nil
}

// reader reads the file from its beginning.
func (s *source) reader(ctx context.Context) io.Reader {
	return &endable{ctx, io.NewSectionReader(s.file, 0, s.size)}
}

// endable ends with a context.
type endable struct {
	ctx context.Context
	r   io.Reader
}

func (e *endable) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	return e.r.Read(p)
}

// counter tells how much went through it.
type counter struct {
	r    io.Reader
	n    int64
	tell func(n int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n += int64(n); c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

// fill makes a volume's bytes of an image, and returns the volume with the size
// that it has and where it is from. Nothing is left when it fails.
func (i *Inventory) fill(ctx context.Context, v store.Volume, s *source, progress func(done, total int64)) (store.Volume, error) {
	var (
		sum string
		err error
	)
	switch {
	case s.disk != nil:
		sum, err = i.fillDisk(ctx, v, s, progress)
	case s.format.Compressed():
		v.Size, sum, err = i.unpack(ctx, v, s, progress)
	default:
		sum, err = i.volumes.Import(ctx, v, s.reader(ctx), func(done int64) { progress(done, s.size) })
	}
	if err != nil {
		return v, of(s.from, err)
	}
	if err := s.check(sum); err != nil {
		return v, i.unfill(ctx, v, err)
	}
	v.From = s.said(sum)
	return v, nil
}

// unfill removes what was filled and must not be a volume.
func (i *Inventory) unfill(ctx context.Context, v store.Volume, why error) error {
	if err := i.volumes.Remove(context.WithoutCancel(ctx), v); err != nil {
		i.log.Error("the file of a failed import stays until the next start", "volume", v.Name, "err", err)
	}
	return why
}

// fillDisk copies a disk of which an image tells where its bytes are. All of its
// tables, its sum and the room are looked at first.
func (i *Inventory) fillDisk(ctx context.Context, v store.Volume, s *source, progress func(done, total int64)) (sum string, err error) {
	data, err := s.disk.Data(ctx)
	if err != nil {
		return "", err
	}
	free, err := i.volumes.Free()
	if err != nil {
		return "", err
	}
	if data > free {
		return "", &store.Error{Kind: store.KindUnavailable, Op: "import", Subject: s.from, Field: "space",
			Msg: fmt.Sprintf("the disk in the image holds %s, and %s are free for volumes; make room and try again", store.Bytes(data), store.Bytes(free))}
	}
	total := data
	read := int64(0)
	if sum = s.sum; sum == "" {
		total += s.size
		hash := sha256.New()
		in := &counter{r: s.reader(ctx), tell: func(n int64) { progress(n, total) }}
		if _, err := io.CopyBuffer(struct{ io.Writer }{hash}, in, make([]byte, 1<<20)); err != nil {
			return "", err
		}
		sum, read = hex.EncodeToString(hash.Sum(nil)), s.size
		if err := s.check(sum); err != nil {
			return "", err
		}
	}
	return sum, i.volumes.ImportDisk(ctx, v, s.disk, func(done int64) { progress(read+done, total) })
}

// unpack makes a volume of a compressed stream, in one pass.
func (i *Inventory) unpack(ctx context.Context, v store.Volume, s *source, progress func(done, total int64)) (size int64, sum string, err error) {
	hash := sha256.New()
	packed := io.TeeReader(&counter{r: s.reader(ctx), tell: func(n int64) { progress(n, s.size) }}, hash)
	stream, err := image.OpenStream(packed, s.format, store.MaxVolumeSize)
	if err != nil {
		return 0, "", err
	}
	defer stream.Close()
	if size, err = i.volumes.ImportStream(ctx, v, stream, nil); err != nil {
		return 0, "", err
	}
	v.Size = size
	if _, err := io.Copy(io.Discard, packed); err != nil { // what the unpacker did not need
		return 0, "", i.unfill(ctx, v, err)
	}
	return size, hex.EncodeToString(hash.Sum(nil)), nil
}
