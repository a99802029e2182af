package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"lunboot/store"
)

// maxWindow is the memory that a compressed stream may ask for: what xz -9 (64
// MiB) and zstd --long (128 MiB) ask for, and no more.
const maxWindow = 128 << 20

// OpenStream reads the raw bytes of a disk that r gives, compressed as f says;
// FormatRaw is not compressed. Reads fail when there are more than size bytes,
// when a check of the stream fails, and when the bytes turn out to be an image
// of another format. Fewer than size bytes are no error of the stream: the
// caller counts. Close does not close r.
func OpenStream(r io.Reader, f Format, size int64) (io.ReadCloser, error) {
	s := &stream{left: size, size: size}
	in := bufio.NewReaderSize(r, 64<<10)
	switch f {
	case FormatRaw:
		s.r = in
	case FormatGzip:
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, broken(f, 0, err)
		}
		s.r = z
	case FormatXZ:
		s.r = newXZ(in)
	case FormatZstd:
		z, err := zstd.NewReader(in, zstdOptions(maxWindow)...)
		if err != nil {
			return nil, broken(f, 0, err)
		}
		s.r, s.close = z, z.Close
	default:
		return nil, invalid("the image is a %s image, which is not read as a stream", f)
	}
	s.format = f
	head := bufio.NewReaderSize(s.r, 64<<10)
	s.r = head
	b, err := head.Peek(HeadSize)
	if err == nil || errors.Is(err, io.EOF) {
		err = s.checkInside(DetectHead(b))
	} else {
		err = broken(f, 0, err)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// zstdOptions read in the caller's goroutine, in memory for one window.
func zstdOptions(window uint64) []zstd.DOption {
	return []zstd.DOption{zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window)}
}

// stream bounds what a compressed stream becomes.
type stream struct {
	format     Format
	r          io.Reader
	close      func()
	size, left int64
	foot       []byte // the last bytes that were read
	err        error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.left == 0 {
		// One more byte is one too many, and the stream's own checks are at its end.
		var one [1]byte
		n, err := io.ReadFull(s.r, one[:])
		if n > 0 {
			s.err = invalid("the image has more than the %d bytes that were announced", s.size)
			return 0, s.err
		}
		return 0, s.end(err)
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.keep(p[:n])
	if err != nil {
		err = s.end(err)
	}
	return n, err
}

// end is what the stream's end, or its failure, is to the reader.
func (s *stream) end(err error) error {
	if errors.Is(err, io.EOF) {
		s.err = io.EOF
		if len(s.foot) == footSize {
			if err := s.checkInside(detectFoot(s.foot)); err != nil {
				s.err = err
			}
		}
		return s.err
	}
	s.err = broken(s.format, s.size-s.left, err)
	return s.err
}

// keep remembers the last footSize bytes.
func (s *stream) keep(p []byte) {
	if len(p) >= footSize {
		s.foot = append(s.foot[:0], p[len(p)-footSize:]...)
		return
	}
	if over := len(s.foot) + len(p) - footSize; over > 0 {
		s.foot = append(s.foot[:0], s.foot[over:]...)
	}
	s.foot = append(s.foot, p...)
}

// checkInside refuses what is not raw inside.
func (s *stream) checkInside(f Format, err error) error {
	switch {
	case err != nil:
		return err
	case f == FormatRaw:
		return nil
	case s.format == FormatRaw:
		return invalid("the image is a %s image, not the raw bytes of a disk", f)
	}
	return invalid("there is a %s image inside of the %s stream; unpack it first, and import what comes out", f, s.format)
}

func (s *stream) Close() error {
	if s.close != nil {
		s.close()
		s.close = nil
	}
	s.err = errors.Join(s.err, io.ErrClosedPipe)
	return nil
}

// broken is an error of a stream after done bytes of what it unpacks to.
func broken(f Format, done int64, err error) error {
	var known *store.Error
	switch {
	case errors.As(err, &known):
		return err
	case f == FormatRaw:
		return unreadable(done, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return invalid("the %s stream needs more than %s of memory to unpack; pack it again with a smaller window, as zstd --long=27 does", f, store.Bytes(maxWindow))
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return &store.Error{Kind: store.KindInvalid, Op: "read image", Field: "source", Err: err,
			Msg: fmt.Sprintf("the %s stream ends after %d unpacked bytes, before its own end: it was cut short; copy it again", f, done)}
	}
	return &store.Error{Kind: store.KindInvalid, Op: "read image", Field: "source", Err: err,
		Msg: fmt.Sprintf("the %s stream is damaged after %d unpacked bytes; copy it again", f, done)}
}

// StreamSize returns how many bytes a compressed stream of size bytes unpacks
// to, and an error when these are more than limit. An xz stream says so at its
// end; the others are unpacked once, which also shows that they are whole.
func StreamSize(ctx context.Context, r io.ReaderAt, size int64, f Format, limit int64) (int64, error) {
	if f == FormatRaw {
		return size, nil
	}
	if f == FormatXZ {
		n, err := xzSize(r, size)
		if err == nil && n > limit {
			err = invalid("the xz stream unpacks to %d bytes, and %d are the limit", n, limit)
		}
		return n, err
	}
	s, err := OpenStream(io.NewSectionReader(r, 0, size), f, min(limit, math.MaxInt64-1))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	buf := make([]byte, 256<<10)
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		got, err := s.Read(buf)
		n += int64(got)
		if errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
}

// ReadChunk fills b, or ends with io.EOF where r does. It is io.ReadFull, but that a
// reader's own io.ErrUnexpectedEOF is no end: it says that the sender broke off.
func ReadChunk(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = r.Read(b[n:])
		n += k
	}
	if n == len(b) {
		return n, nil
	}
	return n, err
}
