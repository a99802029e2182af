package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// iscsiRules explain boots that stopped at the login or at the first read.
func iscsiRules() []rule {
	return []rule{
		{code: "LB-LUN-01", stage: store.StageRead, build: wrongLUN},
		{code: "LB-LUN-02", build: nothingMapped},
		{code: "LB-VOL-01", build: volumeFull},
		{code: "LB-VOL-09", build: volumeHeld},
		{code: "LB-VOL-02", build: volumeFailed},
		{code: "LB-CHAP-03", stage: store.StageLogin, build: mutualMismatch},
		{code: "LB-CHAP-04", build: noReverseSecret},
		{code: "LB-CHAP-02", build: authRequired},
		{code: "LB-CHAP-01", build: wrongSecret},
		{code: "LB-TGT-03", build: unknownInitiator},
		{code: "LB-TGT-04", build: unknownTarget},
		{code: "LB-TGT-05", build: loginUnfinished},
		{code: "LB-VOL-02", build: volumeUnopened},
		{code: "LB-TGT-06", build: loginRefused},
		{code: "LB-VOL-03", stage: store.StageRead, build: blockSize},
		{code: "LB-VOL-04", build: volumeTooSmall},
		{code: "LB-VOL-05", build: volumeEmpty},
		{code: "LB-VOL-06", or: []string{"LB-OS-02"}, build: otherFirmware},
		{code: "LB-VOL-07", or: []string{"LB-OS-02"}, build: noBootLoader},
		{code: "LB-VOL-08", or: []string{"LB-OS-02"}, stage: store.StageRead, build: notBootable},
		{code: "LB-LUN-03", stage: store.StageRead, build: diskRefused},
		{code: "LB-SCR-09", build: badSANAddress},
		{code: "LB-TGT-01", stage: store.StageLogin, build: targetUnreachable},
		{code: "LB-LUN-04", stage: store.StageRead, build: neverRead},
		{code: "LB-TGT-02", stage: store.StageLogin, build: neverLoggedIn},
	}
}

