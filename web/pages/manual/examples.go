package manual

import (
	"embed"

	"lunboot/store"
)

//go:embed examples/*
var texts embed.FS

// Example is a profile to begin with.
type Example struct {
	Key   string // by which a new profile is made of it
	Title string
	Help  string
	store.Profile
}

// Examples are profiles to begin with, one at least of each kind that has
// something to fill in.
func Examples() []Example {
	fields := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i+1 < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	all := []Example{
		{"debian", "Debian, with a preseed", "The disc is the network installer, mini.iso. It is told where its answers are, and a program of the appliance gives it the volume as a disk.",
			store.Profile{Name: "install-debian", Kind: store.ProfileInstall, Fields: fields("media", "mini.iso", "system", "debian")}},
		{"fedora", "Fedora, RHEL and the like, with a kickstart", "The installer finds the volume by the iBFT, and so does what is installed.",
			store.Profile{Name: "install-fedora", Kind: store.ProfileInstall, Fields: fields("media", "fedora.iso", "system", "fedora")}},
		{"ubuntu", "Ubuntu Server, with an autoinstall", "The live disc is fetched into memory: give the machine 6 GiB. A bootcmd of your own takes the place of the one that logs in to the volume.",
			store.Profile{Name: "install-ubuntu", Kind: store.ProfileInstall, Fields: fields("media", "ubuntu.iso", "system", "ubuntu")}},
		{"alpine", "Alpine, onto the machine’s own disk", "Alpine’s RAM disk knows no iSCSI, and it takes no answers: run setup-alpine at its prompt.",
			store.Profile{Name: "install-alpine", Kind: store.ProfileInstall, Fields: fields("media", "alpine.iso", "system", "alpine", "disk", "own")}},
		{"windows", "Windows, by wimboot", "Windows PE starts from the disc, and setup runs from a share that has what lies on the disc. Without a text, setup’s first screen comes by itself, and looks for that in vain. wimboot comes from ipxe.org/wimboot; add it to the media too.",
			store.Profile{Name: "install-windows", Kind: store.ProfileWimboot, Fields: fields("media", "win11.iso", "wimboot", "wimboot")}},
		{"rescue", "A kernel of your own", "Kernel and RAM disks are URLs, or paths below /files/: the name of a media file, and a path inside it where it is a disc.",
			store.Profile{Name: "rescue", Kind: store.ProfileKernel, Fields: fields("kernel", "vmlinuz", "initrd", "initrd.img", "cmdline", "ip=dhcp hostname={{hostname}}")}},
		{"menu", "A menu on the machine’s screen", "Each line is the name of a profile, with = and what the screen shows.",
			store.Profile{Name: "choose", Kind: store.ProfileMenu, Fields: fields("items", "san = The lab's volume\nlocal = The disk of this machine", "default", "san", "timeout", "30")}},
		{"local", "The machine’s second disk", "On UEFI a machine goes on by its firmware’s own order. On BIOS iPXE starts the disk with this number, or with exit leaves it to the BIOS.",
			store.Profile{Name: "second-disk", Kind: store.ProfileLocal, Fields: fields("bios", "disk", "drive", "0x81")}},
		{"custom", "A script of your own", "It is plain iPXE. A line that fails is told on the machine’s screen and on its page, unless the script sees to it itself by || and &&.",
			store.Profile{Name: "my-script", Kind: store.ProfileCustom}},
	}
	for i := range all {
		// A kind without a text has no file.
		if text, err := texts.ReadFile("examples/" + all[i].Key + ".txt"); err == nil {
			all[i].Text = string(text)
		}
	}
	return all
}

// FindExample returns the example of a key.
func FindExample(key string) (Example, bool) {
	for _, e := range Examples() {
		if e.Key == key {
			return e, true
		}
	}
	return Example{}, false
}
