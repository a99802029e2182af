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

// ARMKernel returns the path of Debian's kernel for arm64. The package is
// downloaded once, 130 MB, and not installed; the kernel alone is kept.
func ARMKernel(ctx context.Context) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock-arm"))
	if err != nil {
		return "", err
	}
	defer unlock()
	kernel := filepath.Join(cache, "vmlinuz-arm64")
	if _, err := os.Stat(kernel); err == nil {
		return kernel, nil
	}
	work, err := os.MkdirTemp(cache, "work-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if _, err := Run(ctx, Command{Path: "apt-get", Dir: work, Args: []string{"-o", "APT::Sandbox::User=root", "download", armPackage}}); err != nil {
		return "", fmt.Errorf("fetching a kernel for arm64: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(work, armPackage+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download %s left %v", armPackage, found)
	}
	if err := shell(ctx, "", fmt.Sprintf("dpkg --fsys-tarfile %s | tar -x -C %s --no-same-owner %s", found[0], work, armImage)); err != nil {
		return "", err
	}
	return kernel, os.Rename(filepath.Join(work, armImage), kernel)
}
