package scripts

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
)

// debianVolume is the name of the RAM disk that is handed to Debian's installer
// behind its own: it makes the volume that the iBFT names a disk of the installer's.
const debianVolume = "volume.gz"

//go:embed installer/debian-volume
var debianScript string

// debianArchive is that RAM disk: one program ("newc":
// Documentation/driver-api/early-userspace/buffer-format.rst). Its folder is in the
// installer's own RAM disk; entries for folders would take the place of what are
// links in later releases. It is packed, since a kernel takes one that is not only
// where it is aligned, and on UEFI it lies right behind the one before.
func debianArchive() (string, error) {
	var b bytes.Buffer
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	entry := func(name string, mode int, data string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad()
		b.WriteString(data)
		pad()
	}
	entry("lib/debian-installer-startup.d/S99volume", 0o100755, debianScript)
	entry("TRAILER!!!", 0, "")
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b.Bytes())
	if err = errors.Join(err, z.Close()); err != nil {
		return "", fmt.Errorf("packing %s: %w", debianVolume, err)
	}
	return out.String(), nil
}
