package lab

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	qemu     = "/usr/bin/qemu-system-x86_64"
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	// The same with Secure Boot on, and the key that ovmf has for tests enrolled, or
	// Microsoft's.
	ovmfSecureVars    = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
	ovmfMicrosoftVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
	qemuARM           = "/usr/bin/qemu-system-aarch64"
	aavmfCode         = "/usr/share/AAVMF/AAVMF_CODE.fd"
	aavmfVars         = "/usr/share/AAVMF/AAVMF_VARS.fd"
	grubBIOS          = "/usr/lib/grub/i386-pc"
	grubEFI           = "/usr/lib/grub/x86_64-efi"
)

// Package is a Debian package and a file that shows that it is there.
type Package struct {
	Name string
	File string
	Why  string
}

// packages is what the lab installs. The kernel and open-iscsi are not among
// them: they are only unpacked into the guest (see unpacked).
var packages = []Package{
	{"qemu-system-x86", qemu, "the machines"},
	{"seabios", "/usr/share/seabios/bios-256k.bin", "BIOS firmware"},
	{"ovmf", ovmfCode, "UEFI firmware"},
	{"ipxe-qemu", "/usr/lib/ipxe/qemu/pxe-virtio.rom", "the boot ROM of BIOS machines' cards"},
	{"ipxe", "/usr/lib/ipxe/undionly.kpxe", "the loaders"},
	{"iproute2", "/usr/sbin/ip", "namespaces, bridge, taps"},
	{"ethtool", "/usr/sbin/ethtool", "offloads off"},
	{"mtools", "/usr/bin/mcopy", "the EFI system partition, without a mount"},
	{"e2fsprogs", "/usr/sbin/mke2fs", "the root file system, without a mount"},
	{"grub-common", "/usr/bin/grub-mkimage", "the guest's boot loader"},
	{"grub-pc-bin", grubBIOS + "/boot.img", "the guest's boot loader on BIOS"},
	{"grub-efi-amd64-bin", grubEFI + "/linux.mod", "the guest's boot loader on UEFI"},
	{"zstd", "/usr/bin/zstd", "the guest's initial RAM disk"},
	{"libkmod2", "/usr/lib/x86_64-linux-gnu/libkmod.so.2", "the guest's iSCSI initiator needs it"},
	{"libssl3", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "the guest's iSCSI initiator needs it"},
}

// Packages lists what the lab needs, in the order of use.
func Packages() []Package { return slices.Clone(packages) }

// TestPackages lists what the lab's own tests need besides.
func TestPackages() []Package {
	return []Package{
		{"nasm", "/usr/bin/nasm", "the embedded boot sector is compared with its source"},
		{"qemu-system-arm", qemuARM, "arm64 machines"},
		{"qemu-efi-aarch64", aavmfCode, "the firmware of arm64 machines"},
		{"isc-dhcp-relay", "/usr/sbin/dhcrelay", "machines behind a relay"},
		{"dnsmasq-base", "/usr/sbin/dnsmasq", "machines behind a relay"},
		{"fio", "/usr/bin/fio", "a guest puts its disks under load and verifies what it reads"},
		{"dnsmasq-base", "/usr/sbin/dnsmasq", "a router that gives the addresses"},
		{"sg3-utils", "/usr/bin/sg_raw", "a guest resets, copies and reserves"},
		{"sbsigntool", "/usr/bin/sbsign", "loaders are signed for machines with Secure Boot"},
		{"genisoimage", "/usr/bin/genisoimage", "the disc of an installer"},
		{"wimtools", "/usr/bin/wimlib-imagex", "an image of Windows, without Windows"},
		{"openssl", "/usr/bin/openssl", "opens the key that they are signed with"},
		{"binutils", "/usr/bin/objcopy", "gives a loader the section that a shim wants to see"},
	}
}

// Missing lists the packages that are not there.
func Missing() []Package {
	var missing []Package
	for _, p := range packages {
		if _, err := os.Stat(p.File); err != nil {
			missing = append(missing, p)
		}
	}
	return missing
}

// InstallLine is the command that installs packages.
func InstallLine(list []Package) string {
	line := "apt-get install -y --no-install-recommends"
	for _, p := range list {
		line += " " + p.Name
	}
	return line
}

// Usable says in one sentence why the lab cannot run here, and nil when it
// can.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces and taps, which only root may: run it as root")
	}
	if missing := Missing(); len(missing) > 0 {
		return fmt.Errorf("the lab needs %d more Debian packages: %s", len(missing), InstallLine(missing))
	}
	for _, dir := range []string{"/sys/class/net", "/dev/net/tun"} {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("the lab makes taps, and %s is not there: %s", dir, strings.TrimPrefix(err.Error(), "stat "))
		}
	}
	return nil
}
