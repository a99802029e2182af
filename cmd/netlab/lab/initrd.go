package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cpio is an archive that the kernel unpacks as its first root file system
// ("newc": Documentation/driver-api/early-userspace/buffer-format.rst).
type cpio struct {
	out  bytes.Buffer
	seen map[string]bool
	ino  int
}

// Modes of cpio entries (inode(7)).
const (
	modeDir  = 0o040755
	modeFile = 0o100755
	modeChar = 0o020600
)

func newCPIO() *cpio { return &cpio{seen: map[string]bool{}} }

func (c *cpio) entry(name string, mode, major, minor int, data []byte) {
	c.ino++
	fmt.Fprintf(&c.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.out.WriteString(name + "\x00")
	c.pad()
	c.out.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.out.Len()%4 != 0 {
		c.out.WriteByte(0)
	}
}

func (c *cpio) dir(name string) {
	if name == "." || c.seen[name] {
		return
	}
	c.dir(filepath.Dir(name))
	c.seen[name] = true
	c.entry(name, modeDir, 0, 0, nil)
}

func (c *cpio) file(name string, data []byte) {
	if c.seen[name] {
		return
	}
	c.dir(filepath.Dir(name))
	c.seen[name] = true
	c.entry(name, modeFile, 0, 0, data)
}

func (c *cpio) bytes() []byte {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.out.Bytes()
}

// libraryDirs is where a shared library is looked for: first what was
// unpacked, then the host's own, which the same release's packages were built
// against.
func libraryDirs(unpackedDir string) []string {
	var dirs []string
	for _, root := range []string{unpackedDir, "/"} {
		for _, dir := range []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"} {
			dirs = append(dirs, filepath.Join(root, dir))
		}
	}
	return dirs
}

// programs returns the files, by their path in the guest, that programs need
// to run there: themselves, the dynamic loader and every library.
func programs(unpackedDir string, paths ...string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var need []string
	dirs := libraryDirs(unpackedDir)
	add := func(guest, host string) error {
		b, err := os.ReadFile(host)
		if err != nil {
			return err
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		libraries, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		// Some packages keep libraries of their own where only their RUNPATH
		// says (ld.so(8)).
		own, err := f.DynString(elf.DT_RUNPATH)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		for _, list := range own {
			dirs = append(dirs, strings.Split(list, ":")...)
		}
		files[guest] = b
		need = append(need, libraries...)
		return nil
	}
	for _, path := range paths {
		if err := add(path, filepath.Join(unpackedDir, path)); err != nil {
			return nil, err
		}
	}
	const loader = "ld-linux-x86-64.so.2"
	if err := add("lib64/"+loader, "/lib64/"+loader); err != nil {
		return nil, err
	}
	for len(need) > 0 {
		name := need[0]
		need = need[1:]
		guest := "lib/x86_64-linux-gnu/" + name
		if name == loader || files[guest] != nil {
			continue
		}
		i := slices.IndexFunc(dirs, func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		})
		if i < 0 {
			return nil, fmt.Errorf("%s needs the library %s, which no installed package has", strings.Join(paths, ", "), name)
		}
		if err := add(guest, filepath.Join(dirs[i], name)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// guestModules is what the guest needs of the kernel. crc32c comes first: ext4
// and iSCSI ask the crypto API for it by name, and no modprobe answers there.
var guestModules = []string{"crc32c_generic", "virtio_pci", "virtio_net", "iscsi_ibft", "iscsi_tcp", "sd_mod", "ext4"}

// modules returns the wanted kernel modules and what they need, in the order
// in which they can be inserted.
func modules(kernelDir string, wanted ...string) (names []string, images map[string][]byte, err error) {
	paths := map[string]string{}
	err = filepath.WalkDir(kernelDir, func(path string, d fs.DirEntry, err error) error {
		if name, found := strings.CutSuffix(d.Name(), ".ko"); found {
			paths[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(kernelDir, "modules.builtin"))
	if err != nil {
		return nil, nil, err
	}
	for path := range strings.FieldsSeq(string(builtin)) {
		paths[moduleName(strings.TrimSuffix(filepath.Base(path), ".ko"))] = ""
	}
	images = map[string][]byte{}
	var visit func(name string) error
	visit = func(name string) error {
		path, known := paths[moduleName(name)]
		if !known {
			return fmt.Errorf("%s has no module %s", kernelDir, name)
		}
		file := filepath.Base(path)
		if path == "" || images[file] != nil {
			return nil
		}
		image, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(image)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		images[file] = image
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		names = append(names, file)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, nil, err
		}
	}
	return names, images, nil
}

// moduleName folds the two spellings of a module's name.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// moduleDepends reads the names that a module's .modinfo section says it
// depends on.
func moduleDepends(image []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, found := bytes.CutPrefix(field, []byte("depends=")); found && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

// buildInitrd makes the guest's initial RAM disk: the guest program as /init,
// iscsistart and the modules.
func buildInitrd(unpackedDir, kernelDir string, guest []byte) ([]byte, error) {
	c := newCPIO()
	for _, dir := range []string{"dev", "proc", "sys", "run", "sysroot", "etc/iscsi"} {
		c.dir(dir)
	}
	// init's standard streams, before devtmpfs is mounted.
	c.entry("dev/console", modeChar, 5, 1, nil)
	c.file("init", guest)
	files, err := programs(unpackedDir, "sbin/iscsistart")
	if err != nil {
		return nil, err
	}
	order, images, err := modules(kernelDir, guestModules...)
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(files) {
		c.file(name, files[name])
	}
	for _, name := range order {
		c.file("modules/"+name, images[name])
	}
	c.file("modules/order", []byte(strings.Join(order, "\n")+"\n"))
	return c.bytes(), nil
}
