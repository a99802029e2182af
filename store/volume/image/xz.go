package image

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"lunboot/store"
)

// The parts of an .xz file ("The .xz File Format", version 1.1.0) around its
// LZMA2 data. The library's own reader of them gives a block the dictionary that
// it asks for, up to 4 GiB, and offers no limit.
const (
	xzMagic      = "\xfd7zXZ\x00"
	xzFootMagic  = "YZ"
	xzHeaderSize = 12 // of a stream's header and of its footer
	xzLZMA2      = 0x21
	xzMaxIndex   = 1 << 34 // bytes; the format's own limit
	xzMaxPadding = 4 << 10 // bytes of zeros between streams, for which the format has no limit
	// Every block has a dictionary of its own. A stream of blocks that are nearly
	// empty, each with a large dictionary, is made to keep the appliance busy.
	xzFreeDicts = 1 << 30 // bytes of dictionaries, and
	xzDictRatio = 256     // so many more for each byte of the disk
)

var (
	errXZ     = errors.New("not as the format has it")
	errXZSum  = errors.New("a checksum is wrong")
	errXZMore = errors.New("bytes follow the stream")
)

// xzReader reads one stream behind the other.
type xzReader struct {
	in    *bufio.Reader
	count int64 // bytes taken from in
	check byte  // the stream's sort of checksum
	open  bool  // inside of a stream
	any   bool  // one stream was read
	block *xzBlock
	sums  [2]hash.Hash // of the sizes of the blocks that were read, and of what the index says
	n     uint64       // blocks of this stream
	dicts int64        // bytes of all blocks' dictionaries
	out   int64        // bytes that were unpacked
}

func newXZ(in *bufio.Reader) *xzReader { return &xzReader{in: in} }

// xzBlock is the block that is being read.
type xzBlock struct {
	r                io.Reader
	sum              hash.Hash // nil when there is none that is known
	sumSize          int
	header, from     int64 // length of the header, and where the data begins
	packed, unpacked int64 // as the header says, -1 when it does not
	done             int64
	reversed         bool // the sum is stored with its lowest byte first
}

// ReadByte and take count what the stream gives, and turn its end into an error:
// only between streams may it end.
func (x *xzReader) ReadByte() (byte, error) {
	b, err := x.in.ReadByte()
	if err != nil {
		return 0, noEOF(err)
	}
	x.count++
	return b, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *xzReader) take(b []byte) error {
	n, err := io.ReadFull(x.in, b)
	x.count += int64(n)
	return noEOF(err)
}

// counted is what the decoder of a block reads.
type counted struct{ x *xzReader }

func (c counted) ReadByte() (byte, error) { return c.x.ReadByte() }

func (c counted) Read(p []byte) (int, error) {
	n, err := c.x.in.Read(p)
	c.x.count += int64(n)
	return n, noEOF(err)
}

func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.block != nil {
			n, err := x.block.read(x, p)
			if n > 0 || err != nil || len(p) == 0 {
				return n, err
			}
			continue
		}
		if err := x.next(); err != nil {
			return 0, err
		}
	}
}

// next goes on to the next block. io.EOF is the end of the last stream.
func (x *xzReader) next() error {
	if !x.open {
		return x.openStream()
	}
	size, err := x.ReadByte()
	if err != nil {
		return err
	}
	if size == 0 {
		x.open = false
		return x.closeStream(x.count - 1)
	}
	return x.openBlock(size)
}

// openStream reads the header of a stream. Between two there may be zeros, four
// at a time.
func (x *xzReader) openStream() error {
	var h [xzHeaderSize]byte
	padding := 0
	for {
		n, err := io.ReadFull(x.in, h[:4])
		switch {
		case n == 0 && errors.Is(err, io.EOF) && x.any:
			return io.EOF
		case err != nil:
			return noEOF(err)
		}
		if !x.any || !bytes.Equal(h[:4], make([]byte, 4)) {
			break
		}
		if padding += 4; padding > xzMaxPadding {
			return errXZ
		}
	}
	if err := x.take(h[4:]); err != nil {
		return err
	}
	switch {
	case string(h[:6]) != xzMagic && x.any:
		return errXZMore
	case string(h[:6]) != xzMagic || h[6] != 0 || h[7] > 15:
		return errXZ
	case crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]):
		return errXZSum
	}
	x.check, x.open, x.any, x.n = h[7], true, true, 0
	x.sums = [2]hash.Hash{sha256.New(), sha256.New()}
	return nil
}

