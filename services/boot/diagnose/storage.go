package diagnose

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// reservationConflict is the SCSI status of a command that another initiator's
// reservation keeps out (SAM-5 §5.3.1).
const reservationConflict = "18"

// volumeHeld is a volume that somebody else has to himself: another initiator
// reserved it, or another program on the appliance's machine opened it.
func volumeHeld(v *view) (store.Diagnosis, bool) {
	if e, ok := v.lastAfter(store.EventISCSIIOFailed, store.EventISCSIFirstRead); ok && v.failed() && e.Detail.Status == reservationConflict {
		by := "another machine"
		if e.Detail.Server != "" {
			by = quoted(e.Detail.Server)
		}
		v.note(e.At, "%s%s: status RESERVATION CONFLICT", plain(e.Kind), at(e.Detail))
		if e.Detail.Server != "" {
			v.note(time.Time{}, "reserved by: %s", e.Detail.Server)
		}
		v.addReport()
		return store.Diagnosis{
			Title:      v.who() + " was kept from " + v.failedVolume(e) + ", because another machine has reserved it",
			Cause:      "The volume is reserved by " + by + " with a SCSI reservation, as clusters do to keep others out. It stays so until that machine lets go of it.",
			Confidence: store.Certain,
			Fixes: []store.Fix{
				{Label: "Shut the other machine down, or let it give up its reservation"},
				v.ownCopy(e.Detail.Volume),
			},
		}, true
	}
	e, ok := v.refused("")
	if !ok || !because(e, store.CauseHeld) {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " was refused " + v.volume() + ", because another program on the appliance uses it",
		Cause:      sentence(e.Detail.Reason) + " Two writers would destroy what is on it.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Unmount the device on the appliance, or end the program that has it: lsof names it"}},
	}, true
}

// volumeDiscarded is a login that was refused because the volume is volatile and
// the host has crashed since: a machine that ran from it is kept from going on
// with what is only in its memory.
func volumeDiscarded(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok || !because(e, store.CauseDiscarded) {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " was refused " + v.volume() + ", because what was on it is gone",
		Cause:      "The volume is volatile: nobody waits for its bytes to be on the disk. The appliance’s machine went down without stopping lunboot first, or its disk failed when lunboot was stopped, and nobody knows which of them are there. A system that went on would mix old blocks with new ones.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Switch " + v.who() + " off and on: its volume begins anew at that boot"},
			{Label: "If what it writes must outlive a power cut of the appliance, make the volume wait for the disk: lunboot volume set VOLUME --no-volatile"},
		},
	}, true
}

// volumeUnopened is a login that was refused because no volume of the machine
// could be opened: a file is gone, or its disk fails.
func volumeUnopened(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok || because(e, store.CauseWaits) || !because(e, store.CauseUnopened, store.CauseNotAnew) {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	d := store.Diagnosis{
		Title:      v.subject() + " was refused " + v.volume() + ", because its storage failed",
		Cause:      "Opening volume " + strings.TrimSuffix(after(e.Detail.Reason, openingVolume), ".") + ". Nothing was made up in its place.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Bring the volume’s file back to where it was, or map another volume; lunboot volume list names those that failed"},
			{Label: "Look at the appliance’s own disk: dmesg and its SMART values"},
		},
	}
	// A clone that begins anew stands on its parent's file.
	if because(e, store.CauseNotAnew) {
		d.Cause = "The volume begins anew at each boot, and that could not be done: " + strings.TrimSuffix(after(e.Detail.Reason, beginningAnew), ".") + ". Nothing was made up in its place."
		d.Fixes[0].Label = "Bring the file of the volume that it is a clone of back to where it was; lunboot volume show says which that is"
	}
	return d, true
}

// failedIO finds the newest failure of the volume itself.
func (v *view) failedIO() (store.Event, bool) {
	return v.last(store.EventISCSIIOFailed, store.EventVolumeFailed)
}

func (v *view) failedVolume(e store.Event) string {
	name := e.Detail.Volume
	if name == "" {
		if m, ok := v.boot(); ok {
			name = m.Volume
		}
	}
	return orElse(quoted(name), "the volume of "+v.who())
}

func volumeFull(v *view) (store.Diagnosis, bool) {
	if e, ok := v.refused(""); ok && because(e, store.CauseFull) {
		v.noteRefused(e)
		return store.Diagnosis{
			Title:      v.subject() + " was refused " + v.volume() + ": the storage is full",
			Cause:      sentence(e.Detail.Reason) + " It is let in as soon as there is room.",
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Make room: lunboot volume list shows what takes it up"}, {Label: "Then switch " + v.who() + " off and on"}},
		}, true
	}
	e, ok := v.failedIO()
	// 07/27/07 is SPACE ALLOCATION FAILED WRITE PROTECT (SBC-4 §4.7.3.6).
	if !ok || e.Detail.Sense != "07/27/07" {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "a write failed with sense %s%s", e.Detail.Sense, at(e.Detail))
	return store.Diagnosis{
		Title:      "Writes to " + v.failedVolume(e) + " failed: the storage is full",
		Cause:      "The file system that holds the volumes has no room left. Nothing that was written before is lost; writing goes on as soon as there is room.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Make room: lunboot volume list shows what takes it up"}},
	}, true
}

