package disc

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a folder like an installer's disc: long and deep names, links, a
// folder of many files, empty files.
func tree(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	noise := rand.NewChaCha8([32]byte{1})
	files = map[string][]byte{
		"install.amd/vmlinuz":   make([]byte, 300_001),
		"install.amd/initrd.gz": make([]byte, 2_000_000),
		".disk/info":            []byte("Debian GNU/Linux 12.5.0\n"),
		"empty":                 {},
		"a file with a rather long name, such as packages have, 1.2.3-4+deb12u1_amd64.deb": []byte("long"),
		"one/two/three/four/five/six/seven/eight/nine/ten/deep":                            []byte("deep"),
		"accentué/" + strings.Repeat("n", 100) + "/" + strings.Repeat("x", 100) + ".udeb":  []byte("names"),
	}
	for i := range 500 {
		files[fmt.Sprintf("pool/main/package-%03d_1.0_all.deb", i)] = fmt.Appendf(nil, "package %d", i)
	}
	for name, b := range files {
		if len(b) > 1000 {
			noise.Read(b)
		}
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"debian": ".", "stable": "one/two", "one/back": "../install.amd/vmlinuz"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, files
}

// image has a program of Debian's make the disc.
func image(t *testing.T, dir, program string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", program)
		}
		t.Skipf("%s is missing", program)
	}
	out := filepath.Join(t.TempDir(), "disc.iso")
	if b, err := exec.Command(path, append(args, "-o", out, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, b []byte) *Disc {
	t.Helper()
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEveryFileOfADiscReadsAsItWas(t *testing.T) {
	dir, files := tree(t)
	for name, c := range map[string]struct {
		program string
		args    []string
		system  string
		links   bool
	}{
		"Rock Ridge, xorriso":                {"xorriso", []string{"-as", "mkisofs", "-R", "-V", "LABEL 1"}, "ISO 9660", true},
		"Rock Ridge and Joliet, genisoimage": {"genisoimage", []string{"-quiet", "-R", "-J", "-joliet-long", "-V", "LABEL 1"}, "ISO 9660", true},
		"Joliet alone, genisoimage":          {"genisoimage", []string{"-quiet", "-f", "-J", "-joliet-long", "-D", "-V", "LABEL 1", "-m", "debian", "-m", "stable", "-m", "back"}, "ISO 9660", false},
		"UDF, genisoimage":                   {"genisoimage", []string{"-quiet", "-f", "-udf", "-D", "-iso-level", "3", "-V", "LABEL 1", "-m", "debian", "-m", "stable", "-m", "back"}, "UDF", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := image(t, dir, c.program, c.args...)
			d := open(t, b)
			if d.System != c.system || d.Label != "LABEL 1" {
				t.Errorf("it is %s %q", d.System, d.Label)
			}
			for name, want := range files {
				if strings.Contains(name, "/nnnn") && !c.links && c.system == "ISO 9660" {
					continue // Joliet cuts it
				}
				f, err := d.Open(name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				got, err := io.ReadAll(f)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
					t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
				}
				if off, ok := f.(interface{ Place() (int64, bool) }).Place(); len(want) > 0 && (!ok || !bytes.Equal(b[off:off+int64(len(want))], want)) {
					t.Errorf("%s does not stand at %d", name, off)
				}
				if st, err := f.Stat(); err != nil || st.Size() != int64(len(want)) || st.ModTime().Year() < 2020 {
					t.Errorf("%s: %v, %v", name, st, err)
				}
			}
			all, err := d.ReadDir("pool/main")
			if err != nil || len(all) != 500 {
				t.Errorf("the pool has %d files, %v", len(all), err)
			}
			if c.links {
				for path, want := range map[string]string{"debian/debian/.disk/info": ".disk/info", "one/back": "install.amd/vmlinuz", "stable/three/four/five/six/seven/eight/nine/ten/deep": "one/two/three/four/five/six/seven/eight/nine/ten/deep"} {
					f, err := d.Open(path)
					if err != nil {
						t.Errorf("%s: %v", path, err)
						continue
					}
					if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, files[want]) {
						t.Errorf("%s: %d bytes, %v", path, len(got), err)
					}
				}
			}
			for _, path := range []string{"none", "install.amd/none", "empty/x", "../x", "/empty", ""} {
				if _, err := d.Open(path); err == nil {
					t.Errorf("%q opens", path)
				}
			}
			if !d.Exists("INSTALL.AMD/VMLINUZ") {
				t.Error("a name in capitals is not found")
			}
		})
	}
}

func TestAPlainDiscIsReadByItsCapitals(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"LINUX": "kernel", "INITRD.GZ": "ramdisk"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, image(t, dir, "genisoimage", "-quiet"))
	for name, want := range map[string]string{"linux": "kernel", "initrd.gz": "ramdisk"} {
		if b, err := d.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
}