// openBlock reads the header of a block whose first byte says its size.
func (x *xzReader) openBlock(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if err := x.take(h[1:]); err != nil {
		return err
	}
	body, sum := h[:len(h)-4], binary.LittleEndian.Uint32(h[len(h)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return errXZSum
	}
	flags, r := body[1], bytes.NewReader(body[2:])
	b := &xzBlock{header: int64(len(h)), from: x.count, packed: -1, unpacked: -1}
	for _, field := range []struct {
		bit byte
		to  *int64
	}{{0x40, &b.packed}, {0x80, &b.unpacked}} {
		if flags&field.bit == 0 {
			continue
		}
		n, err := xzNumber(r)
		if err != nil {
			return err
		}
		*field.to = int64(n)
	}
	dict, err := xzDictionary(flags, r)
	if err != nil {
		return err
	}
	switch x.check {
	case 0:
	case 1:
		b.sum, b.reversed = crc32.NewIEEE(), true
	case 4:
		b.sum, b.reversed = crc64.New(crc64.MakeTable(crc64.ECMA)), true
	case 10:
		b.sum = sha256.New()
	default: // reserved: its length is known, its meaning is not
	}
	if b.unpacked >= 0 {
		dict = max(min(dict, b.unpacked), lzma.MinDictCap)
	}
	if x.dicts += dict; x.dicts > xzFreeDicts+xzDictRatio*x.out {
		return invalid("the xz stream asks for much memory to unpack nearly nothing; it is damaged, or made to deceive")
	}
	if x.check > 0 {
		b.sumSize = 4 << ((x.check - 1) / 3)
	}
	l, err := lzma.Reader2Config{DictCap: int(dict)}.NewReader2(counted{x})
	if err != nil {
		return err
	}
	b.r, x.block = l, b
	return nil
}

// xzDictionary reads the list of filters, of which LZMA2 alone is known.
func xzDictionary(flags byte, r *bytes.Reader) (int64, error) {
	if flags&0x3c != 0 {
		return 0, errXZ
	}
	if flags&3 != 0 {
		return 0, invalid("the xz stream uses a filter for programs, which is not known; unpack it first, with: xz -d")
	}
	id, err := xzNumber(r)
	if err != nil {
		return 0, err
	}
	if id != xzLZMA2 {
		return 0, invalid("the xz stream uses a filter that is not known (%#x); unpack it first, with: xz -d", id)
	}
	var props [2]byte
	if _, err := io.ReadFull(r, props[:]); err != nil || props[0] != 1 || props[1] > 40 {
		return 0, errXZ
	}
	dict, err := lzma.DecodeDictCap(props[1])
	if err != nil {
		return 0, errXZ
	}
	if dict > maxWindow {
		return 0, invalid("the xz stream needs %s of memory to unpack, and %s are the limit; pack it again with: xz -9", store.Bytes(dict), store.Bytes(maxWindow))
	}
	for r.Len() > 0 {
		if b, _ := r.ReadByte(); b != 0 {
			return 0, errXZ
		}
	}
	return max(dict, lzma.MinDictCap), nil
}

func (b *xzBlock) read(x *xzReader, p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.done += int64(n)
	x.out += int64(n)
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	if b.unpacked >= 0 && b.done > b.unpacked || b.packed >= 0 && x.count-b.from > b.packed {
		return 0, errXZ
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	return n, b.close(x)
}

// close checks what stands behind a block and adds its sizes to the stream's.
func (b *xzBlock) close(x *xzReader) error {
	packed := x.count - b.from
	if b.unpacked >= 0 && b.done != b.unpacked || b.packed >= 0 && packed != b.packed {
		return errXZ
	}
	pad := make([]byte, -packed&3+int64(b.sumSize))
	if err := x.take(pad); err != nil {
		return err
	}
	sum := pad[len(pad)-b.sumSize:]
	if bytes.Count(pad[:len(pad)-b.sumSize], []byte{0}) != len(pad)-b.sumSize {
		return errXZ
	}
	if b.sum != nil {
		want := b.sum.Sum(nil)
		if b.reversed {
			for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
				want[i], want[j] = want[j], want[i]
			}
		}
		if !bytes.Equal(want, sum) {
			return errXZSum
		}
	}
	x.record(0, uint64(b.header+packed+int64(b.sumSize)), uint64(b.done))
	x.n++
	x.block = nil
	return nil
}

// record adds a block's sizes to a sum: to compare the sums is to compare the
// lists, in no memory.
func (x *xzReader) record(which int, unpadded, unpacked uint64) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], unpadded)
	binary.LittleEndian.PutUint64(b[8:], unpacked)
	x.sums[which].Write(b[:])
}