func volumeFailed(v *view) (store.Diagnosis, bool) {
	e, ok := v.failedIO()
	if !ok || e.Detail.Status == reservationConflict || strings.HasPrefix(e.Detail.Sense, "05/") || strings.HasPrefix(e.Detail.Sense, "07/") {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	if e.Detail.Sense != "" {
		v.note(time.Time{}, "our answer: sense %s%s", e.Detail.Sense, at(e.Detail))
	}
	v.addReport()
	what := " could not use "
	if e.Kind == store.EventISCSIIOFailed {
		what = " could not read "
		if strings.HasPrefix(strings.ToUpper(e.Detail.Opcode), "WRITE") || strings.HasPrefix(strings.ToUpper(e.Detail.Opcode), "SYNC") {
			what = " could not write "
		}
	}
	return store.Diagnosis{
		Title:      v.who() + what + v.failedVolume(e) + ", because its storage failed",
		Cause:      sentence(orElse(e.Detail.Reason, "the appliance’s own disk gave an error where the volume’s bytes are")) + " The machine was told so, and nothing was made up in their place.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Look at the appliance’s own disk: dmesg and its SMART values"},
		},
	}, true
}

// storageHangs is a machine whose command the appliance's storage has and does not
// give back. From the wire it looks as if packets were lost: nothing comes, and the
// machine logs in anew.
func storageHangs(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventISCSIStuck, store.EventISCSIFirstRead, store.EventISCSIFirstWrite, store.EventISCSIIO)
	if !ok || !v.failed() {
		return store.Diagnosis{}, false
	}
	waited := int((time.Duration(e.Detail.Millis) * time.Millisecond).Round(time.Second) / time.Second)
	v.note(e.At, "%s%s was with the storage for %d s, and was not answered", orElse(e.Detail.Opcode, "a command"), block(e.Detail), waited)
	if n := len(v.since(v.a.Started, store.EventISCSILogin)); n > 1 {
		v.note(time.Time{}, "it logged in %s", times(n))
	}
	v.addReport()
	return store.Diagnosis{
		Title:      v.who() + " waits for " + v.failedVolume(e) + ", because the appliance’s storage does not answer",
		Cause:      "What the machine asked for arrived here and was passed on to the storage that holds the volume, which neither gave it nor failed. A disk that is dying, a network file system whose server is away, or a pool that waits for a lost disk hangs like this.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Look at the appliance’s own storage: dmesg (task blocked for more than 120 seconds, I/O error, nfs: server not responding), and what mount shows for the folder of the volumes"},
			{Label: "Once it answers again, switch " + v.who() + " off and on"},
		},
	}, true
}

// volumeReadOnly is a machine that writes where it may only read.
func volumeReadOnly(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventISCSIIOFailed)
	// 07/27/00 and 07/27/02 are WRITE PROTECTED, by hardware and by software.
	if !ok || !v.failed() || e.Detail.Sense != "07/27/00" && e.Detail.Sense != "07/27/02" {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "a write was refused with sense %s%s", e.Detail.Sense, at(e.Detail))
	d := store.Diagnosis{
		Title:      v.who() + " may only read " + v.failedVolume(e) + ", and tried to write to it",
		Cause:      "The write was refused, and nothing was changed.",
		Confidence: store.Certain,
	}
	name, lun := e.Detail.Volume, -1
	frozen, readOnly := false, false
	for _, m := range v.f.Mappings {
		if e.Detail.LUN != nil && int(m.LUN) == *e.Detail.LUN {
			name, lun, frozen, readOnly = m.Volume, int(m.LUN), m.Frozen, m.ReadOnly
		}
	}
	clone := v.ownCopy(name)
	switch {
	case frozen:
		d.Cause += " The volume is read-only for everybody, as golden volumes are: a system that starts from it needs a clone of its own."
		d.Fixes = []store.Fix{clone}
	case readOnly:
		d.Cause += " The volume is mapped to this machine for reading only."
		d.Fixes = []store.Fix{fix(store.FixAllowWrites, strconv.Itoa(lun), "Let "+v.who()+" write to "+orElse(quoted(name), "its volume")), clone}
	default:
		d.Cause += " What it runs had set the disk’s own write protection, or it was changed since."
		d.Fixes = []store.Fix{{Label: "Boot it again"}, clone}
	}
	return d, true
}

// ownCopy gives the machine a clone that is nobody else's.
func (v *view) ownCopy(volume string) store.Fix {
	if volume == "" || v.f.Name == "" {
		return store.Fix{Label: "Give " + v.who() + " a clone of its own: lunboot volume clone VOLUME --for MACHINE"}
	}
	return fix(store.FixOwnCopy, volume, "Give "+v.who()+" its own copy of "+quoted(volume))
}

func at(d store.Detail) string { return opcode(d) + block(d) }

func block(d store.Detail) string {
	if d.LBA > 0 {
		return fmt.Sprintf(" at block %d", d.LBA)
	}
	return ""
}

func blockSize(v *view) (store.Diagnosis, bool) {
	m, ok := v.boot()
	if !ok || m.BlockSize != 4096 || v.a.Firmware != "BIOS" || !v.reported(ipxeerr.ClassNotBootable) && v.saw(store.EventISCSIFirstRead) {
		return store.Diagnosis{}, false
	}
	v.note(time.Time{}, "volume %s has blocks of 4096 bytes", quoted(m.Volume))
	return store.Diagnosis{
		Title:      v.who() + " starts in BIOS mode, and " + v.volume() + " has blocks that BIOS cannot read",
		Cause:      "BIOS reads disks in blocks of 512 bytes, and this volume has blocks of 4096 bytes.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Switch the machine to UEFI in its firmware"},
			{Label: "Map a volume with 512-byte blocks"},
		},
	}, true
}

// bytesRead is what the machine read in this attempt, session by session.
func (v *view) bytesRead() int64 {
	bySession := map[string]int64{}
	for _, e := range v.events {
		switch e.Kind {
		case store.EventISCSIIO, store.EventISCSIClosed:
			key := orElse(e.Detail.Session, e.Detail.ISID)
			bySession[key] = max(bySession[key], e.Detail.Bytes)
		}
	}
	var n int64
	for _, b := range bySession {
		n += b
	}
	return n
}
