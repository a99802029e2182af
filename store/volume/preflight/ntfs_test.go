package preflight

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// Where mkntfs puts the root folder's record and the block of its index on 2 MiB.
const (
	rootAt  = 21504
	indexAt = 282624
)

// ntfs puts the parts of a file system that mkntfs made into an active partition,
// with boot code of Windows' in it.
func (i *image) ntfs(parts string) *image {
	i.t.Helper()
	return i.put(mib, parts[:0x54]+strings.Repeat("x", 510-0x54)+"\x55\xaa").put(mib+0x202, string(wide("BOOTMGR"))).put(mib+0x2a0, string(wide("NTLDR"))).
		put(mib+rootAt, parts[512:1536]).put(mib+indexAt, parts[1536:])
}

// Windows Setup formats its disk long before it has put anything on it that starts.
func TestAFormattedDiskOfWindowsStartsNothing(t *testing.T) {
	on := func(parts string) *image {
		return newImage(t, 64*mib).mbr(linux(2048, true)).first(dos).ntfs(parts)
	}
	before, after := golden(t, "ntfs-before.bin"), golden(t, "ntfs-after.bin")
	const lacks = "starts BOOTMGR in its active partition, and that file is not there"
	for what, c := range map[string]struct {
		disk *image
		why  string
	}{
		"formatted":                          {on(before), lacks},
		"Setup came to its end":              {on(after), ""},
		"other code":                         {on(before).put(mib+0x202, strings.Repeat("x", 400)), ""},
		"a root that makes no sense":         {on(before).put(mib+rootAt, "BAAD"), ""},
		"a root that was written in part":    {on(before).put(mib+rootAt+510, "zz"), ""},
		"an index that was written in part":  {on(after).put(mib+indexAt+510, "zz"), lacks},
		"an older Windows, and another name": {on(after).put(mib+0x202, strings.Repeat("x", 14)), "starts NTLDR in its active partition"},
		"one that knows no NTLDR":            {on(before).put(mib+0x2a0, strings.Repeat("x", 10)), lacks},
		"its table lies behind the disk":     {on(before).put(mib+0x30, "\xff\xff\xff\xff\xff"), ""},
		"clusters of no size":                {on(before).put(mib+13, "\x00"), ""},
		"clusters by a power of two":         {on(before).put(mib+13, "\xfd"), lacks},
		"records of a size that is too much": {on(before).put(mib+64, "\xe0"), ""},
	} {
		p := c.disk.look(512)
		if p.BIOS.OK != (c.why == "") || !strings.Contains(p.BIOS.Why, c.why) {
			t.Errorf("%s: %+v", what, p.BIOS)
		}
	}
}

// Whatever stands in a root folder, reading it ends, without a panic and without
// reading much.
func FuzzNTFS(f *testing.F) {
	for _, at := range []uint16{0, 512, 512 + 0x14, 512 + 0x100, 1536 + 0x18, 1536 + 0x40} {
		f.Add(at, []byte{1, 2, 3, 4})
	}
	f.Add(uint16(512+0x1a0), bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, at uint16, data []byte) {
		parts := []byte(golden(t, "ntfs-before.bin"))
		copy(parts[int(at)%len(parts):], data)
		b := make([]byte, 2<<20)
		copy(b, parts[:512])
		copy(b[0x202:], wide("BOOTMGR"))
		copy(b[rootAt:], parts[512:1536])
		copy(b[indexAt:], parts[1536:])
		c := &counting{ReaderAt: bytes.NewReader(b)}
		d := &disk{r: c, size: int64(len(b)), block: 512}
		name, err := d.lacking(0)
		if err != nil || c.n > 4*mib || name != "" && !slices.Contains(ntfsStarters, name) {
			t.Errorf("%q, %v, %d bytes read", name, err, c.n)
		}
	})
}

func TestNumbersOfAFewBytes(t *testing.T) {
	for want, b := range map[int64][]byte{0: {0}, 69: {0x45}, -1: {0xff}, -2: {0xfe, 0xff}, 0x8000: {0x00, 0x80, 0x00}, 1 << 40: binary.LittleEndian.AppendUint64(nil, 1<<40)[:6]} {
		if got := signed(b); got != want {
			t.Errorf("%x is %d, want %d", b, got, want)
		}
	}
}
