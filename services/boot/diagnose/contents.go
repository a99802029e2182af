package diagnose

import (
	"slices"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// What stands on the volume explains a boot that read it and went no further.

// nothingStarted says how sure it is that the machine found nothing to start:
// it said so, or it read no more than a look for a boot loader takes and was
// never heard of again.
func (v *view) nothingStarted() (store.Confidence, bool) {
	if _, e, _ := v.report(); e.Detail.Step == "local" {
		return "", false // it speaks of its own disk
	}
	if v.reported(ipxeerr.ClassNotBootable, ipxeerr.ClassGaveUp) {
		return store.Certain, true
	}
	if slices.Contains(v.f.Installers, attempt.ProfileOf(v.a)) {
		return "", false // it was to start its installer, whatever the volume holds
	}
	n := v.bytesRead()
	if !v.failed() || n == 0 || n > bootLoaderBytes || v.saw(store.EventISCSIFirstWrite) || v.lateSign() {
		return "", false
	}
	v.note(time.Time{}, "it read %s and no more", attempt.Amount(n))
	v.noteSilence()
	return store.VeryLikely, true
}

// contents returns the boot volume and what was found on it.
func (v *view) contents() (Mapping, *store.Preflight, bool) {
	m, ok := v.boot()
	if !ok || m.Contents == nil {
		return m, nil, false
	}
	return m, m.Contents, true
}

func volumeTooSmall(v *view) (store.Diagnosis, bool) {
	m, _, ok := v.contents()
	if !ok || m.BlockSize == 0 || m.Size/int64(m.BlockSize) >= store.MinBootBlocks || !v.failed() || !v.saw(store.EventISCSILogin) {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "volume %s has %d blocks", quoted(m.Volume), m.Size/int64(m.BlockSize))
	v.addReport()
	return store.Diagnosis{
		Title:      v.who() + " cannot use " + v.volume() + ": it is smaller than any disk that iPXE takes",
		Cause:      "iPXE looks for a disc’s directory in block 64 of every network disk, and gives up when there is no such block.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{fix(store.FixGrowVolume, "", "Grow "+quoted(m.Volume)+" to 1 MiB")},
	}, true
}

func volumeEmpty(v *view) (store.Diagnosis, bool) {
	m, found, ok := v.contents()
	if !ok || !found.Blank {
		return store.Diagnosis{}, false
	}
	sure, ok := v.nothingStarted()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "the first MiB of volume %s is zeros", quoted(m.Volume))
	return store.Diagnosis{
		Title:      v.who() + " has nothing to start: " + v.volume() + " is empty",
		Cause:      "The way to the volume was fine, the machine logged in and read; nobody has installed or imported anything onto it yet.",
		Confidence: sure,
		Fixes: []store.Fix{
			{Label: "Boot an installer once: lunboot machine boot " + v.who() + " --once PROFILE"},
			{Label: "Import an image as a new volume and map that: lunboot volume import NAME FILE"},
		},
	}, true
}

func otherFirmware(v *view) (store.Diagnosis, bool) {
	m, found, ok := v.contents()
	if !ok {
		return store.Diagnosis{}, false
	}
	mine, others, mode, other := found.BIOS, found.UEFI, "BIOS", "UEFI"
	if v.a.Firmware == "UEFI" {
		mine, others, mode, other = others, mine, other, mode
	}
	if v.a.Firmware == "" || mine.OK || !others.OK {
		return store.Diagnosis{}, false
	}
	sure, ok := v.nothingStarted()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "volume %s (%s) %s", quoted(m.Volume), found.Summary, mine.Why)
	return store.Diagnosis{
		Title:      v.who() + " starts in " + mode + " mode, and " + v.volume() + " starts only in " + other + " mode",
		Cause:      "The volume " + mine.Why + ". Its system was installed for " + other + ".",
		Confidence: sure,
		Fixes: []store.Fix{
			{Label: "Switch the machine to " + other + " in its firmware’s set-up, and let it boot from the network there"},
			{Label: "Map a volume that was installed in " + mode + " mode"},
		},
	}, true
}