// wrongLUN is the failure that this appliance was built for: iPXE asks one LUN
// number, the volume is mapped as another, and other targets invent a disk that
// fails in a way nobody can read.
func wrongLUN(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventISCSINoLUN, store.EventISCSIFirstRead)
	if !ok || len(e.Detail.Mapped) == 0 {
		return store.Diagnosis{}, false
	}
	asked, has := -1, v.mapped(e.Detail.Mapped)
	if e.Detail.LUN != nil {
		asked = *e.Detail.LUN
	}
	d := store.Diagnosis{Confidence: store.Certain}
	askedFor := "a LUN without a number"
	if asked >= 0 {
		askedFor = fmt.Sprintf("LUN %d", asked)
	}
	vol := "its volume"
	if has.Volume != "" {
		vol += " " + quoted(has.Volume)
	}
	d.Title = fmt.Sprintf("%s asked for %s, but %s is LUN %d", v.who(), askedFor, vol, has.LUN)

	d.Cause = fmt.Sprintf("What told it where its volume is, a script or its own settings, named %s, and nothing is mapped to it under that number.", askedFor)
	switch {
	case asked == 0:
		d.Cause += " An iSCSI address that leaves the LUN out asks for LUN 0."
	case asked > 9 && hexTwin(asked) == int(has.LUN):
		d.Cause += fmt.Sprintf(" iPXE reads the LUN as hexadecimal: %d was written and LUN %d was asked for.", has.LUN, asked)
	}

	uri := "iscsi:…::::" + has.LUN.URI() + ":…"
	if v.f.Profile != store.DefaultProfile {
		d.Fixes = append(d.Fixes, store.Fix{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes the right LUN by itself"})
	}
	if asked >= 0 && asked <= int(store.MaxLUN) {
		d.Fixes = append(d.Fixes, fix(store.FixMapLUN, strconv.Itoa(asked), fmt.Sprintf("Map %s as LUN %d", orElse(quoted(has.Volume), "the volume"), asked)))
	}
	d.Fixes = append(d.Fixes, store.Fix{Label: fmt.Sprintf("Write LUN %d in the sanboot line of its script: %s", has.LUN, uri)})

	v.note(e.At, "it asked for %s%s", askedFor, opcode(e.Detail))
	v.note(time.Time{}, "mapped to it: %s", v.mappedList(e.Detail.Mapped))
	if e.Detail.Sense != "" {
		v.note(time.Time{}, "our answer: sense %s, LOGICAL UNIT NOT SUPPORTED", e.Detail.Sense)
	}
	if e.Detail.Initiator != "" {
		v.note(time.Time{}, "initiator: %s", e.Detail.Initiator)
	}
	v.addReport()
	return d, true
}

// hexTwin is the number that somebody wrote in decimal for iPXE to read n.
func hexTwin(n int) int {
	m, err := strconv.Atoi(strconv.FormatInt(int64(n), 16))
	if err != nil {
		return -1
	}
	return m
}

func opcode(d store.Detail) string {
	if d.Opcode == "" {
		return ""
	}
	return " with " + d.Opcode
}

// mapped chooses, among the LUNs that existed, the one that the machine was
// meant to ask for.
func (v *view) mapped(luns []int) Mapping {
	if m, ok := v.boot(); ok && slices.Contains(luns, int(m.LUN)) {
		return m
	}
	for _, m := range v.f.Mappings {
		if slices.Contains(luns, int(m.LUN)) {
			return m
		}
	}
	return Mapping{LUN: store.LUN(luns[0])}
}

func (v *view) mappedList(luns []int) string {
	var parts []string
	for _, n := range luns {
		s := fmt.Sprintf("LUN %d", n)
		for _, m := range v.f.Mappings {
			if int(m.LUN) == n && m.Volume != "" {
				s += " " + quoted(m.Volume)
			}
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func nothingMapped(v *view) (store.Diagnosis, bool) {
	if !v.failed() {
		return store.Diagnosis{}, false
	}
	e, ok := v.lastAfter(store.EventISCSINoLUN, store.EventISCSIFirstRead)
	ok = ok && len(e.Detail.Mapped) == 0
	if !ok {
		e, ok = v.lastAfter(store.EventISCSIRefused, store.EventISCSILogin)
		ok = ok && e.Detail.Status == "0202"
	}
	if !ok {
		e, ok = v.lastAfter(store.EventScriptFailed, store.EventScriptSent)
	}
	if !ok || v.f.Name == "" || len(v.f.Mappings) > 0 {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.note(time.Time{}, "mapped to it: nothing")
	return store.Diagnosis{
		Title:      v.who() + " has nothing to boot",
		Cause:      "No volume is mapped to it. It is enrolled, and its profile boots from a volume.",
		Confidence: store.Certain,
		Fixes:      v.freeVolumes(),
	}, true
}

// freeVolumes offers the volumes that nobody has.
func (v *view) freeVolumes() []store.Fix {
	var out []store.Fix
	for _, name := range v.f.Free {
		out = append(out, fix(store.FixMapVolume, name, "Let it boot from "+quoted(name)))
	}
	return append(out, store.Fix{Label: "Make or import a volume, and map it to " + v.who() + " on its page"})
}

// refused finds a refused login that no later login overtook.
func (v *view) refused(status string) (store.Event, bool) {
	if !v.failed() {
		return store.Event{}, false
	}
	e, ok := v.lastAfter(store.EventISCSIRefused, store.EventISCSIFirstRead)
	if !ok || status != "" && e.Detail.Status != status {
		return store.Event{}, false
	}
	return e, true
}

func (v *view) noteRefused(e store.Event) {
	v.note(e.At, "login refused with status %s: %s", e.Detail.Status, orElse(e.Detail.Reason, "no reason was noted"))
	if e.Detail.Initiator != "" {
		v.note(time.Time{}, "initiator: %s", e.Detail.Initiator)
	}
	v.addReport()
}

// subject is the machine, or its operating system when that was refused after
// iPXE had been let in.
func (v *view) subject() string {
	if v.failedAt(store.StageUp) {
		return v.who() + "’s operating system"
	}
	return v.who()
}

func mutualMismatch(v *view) (store.Diagnosis, bool) {
	if !v.reported(ipxeerr.ClassMutual) {
		return store.Diagnosis{}, false
	}
	return store.Diagnosis{
		Title:      v.who() + " did not accept the appliance’s own password",
		Cause:      "With mutual CHAP each side proves itself, and the machine expects another name or secret from the appliance than the one that is set here. Its script or its own settings carry an old pair.",
		Confidence: store.Certain,
		Fixes: v.secrets("Issue a new pair of secrets; its next script carries it",
			"If the secrets stand in the machine’s own iPXE, write the reverse pair from its page there"),
	}, true
}

func noReverseSecret(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || !strings.Contains(e.Detail.Reason, "no reverse secret") {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " asked the appliance to prove itself, and no password is set for that",
		Cause:      "It wants mutual CHAP, and this machine is set to another way of logging in here.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Action: string(store.FixMutual), Label: "Set " + v.who() + " to mutual CHAP"}},
	}, true
}

func authRequired(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || !strings.Contains(e.Detail.Reason, "required") {
		if !ok || !v.reported(ipxeerr.ClassNegotiate) {
			return store.Diagnosis{}, false
		}
		v.evidence = nil
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " offered no password that " + v.volume() + " accepts",
		Cause:      "The machine is set to prove itself with CHAP here, and what it runs offered less: its script or its own settings carry no secret, or only one of the two.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which hands over the secrets"},
			{Label: "Write username, password, reverse-username and reverse-password in its script"},
		},
	}, true
}

func wrongSecret(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0201")
	if !ok || e.Detail.Reason != "" && !strings.Contains(e.Detail.Reason, "another CHAP secret") && !strings.Contains(e.Detail.Reason, "CHAP user name") {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " gave the wrong password for " + v.volume(),
		Cause:      "The CHAP user name or secret that it used is not the one that is set for it here. Its script or its own settings carry an old one.",
		Confidence: store.Certain,
		Fixes: v.secrets("Issue a new secret; its next script carries it",
			"If the secret stands in the machine’s own iPXE, write the one from its page there"),
	}, true
}

// secrets are the fixes of a secret that differs. A new one reaches the machine
// only by a script that carries it, which an operator's own may not.
func (v *view) secrets(renew, byHand string) []store.Fix {
	var out []store.Fix
	if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
		out = append(out, fix(store.FixProfileSAN, "", "Use profile san, which hands over the secrets"))
	}
	return append(out, fix(store.FixSecret, "", renew), store.Fix{Label: byHand})
}

func unknownInitiator(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0202")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	if v.f.Initiator != "" {
		v.note(time.Time{}, "the name set for %s is %s", v.who(), v.f.Initiator)
	}
	if m, ok := v.boot(); ok && m.State != "" && m.State != store.VolumeReady {
		v.note(time.Time{}, "volume %s is %s", quoted(m.Volume), m.State)
		return store.Diagnosis{
			Title:      v.subject() + " was refused, because " + v.volume() + " is not ready",
			Cause:      sentence(orElse(m.Reason, "the volume is still being made")),
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Look at the volume: lunboot volume show " + m.Volume}},
		}, true
	}
	title := v.subject() + " used an iSCSI name that no machine has here"
	if string(v.f.Initiator) == e.Detail.Initiator && e.Detail.Initiator != "" {
		title = v.subject() + " was not allowed to use a volume"
	}
	return store.Diagnosis{
		Title:      title,
		Cause:      "Volumes are mapped to a machine by its iSCSI name, and the name that it gave belongs to nobody who has one. iPXE makes up a name of its own when a script sets none.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which sets the name"},
			{Label: "Write set initiator-iqn " + orElse(string(v.f.Initiator), "and the machine’s name") + " in its script, before sanboot"},
		},
	}, true
}

