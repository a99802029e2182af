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
		{code: "LB-VOL-10", build: volumeReadOnly},
		{code: "LB-VOL-02", build: volumeFailed},
		{code: "LB-VOL-13", build: storageHangs},
		{code: "LB-CHAP-03", stage: store.StageLogin, build: mutualMismatch},
		{code: "LB-CHAP-04", build: noReverseSecret},
		{code: "LB-CHAP-02", build: authRequired},
		{code: "LB-CHAP-01", build: wrongSecret},
		{code: "LB-TGT-07", build: copiedName},
		{code: "LB-TGT-03", build: unknownInitiator},
		{code: "LB-TGT-04", build: unknownTarget},
		{code: "LB-TGT-05", build: loginUnfinished},
		{code: "LB-VOL-11", build: volumeDiscarded},
		{code: "LB-VOL-02", build: volumeUnopened},
		{code: "LB-TGT-06", build: loginRefused},
		{code: "LB-VOL-03", stage: store.StageRead, build: blockSize},
		{code: "LB-VOL-04", build: volumeTooSmall},
		{code: "LB-VOL-05", build: volumeEmpty},
		{code: "LB-VOL-06", or: []string{"LB-OS-02"}, build: otherFirmware},
		{code: "LB-VOL-07", or: []string{"LB-OS-02"}, build: noBootLoader},
		{code: "LB-VOL-12", build: gaveUp},
		{code: "LB-VOL-08", or: []string{"LB-OS-02"}, stage: store.StageRead, build: notBootable},
		{code: "LB-LUN-03", stage: store.StageRead, build: diskRefused},
		{code: "LB-CHAP-05", build: credentialMix},
		{code: "LB-SCR-09", build: badSANAddress},
		{code: "LB-DHCP-09", stage: store.StageLogin, build: addressShared},
		{code: "LB-TGT-01", stage: store.StageLogin, build: targetUnreachable},
		{code: "LB-NET-02", stage: store.StageRead, build: readsLost},
		{code: "LB-LUN-04", stage: store.StageRead, build: neverRead},
		{code: "LB-TGT-02", or: []string{"LB-NET-02"}, stage: store.StageLogin, build: neverLoggedIn},
		{code: "LB-NET-02", stage: store.StageLogin, build: scriptLost},
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
	case asked > 9 && hexTwin(int(has.LUN)) == asked:
		d.Cause += fmt.Sprintf(" An iSCSI address for iPXE has the LUN in hexadecimal, where LUN %d is written as %d: that was taken for a decimal number.", has.LUN, asked)
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

// hexTwin is the number whose decimal digits are those of n in hexadecimal, or -1:
// what somebody wrote for iPXE to read n, or read where n stood for iPXE.
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
		ok = ok && forItsVolume(e)
	}
	if !ok || v.f.Name == "" || len(v.f.Mappings) > 0 {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.note(time.Time{}, "mapped to it: nothing")
	if r, ok := v.last(store.EventISCSIFirstRead); ok && r.At.Before(e.At) {
		v.note(r.At, "it had read from %s before that", orElse(quoted(r.Detail.Volume), "its volume"))
		return store.Diagnosis{
			Title:      v.who() + " lost its volume while it used it",
			Cause:      "Its mapping was removed after it had begun to read, and now no volume is mapped to it.",
			Confidence: store.Certain,
			Fixes:      v.freeVolumes(),
		}, true
	}
	if s, ok := v.last(store.EventScriptSent); ok && s.Detail.Profile == store.DefaultProfile {
		v.note(s.At, "%s, which named a volume", plain(s.Kind))
		return store.Diagnosis{
			Title:      v.who() + " lost its volume while it booted",
			Cause:      "Its script named a volume that was mapped to it then. That mapping was removed before it logged in.",
			Confidence: store.Certain,
			Fixes:      v.freeVolumes(),
		}, true
	}
	return store.Diagnosis{
		Title:      v.who() + " has nothing to boot",
		Cause:      "No volume is mapped to it. It is enrolled, and its profile boots from a volume.",
		Confidence: store.Certain,
		Fixes:      v.freeVolumes(),
	}, true
}

// akin reports whether something speaks for a volume to be the machine's: its
// script of this boot named it, it read from it, or it is called after it.
func (v *view) akin(volume string) bool {
	read := slices.ContainsFunc(v.events, func(e store.Event) bool { return e.Kind == store.EventISCSIFirstRead && e.Detail.Volume == volume })
	return read || strings.Contains(v.a.Script, " volume "+volume+",") || volume == v.f.Name || strings.HasPrefix(volume, v.f.Name+"-")
}

// freeVolumes offers the volumes that nobody has, and clones of golden ones: first
// what was the machine's.
func (v *view) freeVolumes() []store.Fix {
	var own, others []store.Fix
	for _, name := range v.f.Free {
		one := fix(store.FixMapVolume, name, "Let it boot from "+quoted(name))
		if v.akin(name) {
			own = append(own, one)
		} else {
			others = append(others, one)
		}
	}
	var clones []store.Fix
	for _, name := range v.f.Goldens {
		clones = append(clones, fix(store.FixOwnCopy, name, "Give it a fresh clone of "+quoted(name)))
	}
	out := slices.Concat(own, clones, others)
	out = out[:min(len(out), maxFixes-1)]
	return append(out, store.Fix{Label: "Make or import a volume, and map it to " + v.who() + " on its page"})
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
