package loaders

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/tinkerbell/ipxedust/binary"

	"lunboot/services/boot"
	"lunboot/store"
)

//go:embed all:embedded
var embedded embed.FS

// debianPlaces is where Debian's package ipxe puts its files.
var debianPlaces = map[boot.Loader][]string{
	boot.Undionly:  {"/usr/lib/ipxe/undionly.kpxe"},
	boot.Undionly2: {"/usr/lib/ipxe/undionly.kkpxe"},
	boot.IPXEPXE:   {"/usr/lib/ipxe/ipxe.pxe"},
	boot.SNPOnly:   {"/usr/lib/ipxe/snponly.efi"},
	boot.IPXEEFI:   {"/boot/ipxe.efi", "/usr/lib/ipxe/ipxe.efi"},
	boot.IPXEARM64: {"/usr/lib/ipxe/ipxe-arm64.efi"},
}

// places says where Load looks; tests give their own.
type places struct {
	embedded fs.FS
	debian   map[boot.Loader][]string
	dpkg     string                                 // dpkg's status file, for the version
	module   map[boot.Loader]func() ([]byte, error) // of a Go module that is part of the program
}

// moduleSource names where the arm64 loader comes from, and moduleVersion which
// iPXE it is: the file itself says "1.0.0+" alone, its module the commit
// (binary/script/ipxe.commit).
const (
	moduleSource  = "github.com/tinkerbell/ipxedust"
	moduleVersion = "1.0.0+ (0cc8177c)"
)

// armScript goes first in the script that the module's loaders carry, in a place
// that is kept free for it (128 bytes and three). Theirs asks for an address
// once more than is needed. It asks on the card that the firmware booted from,
// whose address iPXE takes over, and chains to what our answer names; whatever
// does not work out falls through to the loader's own way.
const armScript = "isset ${net0/ip} && dhcp net0 || goto iterate-interfaces\nchain --autofree ${filename} && exit ||\n"

func armLoader() ([]byte, error) { return binary.Patch(binary.SNP, []byte(armScript)) }

// Load reads every loader: from dir when it is not empty and has the file, else
// the embedded one, else the one of Debian's package, else the one of the Go
// module. A file in dir that is not what its name says is an error, because the
// operator put it there on purpose; elsewhere it is logged and passed over.
func Load(dir string, log *slog.Logger) (*Set, error) {
	sub, err := fs.Sub(embedded, "embedded")
	if err != nil {
		return nil, fmt.Errorf("read the embedded loaders: %w", err)
	}
	return load(dir, places{
		embedded: sub, debian: debianPlaces, dpkg: "/var/lib/dpkg/status",
		module: map[boot.Loader]func() ([]byte, error){boot.IPXEARM64: armLoader},
	}, log)
}

func load(dir string, p places, log *slog.Logger) (*Set, error) {
	s := &Set{folder: map[boot.Loader]file{}, uploaded: map[boot.Loader]file{}, built: map[boot.Loader]file{}}
	if dir != "" {
		if err := s.loadFolder(dir, log); err != nil {
			return nil, err
		}
	}
	for _, name := range boot.Loaders() {
		if f, ok := p.find(name, log); ok {
			s.built[name] = f
		}
	}
	s.stock()
	return s, nil
}

// loadFolder reads the operator's folder, and logs what lies in it and is not
// used, so that a misspelt name is found.
func (s *Set) loadFolder(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the loaders' folder: %w; --loaders names a folder with files such as %s", err, boot.Undionly)
	}
	for _, e := range entries {
		name, err := boot.ParseLoader(e.Name())
		if err != nil {
			log.Warn("not a loader's name, so not used", "file", filepath.Join(dir, e.Name()), "names", boot.Loaders(), "endings", store.LoaderEndings())
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := readFile(path)
		var f found
		if err == nil {
			f, err = checked(name, data)
		}
		if err != nil {
			return fmt.Errorf("loader %s: %w; replace it or remove it", path, err)
		}
		s.folder[name] = describe(name, data, f, path, "", asSupplied)
	}
	return nil
}

// find reads a built-in loader from the first place that has it.
func (p places) find(name boot.Loader, log *slog.Logger) (file, bool) {
	if data, err := fs.ReadFile(p.embedded, string(name)); err == nil {
		f, err := checked(name, data)
		if err == nil {
			version, _ := fs.ReadFile(p.embedded, "VERSION")
			return describe(name, data, f, "embedded", strings.TrimSpace(string(version)), license), true
		}
		log.Error("an embedded loader was passed over", "loader", name, "reason", err)
	}
	for _, path := range p.debian[name] {
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var f found
		if err == nil {
			f, err = checked(name, data)
		}
		if err != nil {
			log.Warn("a loader was passed over", "file", path, "reason", err)
			continue
		}
		return describe(name, data, f, path, debianVersion(p.dpkg), license), true
	}
	if read := p.module[name]; read != nil {
		data, err := read()
		var f found
		if err == nil {
			f, err = checked(name, data)
		}
		if err == nil {
			return describe(name, data, f, moduleSource, moduleVersion, license), true
		}
		log.Error("a module's loader was passed over", "loader", name, "reason", err)
	}
	return file{}, false
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	return readLoader(f)
}

// readLoader reads up to the largest size that a loader has.
func readLoader(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, store.MaxLoader+1))
	if err != nil {
		return nil, err
	}
	if len(data) > store.MaxLoader {
		return nil, fmt.Errorf("it is larger than %d MiB, which no loader is", store.MaxLoader>>20)
	}
	return data, nil
}

// debianVersion reads the installed package's version from dpkg's status file.
func debianVersion(status string) string {
	text, err := os.ReadFile(status)
	if err != nil {
		return ""
	}
	_, after, found := bytes.Cut(text, []byte("\nPackage: ipxe\n"))
	if !found {
		return ""
	}
	paragraph, _, _ := bytes.Cut(after, []byte("\n\n"))
	for line := range strings.Lines(string(paragraph)) {
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
