package dbfile

import (
	"debug/elf"
	"slices"
	"testing"
)

// Every commit would else wait for the file system's journal, too.
func TestSQLiteSyncsDataAndNotTheTimeOfChange(t *testing.T) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	imported, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(imported, func(s elf.ImportedSymbol) bool { return s.Name == name })
	}
	if has("fsync") || !has("fdatasync") {
		t.Errorf("imported from libc: fsync is %t, fdatasync is %t", has("fsync"), has("fdatasync"))
	}
}
