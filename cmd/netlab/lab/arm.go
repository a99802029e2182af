package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// armPackage holds Debian's kernel for arm64 in a package for every
// architecture, so that apt needs no foreign one.
const armPackage = "debian-installer-12-netboot-arm64"

// armImage is where the package has the kernel: an EFI file, as Linux is on
// arm64.
const armImage = "./usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64/linux"

// Shim returns the path of Debian's shim for AMD64, as Microsoft signed it. It is
// not installed: its package would put it into the host's own boot menu.
func Shim(ctx context.Context) (string, error) {
	return fileOf(ctx, "shim-signed", "./usr/lib/shim/shimx64.efi.signed", "shimx64.efi")
}

// SecureGRUB returns the path of Debian's GRUB that boots from the network, with
// the signature that Debian's shim trusts.
func SecureGRUB(ctx context.Context) (string, error) {
	return fileOf(ctx, "grub-efi-amd64-signed", "./usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grubnetx64.efi")
}

// ARMKernel returns the path of Debian's kernel for arm64. The package is
// downloaded once, 130 MB, and not installed; the kernel alone is kept.
func ARMKernel(ctx context.Context) (string, error) {
	return fileOf(ctx, armPackage, armImage, "vmlinuz-arm64")
}

// fileOf returns the path of a file of a Debian package that is not installed: it
// is downloaded once, and the file alone is kept in the cache, by name.
func fileOf(ctx context.Context, from, file, name string) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock-"+name))
	if err != nil {
		return "", err
	}
	defer unlock()
	kept := filepath.Join(cache, name)
	if _, err := os.Stat(kept); err == nil {
		return kept, nil
	}
	work, err := os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if _, err := Run(ctx, Command{Path: "apt-get", Dir: work, Args: []string{"-o", "APT::Sandbox::User=root", "download", from}}); err != nil {
		return "", fmt.Errorf("fetching %s: %w", from, err)
	}
	found, err := filepath.Glob(filepath.Join(work, from+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download %s left %v", from, found)
	}
	if err := shell(ctx, "", fmt.Sprintf("dpkg --fsys-tarfile %s | tar -x -C %s --no-same-owner %s", found[0], work, file)); err != nil {
		return "", err
	}
	return kept, os.Rename(filepath.Join(work, file), kept)
}
