package inventory

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lunboot/store"
)

// program runs a tool that makes images. One that is missing skips on a laptop
// and fails in CI.
func program(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// patchy is a disk with data at its ends and a long hole between them.
func patchy() []byte {
	b := make([]byte, 24<<20)
	copy(b, someBytes(300_000))
	copy(b[23<<20:], someBytes(1<<20))
	return b
}

// images makes an image file of every format that tools make, of one disk.
func images(t *testing.T, disk []byte) map[string]string {
	t.Helper()
	raw := imageFile(t, disk)
	dir := t.TempDir()
	out := map[string]string{"raw": raw}
	for name, args := range map[string][]string{
		"qcow2":       {"-O", "qcow2"},
		"qcow2-zlib":  {"-c", "-O", "qcow2"},
		"qcow2-zstd":  {"-c", "-O", "qcow2", "-o", "compression_type=zstd"},
		"vhdx":        {"-O", "vhdx", "-o", "block_size=1M"},
		"vhd":         {"-O", "vpc", "-o", "force_size=on"},
		"vhd-fixed":   {"-O", "vpc", "-o", "force_size=on,subformat=fixed"},
		"vmdk":        {"-O", "vmdk"},
		"vmdk-packed": {"-O", "vmdk", "-o", "subformat=streamOptimized"},
	} {
		out[name] = filepath.Join(dir, name)
		program(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), raw, out[name])...)
	}
	for name, args := range map[string][]string{
		"gzip": {"gzip", "-k", "-1", "-c"}, "xz": {"xz", "-k", "-0", "-c"}, "zstd": {"zstd", "-q", "-c"},
	} {
		out[name] = filepath.Join(dir, name)
		program(t, "sh", "-c", `out=$1; shift; exec "$@" >"$out"`, "sh", out[name], args[0], args[1], args[2], args[len(args)-1], raw)
	}
	return out
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

func TestEveryFormatBecomesTheSameVolume(t *testing.T) {
	h := newHouse(t)
	disk := patchy()
	check := func(name, path string, v store.Volume) {
		t.Helper()
		if v.State != store.VolumeReady || v.Size != int64(len(disk)) {
			t.Fatalf("%s: the volume is %+v", name, v)
		}
		if got := h.content(t, v); !bytes.Equal(got, disk) {
			t.Errorf("%s: the volume differs from the disk in the image", name)
		}
		fi, err := os.Stat(filepath.Join(h.dir, "volumes", v.Path))
		must(t, err)
		if n := fi.Sys().(*syscall.Stat_t).Blocks * 512; n > 3<<20 {
			t.Errorf("%s: %d bytes are taken for less than 1.5 MiB of data", name, n)
		}
		if want := "sha256:" + sumOf(t, path); !strings.HasSuffix(v.From, want) {
			t.Errorf("%s: it is from %q, not %s", name, v.From, want)
		}
	}
	for name, path := range images(t, disk) {
		_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "file-" + name}, SHA256: strings.ToUpper(sumOf(t, path))}, path)
		must(t, err)
		if job, err = h.Wait(t.Context(), job.ID); err != nil || job.State != store.JobDone || job.Done != job.Total {
			t.Fatalf("%s: the job is %+v, %v", name, job, err)
		}
		v, err := h.FindVolume(t.Context(), "file-"+name)
		must(t, err)
		check(name, path, v)

		b, err := os.ReadFile(path)
		must(t, err)
		if v, err = h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "sent-" + name}}, filepath.Base(path), bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(name, path, v)
	}
}