// closeStream checks the index, which began at from, and the footer.
func (x *xzReader) closeStream(from int64) error {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	r := &summed{x, sum}
	n, err := xzNumber(r)
	if err != nil {
		return err
	}
	if n != x.n {
		return errXZ
	}
	for range n {
		unpadded, err := xzNumber(r)
		if err != nil {
			return err
		}
		unpacked, err := xzNumber(r)
		if err != nil {
			return err
		}
		x.record(1, unpadded, unpacked)
	}
	for (x.count-from)%4 != 0 {
		if b, err := r.ReadByte(); err != nil || b != 0 {
			return errors.Join(errXZ, err)
		}
	}
	var tail [4 + xzHeaderSize]byte
	if err := x.take(tail[:]); err != nil {
		return err
	}
	if sum.Sum32() != binary.LittleEndian.Uint32(tail[:]) || !bytes.Equal(x.sums[0].Sum(nil), x.sums[1].Sum(nil)) {
		return errXZSum
	}
	check, size, err := xzFooter(tail[4:])
	if err != nil {
		return err
	}
	if check != x.check || size != x.count-xzHeaderSize-from {
		return errXZ
	}
	return nil
}

// summed reads bytes and adds them to a checksum.
type summed struct {
	r   io.ByteReader
	sum io.Writer
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

// xzNumber reads a number of up to 63 bits, seven in a byte.
func xzNumber(r io.ByteReader) (uint64, error) {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, noEOF(err)
		}
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 {
				return 0, errXZ
			}
			return n, nil
		}
	}
	return 0, errXZ
}

// xzFooter reads the end of a stream: its sort of checksum and the size of its
// index in bytes.
func xzFooter(b []byte) (check byte, index int64, err error) {
	le := binary.LittleEndian
	if string(b[10:]) != xzFootMagic || b[8] != 0 || b[9] > 15 {
		return 0, 0, errXZ
	}
	if crc32.ChecksumIEEE(b[4:10]) != le.Uint32(b) {
		return 0, 0, errXZSum
	}
	return b[9], (int64(le.Uint32(b[4:])) + 1) * 4, nil
}

// xzSize adds up what the indexes of all streams say, from the last to the
// first. Reading the streams compares it with what is there.
func xzSize(r io.ReaderAt, size int64) (int64, error) {
	var total int64
	streams, padding := 0, 0
	for end := size; end > 0; {
		var b [xzHeaderSize]byte
		if end < 2*xzHeaderSize || padding > xzMaxPadding {
			return 0, broken(FormatXZ, 0, errXZ)
		}
		if err := readFull(r, b[:], end-xzHeaderSize); err != nil {
			return 0, err
		}
		if binary.LittleEndian.Uint32(b[8:]) == 0 { // four zeros between streams or behind the last
			end, padding = end-4, padding+4
			continue
		}
		n, begin, err := xzStreamSize(r, b[:], end)
		if err != nil {
			if streams == 0 {
				err = io.ErrUnexpectedEOF // no footer where the file ends
			}
			return 0, broken(FormatXZ, 0, err)
		}
		if total += n; total > store.MaxVolumeSize {
			return 0, invalid("the xz stream unpacks to more than a volume has at most, %s", store.Bytes(store.MaxVolumeSize))
		}
		end, streams = begin, streams+1
	}
	return total, nil
}

// xzStreamSize reads the index of the stream whose footer ends at end, and
// returns what it unpacks to and where it begins.
func xzStreamSize(r io.ReaderAt, footer []byte, end int64) (total, begin int64, err error) {
	_, size, err := xzFooter(footer)
	if err != nil {
		return 0, 0, err
	}
	at := end - xzHeaderSize - size
	if size > xzMaxIndex || at < xzHeaderSize {
		return 0, 0, errXZ
	}
	in := bufio.NewReader(io.NewSectionReader(r, at, size))
	if b, err := in.ReadByte(); err != nil || b != 0 {
		return 0, 0, errors.Join(errXZ, err)
	}
	n, err := xzNumber(in)
	if err != nil {
		return 0, 0, err
	}
	var packed int64
	for range n {
		unpadded, err := xzNumber(in)
		if err != nil {
			return 0, 0, err
		}
		unpacked, err := xzNumber(in)
		if err != nil {
			return 0, 0, err
		}
		if int64(unpadded) > at || int64(unpacked) > store.MaxVolumeSize {
			return 0, 0, errXZ
		}
		packed += int64(unpadded) + -int64(unpadded)&3
		total += int64(unpacked)
		if packed > at || total > store.MaxVolumeSize {
			return 0, 0, errXZ
		}
	}
	if begin = at - packed - xzHeaderSize; begin < 0 {
		return 0, 0, errXZ
	}
	return total, begin, nil
}
