package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// installerPackage holds Debian's installer for the network.
const installerPackage = "debian-installer-12-netboot-amd64"

const installerImages = "./usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/"

// Installer returns the paths of the kernel and RAM disk of Debian's installer
// for AMD64, with text on its screen. The package is downloaded once, 130 MB, and
// not installed; the two files alone are kept, 50 MB.
func Installer(ctx context.Context) (kernel, initrd string, err error) {
	if kernel, err = fileOf(ctx, installerPackage, installerImages+"linux", "installer-linux"); err != nil {
		return "", "", err
	}
	initrd, err = fileOf(ctx, installerPackage, installerImages+"initrd.gz", "installer-initrd.gz")
	return kernel, initrd, err
}

// InstallerParts returns the path of a RAM disk with what Debian's installer drives
// iSCSI with: iscsistart, iscsid, and modules for its kernel. The installer fetches them from
// its mirror (open-iscsi-udeb, scsi-modules), which the lab does not have; in the RAM
// disk they lie where it puts them. They come from the packages of an installed
// system: the kernel's, 70 MB, is downloaded once, and the RAM disk alone is kept.
func InstallerParts(ctx context.Context, kernel string) (string, error) {
	release, err := kernelRelease(kernel)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	kept := filepath.Join(cache, "installer-parts-"+release+".gz")
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	work, err := os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	list, err := versions(ctx)
	if err != nil {
		return "", err
	}
	parts, err := unpack(ctx, cache, work, list)
	if err != nil {
		return "", err
	}
	name := "linux-image-" + release
	if _, err := Run(ctx, Command{Path: "apt-get", Dir: work, Args: []string{"-o", "APT::Sandbox::User=root", "download", name}}); err != nil {
		return "", fmt.Errorf("fetching %s: %w", name, err)
	}
	if err := shell(ctx, "", fmt.Sprintf("cd %s && dpkg -x %s_*.deb kernel", work, name)); err != nil {
		return "", err
	}
	image, err := installerParts(parts.unpacked, filepath.Join(work, "kernel/lib/modules", release), release)
	if err != nil {
		return "", fmt.Errorf("the parts of Debian's installer: %w", err)
	}
	made := filepath.Join(work, "parts.gz")
	if err := os.WriteFile(made, image, 0o644); err != nil {
		return "", err
	}
	return kept, os.Rename(made, kept)
}

// installerParts makes the RAM disk. The installer has all its folders but one, and what
// it has of libraries stays in front of these.
func installerParts(unpacked, kernelDir, release string) ([]byte, error) {
	files, err := programs(unpacked, "sbin/iscsistart", "sbin/iscsid")
	if err != nil {
		return nil, err
	}
	_, images, err := modules(kernelDir, "iscsi_ibft", "iscsi_tcp", "sd_mod")
	if err != nil {
		return nil, err
	}
	c := newCPIO()
	for _, name := range sortedKeys(files) {
		switch path.Dir(name) {
		case "lib64": // the loader is the installer's
		case "lib/x86_64-linux-gnu":
			c.entry("usr/lib/x86_64-linux-gnu/"+path.Base(name), modeFile, 0, 0, files[name])
		default:
			c.entry(name, modeFile, 0, 0, files[name])
		}
	}
	c.entry("etc/iscsi", modeDir, 0, 0, nil)
	c.entry("etc/iscsi/iscsid.conf", modeFile, 0, 0, []byte(iscsidConfig))
	for _, name := range sortedKeys(images) {
		c.entry("lib/modules/"+release+"/kernel/drivers/scsi/"+name, modeFile, 0, 0, images[name])
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err = z.Write(c.bytes())
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}

// kernelRelease reads a kernel's own name, such as 6.1.0-50-amd64
// (Documentation/arch/x86/boot.rst, kernel_version).
func kernelRelease(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(b) < 0x210 {
		return "", fmt.Errorf("%s is no kernel", path)
	}
	at := 0x200 + int(binary.LittleEndian.Uint16(b[0x20e:]))
	name, _, found := bytes.Cut(b[min(at, len(b)):], []byte(" "))
	if !found {
		return "", fmt.Errorf("%s does not say which kernel it is", path)
	}
	return string(name), nil
}
