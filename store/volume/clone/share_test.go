package clone

import (
	"bytes"
	"slices"
	"testing"

	"lunboot/store/volume/crashfs"
)

// sharing is a file on a file system that shares blocks: it takes note of the runs.
type sharing struct {
	*crashfs.File
	runs *[]Range
}

func (s sharing) Share(from File, off, n int64) error {
	*s.runs = append(*s.runs, Range{off, n})
	b := make([]byte, n)
	if err := ReadFull(from, b, off); err != nil {
		return err
	}
	_, err := s.WriteAt(b, off)
	return err
}

// sharingLayer makes an empty layer over another one, or over a file.
func sharingLayer(t *testing.T, fs *crashfs.FS, name string, under File, id Identity) (*Layer, *[]Range) {
	t.Helper()
	runs := new([]Range)
	data, file := memoryFile(t, fs, name, nil), memoryFile(t, fs, name+".map", nil)
	must(t, Create(data, file, id))
	l, err := Open(sharing{data, runs}, file, under, id, true)
	must(t, err)
	return l, runs
}

const mib = 1 << 20

// Of 2 MiB the first is in runs that are too short to be shared.
func TestOnlyLongRunsAreShared(t *testing.T) {
	fs := crashfs.New(1)
	disk := pattern(2*mib+512, 1)
	parent := memoryFile(t, fs, "parent", disk)
	lower, runs := sharingLayer(t, fs, "lower", parent, identity(2*mib+512, int64(len(disk))))
	write := func(l *Layer, off, n int, seed uint64) {
		copy(disk[off:], pattern(n, seed))
		_, err := l.WriteAt(disk[off:off+n], int64(off))
		must(t, err)
	}
	for off := 0; off < mib; off += shareLeast {
		write(lower, off, shareLeast/2, uint64(off)+2)
	}
	write(lower, mib, shareLeast, 5)
	write(lower, mib+mib/2, shareLeast-Granule, 6)
	upper, _ := sharingLayer(t, fs, "upper", lower, Identity{UUID: parentUUID, Parent: layerUUID, ParentSize: lower.size.Load(), Size: lower.size.Load(), BlockSize: 512})
	merged, mergedRuns := sharingLayer(t, fs, "merged", parent, identity(2*mib+512, int64(len(disk))))
	must(t, Merge(t.Context(), merged, upper, lower, nil, nil))
	if want := []Range{{mib, shareLeast}}; !slices.Equal(*mergedRuns, want) {
		t.Errorf("a merge shared %v, want %v", *mergedRuns, want)
	}
	must(t, lower.Flatten(t.Context(), nil, nil))
	// What lies between the writes of the second region, and behind them.
	if want := []Range{{mib + shareLeast, shareLeast}, {mib + mib/2 + shareLeast - Granule, shareLeast + Granule}}; !slices.Equal(*runs, want) {
		t.Errorf("what stands alone shares %v, want %v", *runs, want)
	}
	for name, l := range map[string]File{"merged": merged, "flat": lower, "its data file": lower.data} {
		if !bytes.Equal(readAll(t, l), disk) {
			t.Errorf("%s: it reads something else", name)
		}
	}
}