func unknownTarget(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0203")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	title := v.subject() + " asked for a target that is not here"
	// The reason quotes what was asked for; Detail.Target is our own name.
	if _, rest, ok := strings.Cut(e.Detail.Reason, `the target "`); ok {
		if asked, _, ok := strings.Cut(rest, `"`); ok {
			title = v.subject() + " asked for the target " + quoted(asked) + ", which is not here"
		}
	}
	return store.Diagnosis{
		Title:      title,
		Cause:      "The appliance has one target name, and the script or the machine’s own settings carry another.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes the right name"},
			{Label: "Write the appliance’s target name, shown on the machine’s page, in its sanboot line"},
		},
	}, true
}

// loginUnfinished is an initiator that hung up in the middle of its login, as
// iPXE does when it does not believe the target.
func loginUnfinished(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok || e.Detail.Status != "" {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s", orElse(e.Detail.Reason, "it began to log in and did not finish"))
	d := store.Diagnosis{
		Title:      v.subject() + " broke off its login to " + v.volume(),
		Cause:      "It hung up before the login was done, and nothing was refused here. It was switched off, or the network lost its packets.",
		Confidence: store.BestGuess,
		Fixes:      []store.Fix{{Label: "Look at the machine’s screen"}},
	}
	if v.f.Auth == store.AuthMutual {
		d.Cause = "It hung up before the login was done, and nothing was refused here. With mutual CHAP a machine does that when the appliance’s own password is not the one that it expects."
		d.Confidence = store.VeryLikely
		d.Fixes = v.secrets("Issue a new pair of secrets; its next script carries it",
			"If the secrets stand in the machine’s own iPXE, write the reverse pair from its page there")
	}
	return d, true
}

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
				{Label: "Give " + v.who() + " a volume of its own: lunboot volume clone"},
			},
		}, true
	}
	e, ok := v.refused("")
	if !ok || !strings.HasPrefix(e.Detail.Status, "03") || !strings.Contains(e.Detail.Reason, "held by another program") {
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

// volumeUnopened is a login that was refused because no volume of the machine
// could be opened: a file is gone, or its disk fails.
func volumeUnopened(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok || !strings.HasPrefix(e.Detail.Status, "03") || !strings.Contains(e.Detail.Reason, "open volume") {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " was refused " + v.volume() + ", because its storage failed",
		Cause:      sentence(e.Detail.Reason) + " Nothing was made up in its place.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Bring the volume’s file back to where it was, or map another volume; lunboot volume list names those that failed"},
			{Label: "Look at the appliance’s own disk: dmesg and its SMART values"},
		},
	}, true
}

