package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"lunboot/cmd/netlab/lab/area"
)

// kernelPackage depends on the current kernel's package.
const kernelPackage = "linux-image-cloud-amd64"

// unpackedPackages are downloaded and unpacked for the guest, and not
// installed: the host keeps its own kernel and gets no daemon.
var unpackedPackages = []string{"open-iscsi", "libopeniscsiusr", "libisns0", "busybox-static"}

// recipe is how an image is made: when this source changes, so does the key of
// the cache.
//
//go:embed image.go initrd.go
var recipe embed.FS

// CacheDir is where images are kept between runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("LUNBOOT_LAB_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place for the lab's images: %w; set LUNBOOT_LAB_CACHE", err)
	}
	return filepath.Join(dir, "lunboot-lab"), nil
}

// version is one package at one version.
type version struct{ Name, Version string }

// versions asks apt's lists which packages the guest is made of.
func versions(ctx context.Context) ([]version, error) {
	out, err := Run(ctx, Command{Path: "apt-cache", Args: append([]string{"show", "--no-all-versions", kernelPackage}, unpackedPackages...)})
	if err != nil {
		return nil, fmt.Errorf("looking up the guest's packages (run apt-get update first): %w", err)
	}
	var list []version
	for stanza := range strings.SplitSeq(string(out), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			if key, value, found := strings.Cut(strings.TrimSpace(line), ": "); found && fields[key] == "" {
				fields[key] = value
			}
		}
		switch name := fields["Package"]; name {
		case "":
		case kernelPackage: // Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
			kernel, rest, found := strings.Cut(fields["Depends"], " (= ")
			if !found {
				return nil, fmt.Errorf("%s depends on %q, which names no kernel", kernelPackage, fields["Depends"])
			}
			v, _, _ := strings.Cut(rest, ")")
			list = append(list, version{kernel, v})
		default:
			list = append(list, version{name, fields["Version"]})
		}
	}
	if len(list) != 1+len(unpackedPackages) {
		return nil, fmt.Errorf("apt knows only %d of the guest's packages %s, %s; run apt-get update", len(list), kernelPackage, strings.Join(unpackedPackages, ", "))
	}
	return list, nil
}

// LinuxImage returns the path of the Linux disk image, building it when the
// cache has none for these packages and this recipe. The file is shared: make a
// CopyImage before stamping it.
func LinuxImage(ctx context.Context) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	guest, err := buildGuest(ctx, cache)
	if err != nil {
		return "", err
	}
	list, err := versions(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, list, area.DiskSize, area.RootStart)
	for _, name := range []string{"image.go", "initrd.go"} {
		source, err := recipe.ReadFile(name)
		if err != nil {
			return "", err
		}
		sum.Write(source)
	}
	sum.Write(guest)
	image := filepath.Join(cache, "linux-"+hex.EncodeToString(sum.Sum(nil)[:8])+".img")
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	work, err := os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	parts, err := unpack(ctx, cache, work, list)
	if err != nil {
		return "", err
	}
	parts.guest = guest
	made := filepath.Join(work, "disk.img")
	if err := buildLinux(ctx, work, made, parts); err != nil {
		return "", fmt.Errorf("building the Linux image: %w", err)
	}
	if err := dropOthers(cache); err != nil {
		return "", err
	}
	return image, os.Rename(made, image)
}

// dropOthers removes images of older recipes: each is used until the next.
func dropOthers(cache string) error {
	old, err := filepath.Glob(filepath.Join(cache, "linux-*.img"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range old {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

// lockFile keeps a second run from building the same image at the same time.
func lockFile(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// buildGuest compiles the guest program: one static file, the same bytes from
// the same source, so that it can be a part of the cache's key.
func buildGuest(ctx context.Context, cache string) ([]byte, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cache, "guest")
	_, err = Run(ctx, Command{
		Path: "go", Dir: root, Env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS="},
		Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, "./cmd/netlab/guest"},
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// moduleRoot is the folder of the project's source.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := Run(ctx, Command{Path: "go", Args: []string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}})
	if err != nil {
		return "", err
	}
	dir, found := strings.CutPrefix(string(bytes.TrimSpace(out)), "lunboot ")
	if !found {
		return "", errors.New("the lab builds its guest from source: run it in lunboot's source tree")
	}
	return dir, nil
}

// unpack downloads what the cache has not and unpacks all.
func unpack(ctx context.Context, cache, work string, list []version) (linuxParts, error) {
	debs := filepath.Join(cache, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return linuxParts{}, err
	}
	root := filepath.Join(work, "unpacked")
	parts := linuxParts{unpacked: root}
	for _, v := range list {
		// apt writes an epoch's colon as %3a.
		pattern := filepath.Join(debs, v.Name+"_"+strings.ReplaceAll(v.Version, ":", "%3a")+"_*.deb")
		found, _ := filepath.Glob(pattern)
		if len(found) == 0 {
			_, err := Run(ctx, Command{Path: "apt-get", Dir: debs, Args: []string{"-o", "APT::Sandbox::User=root", "download", v.Name + "=" + v.Version}})
			if err != nil {
				return linuxParts{}, err
			}
			if found, _ = filepath.Glob(pattern); len(found) == 0 {
				return linuxParts{}, fmt.Errorf("apt-get download %s left no %s", v.Name, pattern)
			}
		}
		if _, err := Run(ctx, Command{Path: "dpkg", Args: []string{"-x", found[0], root}}); err != nil {
			return linuxParts{}, err
		}
		if release, isKernel := strings.CutPrefix(v.Name, "linux-image-"); isKernel {
			parts.kernel = filepath.Join(root, "boot", "vmlinuz-"+release)
			parts.modules = filepath.Join(root, "lib/modules", release)
		}
	}
	return parts, nil
}