func noBootLoader(v *view) (store.Diagnosis, bool) {
	m, found, ok := v.contents()
	if !ok {
		return store.Diagnosis{}, false
	}
	mine := found.BIOS
	if v.a.Firmware == "UEFI" {
		mine = found.UEFI
	}
	if v.a.Firmware == "" || mine.OK {
		return store.Diagnosis{}, false
	}
	sure, ok := v.nothingStarted()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "volume %s (%s) %s", quoted(m.Volume), found.Summary, mine.Why)
	return store.Diagnosis{
		Title:      v.who() + " found nothing to start on " + v.volume() + ", which " + mine.Why,
		Cause:      "The way to the volume was fine: the machine logged in and read. What it looks for first is not there.",
		Confidence: sure,
		Fixes: []store.Fix{
			{Label: "Install the boot loader again for " + v.a.Firmware + ", with its fallback path on UEFI: grub-install --removable"},
			{Label: "Boot an installer once: lunboot machine boot " + v.who() + " --once PROFILE"},
		},
	}, true
}

// gaveUp is a boot loader that the machine has started and that came back.
func gaveUp(v *view) (store.Diagnosis, bool) {
	if x, _, ok := v.report(); !ok || x.Class != ipxeerr.ClassGaveUp {
		return store.Diagnosis{}, false
	}
	return wentNoFurther(v)
}

// wentNoFurther is a boot loader that the machine has started and that read less
// than a kernel has: it is damaged, waits for somebody, or ended.
func wentNoFurther(v *view) (store.Diagnosis, bool) {
	m, found, ok := v.contents()
	if !ok || found.Blank {
		return store.Diagnosis{}, false
	}
	mine := found.BIOS
	if v.a.Firmware == "UEFI" {
		mine = found.UEFI
	}
	if v.a.Firmware == "" || !mine.OK {
		return store.Diagnosis{}, false
	}
	sure, ok := v.nothingStarted()
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "volume %s holds: %s", quoted(m.Volume), orElse(found.Summary, "a boot sector"))
	if sure == store.Certain {
		return store.Diagnosis{
			Title:      v.who() + " started the boot loader of " + v.volume() + ", which gave up",
			Cause:      "The way to the volume was fine: the machine logged in, read the first blocks and started what stands there. That came back without having started a system: it found no active partition, or not the file that it looks for.",
			Confidence: store.Certain,
			Fixes: []store.Fix{
				{Label: "Look at the machine’s screen: the boot loader says there what it misses"},
				{Label: "Install the boot loader again for " + v.a.Firmware + ", or mark its partition active"},
			},
		}, true
	}
	return store.Diagnosis{
		Title:      v.who() + " started the boot loader of " + v.volume() + ", which went no further",
		Cause:      "It read less than any operating system has. A boot loader that is damaged or waits for somebody ends like this, and so does a volume onto which only a part of an image was copied; or the machine was switched off just then.",
		Confidence: store.BestGuess,
		Fixes: []store.Fix{
			{Label: "Look at the machine’s screen: the boot loader says there what it waits for"},
			{Label: "Import the image anew as another volume, and map that: lunboot volume import NAME FILE"},
			{Label: "Install the boot loader again for " + v.a.Firmware},
		},
	}, true
}

func notBootable(v *view) (store.Diagnosis, bool) {
	if !v.reported(ipxeerr.ClassNotBootable) {
		return store.Diagnosis{}, false
	}
	return v.emptyVolume(store.Certain), true
}

// emptyVolume words the diagnosis of a volume that nobody could look into.
func (v *view) emptyVolume(c store.Confidence) store.Diagnosis {
	mode, other := "BIOS", "UEFI"
	if v.a.Firmware == "UEFI" {
		mode, other = "UEFI", "BIOS"
	}
	return store.Diagnosis{
		Title:      v.who() + " found nothing to start on " + v.volume(),
		Cause:      "The volume is empty, or its operating system was installed for " + other + " while the machine started in " + mode + " mode. The way to it was fine: it logged in and read.",
		Confidence: c,
		Fixes: []store.Fix{
			{Label: "Boot an installer once: lunboot machine boot " + v.who() + " --once PROFILE"},
			{Label: "Import an image into the volume"},
			{Label: "Switch the machine to " + other + " in its firmware, when that is how its system was installed"},
		},
	}
}
