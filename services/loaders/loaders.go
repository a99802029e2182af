// Package loaders holds the network boot programs that machines fetch: iPXE
// for each firmware and architecture, embedded in the program, found in
// Debian's package or given by the operator.
//
// A file is known by its name in services/boot and by nothing else, so no name
// from a request ever reaches the file system. It knows no protocol: TFTP and
// HTTP ask it for bytes.
package loaders

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lunboot/services/boot"
)

//go:embed all:embedded
var embedded embed.FS

// maxLoader bounds one file; the largest iPXE build is about 2 MiB.
const maxLoader = 16 << 20

// debianPlaces is where Debian's package ipxe puts its files.
var debianPlaces = map[boot.Loader][]string{
	boot.Undionly:  {"/usr/lib/ipxe/undionly.kpxe"},
	boot.Undionly2: {"/usr/lib/ipxe/undionly.kkpxe"},
	boot.IPXEPXE:   {"/usr/lib/ipxe/ipxe.pxe"},
	boot.SNPOnly:   {"/usr/lib/ipxe/snponly.efi"},
	boot.IPXEEFI:   {"/boot/ipxe.efi", "/usr/lib/ipxe/ipxe.efi"},
	boot.IPXEARM64: {"/usr/lib/ipxe/ipxe-arm64.efi"},
}

// license is what iPXE is under; its files may be used under the UBDL too.
const license = "GPL-2.0-or-later"

// Info describes one loader, as pages and the CLI show it.
type Info struct {
	Name     boot.Loader `json:"name"`
	Firmware string      `json:"firmware"`
	Arch     string      `json:"arch"`
	Version  string      `json:"version"` // empty when the file does not say
	License  string      `json:"license"`
	Size     int64       `json:"size"`
	SHA256   string      `json:"sha256"`
	Source   string      `json:"source"` // "embedded" or the file's path
}

// Set is the loaders of one running appliance. It never changes after Load.
type Set struct {
	data map[boot.Loader][]byte
	info map[boot.Loader]Info
}

// places says where Load looks; tests give their own.
type places struct {
	embedded fs.FS
	debian   map[boot.Loader][]string
	dpkg     string // dpkg's status file, for the version
}

// Load reads every loader: from dir when it is not empty and has the file, else
// the embedded one, else the one of Debian's package. A file in dir that is not
// what its name says is an error, because the operator put it there on purpose;
// elsewhere it is logged and passed over.
func Load(dir string, log *slog.Logger) (*Set, error) {
	sub, err := fs.Sub(embedded, "embedded")
	if err != nil {
		return nil, fmt.Errorf("read the embedded loaders: %w", err)
	}
	return load(dir, places{embedded: sub, debian: debianPlaces, dpkg: "/var/lib/dpkg/status"}, log)
}

func load(dir string, p places, log *slog.Logger) (*Set, error) {
	s := &Set{data: map[boot.Loader][]byte{}, info: map[boot.Loader]Info{}}
	if dir != "" {
		if err := checkDir(dir, log); err != nil {
			return nil, err
		}
	}
	for _, name := range boot.Loaders() {
		if dir != "" {
			path := filepath.Join(dir, string(name))
			data, err := readFile(path)
			if err == nil {
				err = Check(name, data)
			}
			switch {
			case err == nil:
				s.add(name, data, path, "", "as supplied")
				continue
			case !errors.Is(err, fs.ErrNotExist):
				return nil, fmt.Errorf("loader %s: %w; replace it or remove it", path, err)
			}
		}
		if data, err := fs.ReadFile(p.embedded, string(name)); err == nil {
			if err := Check(name, data); err != nil {
				log.Error("an embedded loader was passed over", "loader", name, "reason", err)
			} else {
				version, _ := fs.ReadFile(p.embedded, "VERSION")
				s.add(name, data, "embedded", strings.TrimSpace(string(version)), license)
				continue
			}
		}
		for _, path := range p.debian[name] {
			data, err := readFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = Check(name, data)
			}
			if err != nil {
				log.Warn("a loader was passed over", "file", path, "reason", err)
				continue
			}
			s.add(name, data, path, debianVersion(p.dpkg), license)
			break
		}
	}
	return s, nil
}

// checkDir says when dir cannot be read, and logs what lies in it and is not
// used, so that a misspelt name is found.
func checkDir(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the loaders' folder: %w; --loaders names a folder with files such as %s", err, boot.Undionly)
	}
	for _, e := range entries {
		if _, err := boot.ParseLoader(e.Name()); err != nil {
			log.Warn("not a loader's name, so not used", "file", filepath.Join(dir, e.Name()), "names", boot.Loaders())
		}
	}
	return nil
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
	data, err := io.ReadAll(io.LimitReader(f, maxLoader+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxLoader {
		return nil, fmt.Errorf("it is larger than %d MiB, which no loader is", maxLoader>>20)
	}
	return data, nil
}

func (s *Set) add(name boot.Loader, data []byte, source, version, lic string) {
	if v := versionIn(data); v != "" {
		version = v
	}
	sum := sha256.Sum256(data)
	p := name.Platform()
	s.data[name] = data
	s.info[name] = Info{
		Name: name, Firmware: p.Firmware.String(), Arch: p.Arch.String(), Version: version, License: lic,
		Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Source: source,
	}
}

// Open returns a loader's bytes, which the caller must not change.
func (s *Set) Open(name boot.Loader) ([]byte, bool) {
	data, ok := s.data[name]
	return data, ok
}

// Manifest lists what there is, in the order of boot.Loaders.
func (s *Set) Manifest() []Info {
	var out []Info
	for _, name := range boot.Loaders() {
		if i, ok := s.info[name]; ok {
			out = append(out, i)
		}
	}
	return out
}

// Absent lists the loaders that there are not.
func (s *Set) Absent() []boot.Loader {
	return slices.DeleteFunc(boot.Loaders(), func(l boot.Loader) bool { _, ok := s.data[l]; return ok })
}

// Missing says which machines cannot start because their loader is not there,
// and how to get it; it is empty when BIOS and 64-bit UEFI machines can. The
// other architectures need files that no Debian package has; Absent lists them.
func (s *Set) Missing() string {
	var who []string
	for _, need := range []struct {
		loader boot.Loader
		who    string
	}{{boot.Undionly, "BIOS machines"}, {boot.SNPOnly, "UEFI x86-64 machines"}} {
		if _, ok := s.data[need.loader]; !ok {
			who = append(who, fmt.Sprintf("%s (%s)", need.who, need.loader))
		}
	}
	if len(who) == 0 {
		return ""
	}
	return "There is no loader for " + strings.Join(who, " and ") +
		". Install one with `apt-get install ipxe`, or put the file into a folder and start with --loaders DIR."
}

// versionPattern is iPXE's own version at the end of a C string; EFI files carry
// it in clear, BIOS files are packed.
var versionPattern = regexp.MustCompile(`(?:\d+\.\d+\.\d+\+[A-Za-z0-9.~+-]{4,60}|\d+\.\d+\.\d+ \([0-9a-f]{4,12}\))$`)

// maxVersion is longer than any version.
const maxVersion = 96

// versionIn looks at the ends of the file's strings only: to try the pattern at
// each byte of a few MiB would be most of a start's work.
func versionIn(data []byte) string {
	for text := range bytes.SplitSeq(data, []byte{0}) {
		end := text[max(0, len(text)-maxVersion):]
		if bytes.IndexByte(end, '.') < 0 || !bytes.ContainsAny(end, "+(") {
			continue
		}
		if v := versionPattern.Find(end); v != nil {
			return string(v)
		}
	}
	return ""
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