// A file of more than 4 GiB has several extents (ISO level 3). It is sparse, so
// that it costs nothing.
func TestAFileOfManyExtentsIsOne(t *testing.T) {
	const size = 5<<30 + 12345
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "install.wim"))
	if err != nil {
		t.Fatal(err)
	}
	marks := map[int64]string{0: "first", 1<<32 - 2050: "across the edge of the first extent", size - 4: "last"}
	for off, text := range marks {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("it writes 5 GiB; LUNBOOT_SOAK=1 switches it on")
	}
	out := filepath.Join(t.TempDir(), "disc.iso")
	for _, args := range [][]string{{"-iso-level", "3", "-R"}, {"-allow-limited-size", "-udf"}} {
		if b, err := exec.Command("genisoimage", append(args, "-quiet", "-o", out, dir)...).CombinedOutput(); err != nil {
			t.Fatalf("genisoimage: %v\n%s", err, b)
		}
		img, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		st, _ := img.Stat()
		d, err := Open(img, st.Size())
		if err != nil {
			t.Fatal(err)
		}
		g, err := d.Open("install.wim")
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := g.Stat(); st.Size() != size {
			t.Errorf("%v: it has %d bytes", args, st.Size())
		}
		for off, want := range marks {
			b := make([]byte, len(want))
			if _, err := g.(io.ReaderAt).ReadAt(b, off); err != nil && err != io.EOF || string(b) != want {
				t.Errorf("%v: at %d stands %q, %v", args, off, b, err)
			}
		}
		img.Close()
	}
}

func TestADiscIsAFileSystem(t *testing.T) {
	dir, files := tree(t)
	d := open(t, image(t, dir, "xorriso", "-as", "mkisofs", "-R"))
	f, err := d.Open("install.amd/vmlinuz")
	if err != nil {
		t.Fatal(err)
	}
	s := f.(io.ReadSeeker)
	if end, err := s.Seek(-10, io.SeekEnd); err != nil || end != 299_991 {
		t.Errorf("the end is at %d, %v", end, err)
	}
	if b, err := io.ReadAll(s); err != nil || !bytes.Equal(b, files["install.amd/vmlinuz"][299_991:]) {
		t.Errorf("the last bytes are %x, %v", b, err)
	}
	if _, err := s.Seek(-1, io.SeekStart); err == nil {
		t.Error("a place before the file is sought")
	}
	if g, err := d.Open("pool"); err != nil {
		t.Error(err)
	} else if _, err := g.Read(make([]byte, 1)); err == nil {
		t.Error("a folder is read")
	}
	var names []string
	all, err := d.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if want := ".disk a file with a rather long name, such as packages have, 1.2.3-4+deb12u1_amd64.deb accentué debian empty install.amd one pool stable"; strings.Join(names, " ") != want {
		t.Errorf("the root holds %q", names)
	}
	var _ fs.FS = d
}

// FuzzOpen is given real discs with bytes changed: four bytes of a patch are a
// place among the descriptors and folders, and what stands there then.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	os.MkdirAll(filepath.Join(dir, "boot"), 0o755)
	os.WriteFile(filepath.Join(dir, "boot", "a rather long name of a kernel.img"), []byte("kernel"), 0o644)
	os.Symlink("boot", filepath.Join(dir, "link"))
	var discs [][]byte
	for _, args := range [][]string{{"-R", "-J"}, {"-udf"}, {"-J"}} {
		out := filepath.Join(f.TempDir(), "disc.iso")
		if exec.Command("genisoimage", append(args, "-quiet", "-no-pad", "-f", "-o", out, dir)...).Run() != nil {
			f.Skip("genisoimage is missing")
		}
		b, err := os.ReadFile(out)
		if err != nil {
			f.Fatal(err)
		}
		discs = append(discs, b)
	}
	f.Add(uint8(0), []byte{0, 0, 0, 0})
	f.Add(uint8(1), []byte{0, 8, 40, 255})
	f.Add(uint8(2), []byte{0, 1, 40, 255, 0, 2, 10, 200})
	f.Fuzz(func(t *testing.T, which uint8, patch []byte) {
		b := slices.Clone(discs[int(which)%len(discs)])
		for ; len(patch) >= 4; patch = patch[4:] {
			at := 16*sector + int(patch[0])<<16 + int(patch[1])<<8 + int(patch[2])
			b[at%len(b)] = patch[3]
		}
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var walk func(string, int)
		left := 200
		walk = func(dir string, depth int) {
			all, err := d.ReadDir(dir)
			if err != nil || depth > 4 {
				return
			}
			for _, e := range all {
				if left--; left < 0 {
					return
				}
				name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
				if e.IsDir() {
					walk(name, depth+1)
					continue
				}
				if g, err := d.Open(name); err == nil {
					io.CopyN(io.Discard, g, 1<<16)
				}
			}
		}
		walk(".", 0)
	})
}