func loginRefused(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("")
	if !ok {
		return store.Diagnosis{}, false
	}
	v.noteRefused(e)
	return store.Diagnosis{
		Title:      v.subject() + " was refused its volume",
		Cause:      sentence(orElse(e.Detail.Reason, "the appliance could not serve it at that moment")) + " The machine tries again when it is switched on again.",
		Confidence: store.Certain,
		Fixes:      []store.Fix{{Label: "Mend what the reason names, then boot again"}},
	}, true
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

func at(d store.Detail) string {
	s := opcode(d)
	if d.LBA > 0 {
		s += fmt.Sprintf(" at block %d", d.LBA)
	}
	return s
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

// diskRefused takes the machine's word that the disk refused, when we saw no
// reason ourselves: another target may have answered.
func diskRefused(v *view) (store.Diagnosis, bool) {
	if !v.reported(ipxeerr.ClassNoLUN, ipxeerr.ClassDisk, ipxeerr.ClassMedium, ipxeerr.ClassNotReady, ipxeerr.ClassReadOnly) {
		return store.Diagnosis{}, false
	}
	x, _, _ := v.report()
	return store.Diagnosis{
		Title:      v.who() + " was answered with a failure when it first used " + v.volume(),
		Cause:      sentence(x.Meaning) + " Commonly the LUN in its script is not the one that the volume is mapped as.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes the right LUN by itself"},
			{Label: "Compare the LUN in its sanboot line with the mapping; iPXE reads it as hexadecimal"},
		},
	}, true
}

func badSANAddress(v *view) (store.Diagnosis, bool) {
	if !v.failed() || !v.reported(ipxeerr.ClassRootPath) {
		return store.Diagnosis{}, false
	}
	x, _, _ := v.report()
	return store.Diagnosis{
		Title:      v.who() + " could not read the address of its volume in its script",
		Cause:      sentence(x.Meaning) + " The form is iscsi:ADDRESS::PORT:LUN:TARGET, with the LUN in hexadecimal.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixProfileSAN), Label: "Use profile san, which writes it by itself"},
			{Label: "Mend the sanboot line of its profile"},
		},
	}, true
}

func targetUnreachable(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventISCSILogin, store.EventISCSIRefused) || !v.reported(ipxeerr.ClassUnreachable, ipxeerr.ClassName, ipxeerr.ClassNoTarget) {
		return store.Diagnosis{}, false
	}
	x, _, _ := v.report()
	return store.Diagnosis{
		Title:      v.who() + " could not reach " + v.volume() + " over the network",
		Cause:      sentence(x.Meaning) + " No login of it came to this appliance.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Action: string(store.FixCheckAgain), Label: "Test the iSCSI port"},
			{Label: "Compare the address in its script with the appliance’s address on that network"},
		},
	}, true
}

func neverRead(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventISCSIFirstRead) || !v.saw(store.EventISCSILogin) {
		return store.Diagnosis{}, false
	}
	v.noteEvents(v.since(time.Time{}, store.EventISCSILogin, store.EventISCSIClosed))
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " logged in and never read from " + v.volume(),
		Cause:      "The login is made of small packets, and reading of large ones. When large packets are lost on the way, because one switch or port allows smaller ones than the rest, it ends like this; or the machine was switched off.",
		Confidence: store.BestGuess,
		Fixes: []store.Fix{
			{Label: "Set the same packet size (MTU) on the appliance, the switches and the machine; 1500 everywhere is safe"},
			{Label: "Boot it again and watch: lunboot attempt watch " + v.who()},
		},
	}, true
}

func neverLoggedIn(v *view) (store.Diagnosis, bool) {
	if v.saw(store.EventISCSILogin, store.EventISCSIRefused, store.EventReport) {
		return store.Diagnosis{}, false
	}
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " never tried to reach " + v.volume(),
		Cause:      "It was given its script, and no login came after it. A firewall in front of the iSCSI port, an address in the script that leads elsewhere, or a loader without iSCSI ends like this.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Action: string(store.FixCheckAgain), Label: "Test the iSCSI port"},
			{Label: "Look at the machine’s screen: its script says there what failed"},
		},
	}
	if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
		d.Fixes = slices.Insert(d.Fixes, 0, fix(store.FixProfileSAN, "", "Use profile san, whose script names the appliance and the volume"))
	}
	return d, true
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

// sentence makes a reason one: capital letter, full stop.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	r := []rune(s)
	s = strings.ToUpper(string(r[0])) + string(r[1:])
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

func ofIPXE(e store.Event) bool { return attempt.IPXEISID(e.Detail.ISID) }