func TestAnImageWithAnotherSumLeavesNothing(t *testing.T) {
	h := newHouse(t)
	files := h.files(t)
	wrong := strings.Repeat("ab", 32)
	for name, path := range images(t, patchy()) {
		spec := store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "v-" + name}, SHA256: wrong}
		v, job, err := h.ImportFile(t.Context(), ada, spec, path)
		must(t, err)
		job, err = h.Wait(t.Context(), job.ID)
		must(t, err)
		if job.State != store.JobFailed || !strings.Contains(job.Error, sumOf(t, path)) || !strings.Contains(job.Error, wrong) {
			t.Errorf("%s: the job is %+v", name, job)
		}
		must(t, h.RemoveVolume(t.Context(), ada, v.ID))
		if got := h.files(t); got != files {
			t.Errorf("%s: it leaves %q", name, got)
		}
		b, err := os.ReadFile(path)
		must(t, err)
		_, err = h.ImportStream(t.Context(), ada, spec, "", bytes.NewReader(b), int64(len(b)))
		wantSentence(t, err, store.KindInvalid, "SHA-256", wrong)
		if len(h.Uploads()) != 0 || h.files(t) != files {
			t.Errorf("%s: the upload leaves %v, %q", name, h.Uploads(), h.files(t))
		}
	}
	h.wantRefusal(t, store.KindInvalid, []string{"64 hexadecimal"}, func() error {
		_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "x"}, SHA256: "abc"}, imageFile(t, someBytes(512)))
		return err
	})
}

func TestTheNamedFormatMustBeTrueAndRawIsTakenAtItsWord(t *testing.T) {
	h := newHouse(t)
	all := images(t, patchy())
	for format, path := range map[string]string{"qcow2": all["raw"], "vmdk": all["qcow2"], "xz": all["gzip"]} {
		h.wantRefusal(t, store.KindInvalid, []string{"not " + format}, func() error {
			_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "x"}, Format: format}, path)
			return err
		})
	}
	b, err := os.ReadFile(all["qcow2"])
	must(t, err)
	_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "asis"}, Format: "raw"}, all["qcow2"])
	must(t, err)
	_, err = h.Wait(t.Context(), job.ID)
	must(t, err)
	v, err := h.FindVolume(t.Context(), "asis")
	must(t, err)
	if got := h.content(t, v); !bytes.Equal(got[:len(b)], b) {
		t.Error("raw bytes are not as they were")
	}
}

func TestABrokenImageLeavesNothing(t *testing.T) {
	h := newHouse(t)
	files := h.files(t)
	for name, path := range images(t, patchy()) {
		if name == "raw" || name == "vhd-fixed" {
			continue // half a raw disk is one, and so is a fixed VHD without its footer
		}
		fi, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, fi.Size()/2))
		v, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "v"}}, path)
		if err == nil {
			job, err = h.Wait(t.Context(), job.ID)
			must(t, err)
			if job.State != store.JobFailed {
				t.Errorf("%s: the job is %+v", name, job)
			}
			must(t, h.RemoveVolume(t.Context(), ada, v.ID))
			err = errors.New(job.Error)
		}
		if !strings.Contains(err.Error(), "cut short") && !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: it is refused with %q", name, err)
		}
		if got := h.files(t); got != files {
			t.Errorf("%s: it leaves %q", name, got)
		}
	}
}

func TestWhoMayNotReadTheAppliancesFilesImportsFromTheFoldersForImages(t *testing.T) {
	folder, elsewhere := t.TempDir(), imageFile(t, someBytes(4096))
	h := newHouse(t, func(c *Config) { c.Images = []string{folder} })
	must(t, os.Mkdir(filepath.Join(folder, "linux"), 0o700))
	must(t, os.WriteFile(filepath.Join(folder, "linux/debian.img"), someBytes(4096), 0o600))
	must(t, os.Symlink(elsewhere, filepath.Join(folder, "out.img")))
	for name, path := range map[string]string{"elsewhere": elsewhere, "above": filepath.Join(folder, "..", "x"), "up": "../x", "through a link": "out.img", "by its full name": filepath.Join(folder, "out.img")} {
		t.Run(name, func(t *testing.T) {
			h.wantRefusal(t, store.KindInvalid, nil, func() error {
				_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "x"}}, path)
				return err
			})
		})
	}
	for k, path := range []string{"linux/debian.img", filepath.Join(folder, "linux/debian.img")} {
		_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: fmt.Sprintf("v-%d", k)}}, path)
		must(t, err)
		if job, err = h.Wait(t.Context(), job.ID); err != nil || job.State != store.JobDone {
			t.Errorf("%s: %+v, %v", path, job, err)
		}
	}
	_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "mine"}, Anywhere: true}, elsewhere)
	must(t, err)
}
