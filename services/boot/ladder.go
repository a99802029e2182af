package boot

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/store"
)

// Ladder lists the loaders of a platform in the order in which they are tried.
// The one over the firmware's own network driver goes first: it is small, and
// drives any card that the firmware drives. Where it does not get on with that
// driver, one with drivers of its own often does.
func Ladder(p Platform) []Loader {
	switch {
	case p.Firmware == BIOS:
		return []Loader{Undionly, IPXEPXE, Undionly2}
	case p.Firmware != UEFI:
		return nil
	}
	switch p.Arch {
	case X8664:
		return []Loader{SNPOnly, IPXEEFI}
	case X86:
		return []Loader{IPXEEFI32}
	case ARM64:
		return []Loader{IPXEARM64}
	}
	return nil
}

// Runs reports whether a loader for q starts on p: over which road it comes does
// not matter.
func (p Platform) Runs(q Platform) bool {
	return p.Firmware != FirmwareUnknown && p.Firmware == q.Firmware && p.Arch == q.Arch
}

// Available is a loader that there is.
type Available struct {
	Loader   Loader
	Platform Platform         // as its bytes say
	Role     store.LoaderRole // its place in a chain
	NoISCSI  bool             // its bytes say that it has no iSCSI inside
}

// Rungs lists the loaders that there are for a platform in the order in which
// they are tried: those of the ladder, then the operator's own that have other
// names. The files of a chain are given only to machines that name it.
func Rungs(p Platform, shelf []Available) []Loader {
	var out, others []Loader
	for _, l := range Ladder(p) {
		if slices.ContainsFunc(shelf, func(a Available) bool { return a.Loader == l }) {
			out = append(out, l)
		}
	}
	for _, a := range shelf {
		if a.Platform.Runs(p) && a.Loader.Chain() == "" && !a.Loader.Known() {
			others = append(others, a.Loader)
		}
	}
	slices.Sort(others)
	return append(out, others...)
}

// Named finds the loader that a machine's own choice means: a file's name, or a
// chain, whose first file it is.
func Named(name string, shelf []Available) (Available, bool) {
	for _, a := range shelf {
		if string(a.Loader) == name && a.Role != store.LoaderSecond || a.Role == store.LoaderFirst && a.Loader.Chain() == name {
			return a, true
		}
	}
	return Available{}, false
}

// Hardware is what is known of a machine before its loader runs, and may decide
// whether a loader gets on with it. It is comparable.
type Hardware struct {
	MAC      store.MAC
	Platform Platform
	UNDI     string // the version of the firmware's network interface: "003016"; empty when not said
}

// HardwareOf reads the hardware from what a DHCP request says: option 60
// ("PXEClient:Arch:00007:UNDI:003016", RFC 4578 and PXE 2.1 §2.2.1), and the
// names that events use for firmware and architecture.
func HardwareOf(mac store.MAC, firmware, arch, class string) Hardware {
	h := Hardware{MAC: mac, Platform: PlatformNamed(firmware, arch)}
	h.Platform.HTTP = strings.HasPrefix(class, "HTTPClient")
	if _, v, found := strings.Cut(class, "UNDI:"); found {
		if len(v) >= 6 && strings.Trim(v[:6], "0123456789") == "" {
			h.UNDI = v[:6]
		}
	}
	return h
}

// PlatformNamed reads the names that Firmware and Arch print.
func PlatformNamed(firmware, arch string) (p Platform) {
	for _, f := range []Firmware{BIOS, UEFI} {
		if f.String() == firmware {
			p.Firmware = f
		}
	}
	for _, a := range []Arch{X86, X8664, ARM32, ARM64, RISCV64, LoongArch64} {
		if a.String() == arch {
			p.Arch = a
		}
	}
	return p
}

// Keys returns under what is remembered how loaders do: with this machine, and
// with all of its sort. A sort is the platform, the road, the version of the
// firmware's network interface and the maker of the card, by its MAC's first
// three bytes. They are all that a machine says before a loader runs on it: the
// card's PCI id is told by an iPXE, and a machine on which one ran has a memory
// of its own. Since one maker builds many cards, that memory goes first.
func (h Hardware) Keys() (own, sort string) {
	p := strings.ToLower(strings.ReplaceAll(h.Platform.String(), " ", "-"))
	undi := h.UNDI
	if undi == "" {
		undi = "unsaid"
	}
	return p + "/mac-" + h.MAC.Hex12(), p + "/undi-" + undi + "/oui-" + hex.EncodeToString(h.MAC[:3])
}

// OwnKey reports whether a key is one machine's own.
func OwnKey(key string) bool { return strings.Contains(key, "/mac-") }

// String names the hardware in a sentence.
func (h Hardware) String() string {
	s := h.Platform.Firmware.String()
	if h.Platform.Firmware != BIOS {
		s += " " + h.Platform.Arch.String()
	}
	s += " firmware"
	if h.UNDI != "" {
		s += " with network interface " + h.UNDI
	}
	return s + fmt.Sprintf(" and a card of %02x:%02x:%02x", h.MAC[0], h.MAC[1], h.MAC[2])
}

// Verdict is what one boot says of a loader that was delivered in full.
type Verdict uint8

// The verdicts. The zero verdict says nothing.
const (
	NoVerdict Verdict = iota
	Worked            // it fetched a script
	Silent            // nothing was heard of it for as long as a start takes
	Doubtful          // the machine started over so soon that somebody may have pulled its plug
)

// String names the verdict for logs.
func (v Verdict) String() string {
	switch v {
	case Worked:
		return "worked"
	case Silent:
		return "silent"
	case Doubtful:
		return "doubtful"
	}
	return "none"
}

// outStrikes is how many strikes put a loader out.
const outStrikes = 2

// Learn adds a boot's verdict to what was known. Whatever was held against a
// loader is forgotten when it works. Silence puts out a loader that never
// worked; a doubtful end is half of that. One that worked before needs two ends
// in silence, since a power cut looks the same; and with a sort of hardware
// (own is false) it stays, since the machine's own memory passes it by.
func Learn(t store.LoaderTrial, v Verdict, at time.Time, own bool) store.LoaderTrial {
	was := t.Outcome
	switch {
	case v == Worked:
		t.Outcome, t.Strikes = store.TrialWorked, 0
	case v == NoVerdict || was == store.TrialWorked && !own:
		return t
	case v == Silent && was != store.TrialWorked:
		t.Strikes += outStrikes
	default:
		t.Strikes++
	}
	if t.Strikes >= outStrikes {
		t.Outcome = store.TrialSilent
	}
	if t.Outcome != was {
		t.Times = 0
	}
	t.Times, t.Last = t.Times+1, at
	return t
}

// Question is what the choice of a loader depends on.
type Question struct {
	Hardware Hardware
	Own      string // the machine's own loader or chain; empty: the ladder chooses
	Shelf    []Available
	Trials   func(key string) []store.LoaderTrial
}

// Pick is the loader that a machine is given at its next boot.
type Pick struct {
	Loader  Loader // empty when there is none
	NoISCSI bool   // it cannot boot from an iSCSI volume
	Why     string // "it worked with this machine before"
	Own     bool   // the machine named it for itself
	// Exhausted says that all loaders that there are were delivered and stayed
	// silent, so that they are gone through again.
	Exhausted bool
}

// Choose picks a machine's loader. Its own choice always wins, where it runs.
// Else one that worked with this machine goes before one that worked with its
// sort of hardware, and that before those that were never tried, in the
// ladder's order. Silent ones are passed by, until all are: then the one that
// was not tried for longest comes again.
func Choose(q Question) Pick {
	p := q.Hardware.Platform
	noISCSI := func(l Loader) bool {
		return slices.ContainsFunc(q.Shelf, func(a Available) bool { return a.Loader == l && a.NoISCSI })
	}
	aside := ""
	if q.Own != "" {
		a, ok := Named(q.Own, q.Shelf)
		switch {
		case ok && a.Platform.Runs(p):
			return Pick{Loader: a.Loader, NoISCSI: a.NoISCSI, Own: true, Why: "it is the machine’s own choice"}
		case ok:
			a.Platform.HTTP = false
			aside = "; its own choice " + q.Own + " is for " + a.Platform.String()
		default:
			aside = "; its own choice " + q.Own + " is not there"
		}
	}
	rungs := Rungs(p, q.Shelf)
	if len(rungs) == 0 {
		return Pick{Why: "there is no loader for " + p.String() + aside}
	}
	ownKey, sortKey := q.Hardware.Keys()
	own, sort := map[Loader]store.LoaderTrial{}, map[Loader]store.LoaderTrial{}
	if q.Trials != nil {
		for _, t := range q.Trials(ownKey) {
			own[Loader(t.Loader)] = t
		}
		for _, t := range q.Trials(sortKey) {
			sort[Loader(t.Loader)] = t
		}
	}
	// The smallest rank is best; within one, the ladder's order holds.
	const worked, workedElsewhere, untried, silent = 0, 1, 2, 3
	rank := func(l Loader) int {
		o, s := own[l].Outcome, sort[l].Outcome
		switch {
		case o == store.TrialWorked:
			return worked
		case o == store.TrialSilent:
			return silent
		case s == store.TrialWorked:
			return workedElsewhere
		case s == store.TrialSilent:
			return silent
		}
		return untried
	}
	best := rungs[0]
	for _, l := range rungs[1:] {
		if rank(l) < rank(best) {
			best = l
		}
	}
	pick := Pick{}
	switch rank(best) {
	case worked:
		pick.Why = "it worked with this machine before"
	case workedElsewhere:
		pick.Why = "it worked with hardware of this sort before"
	case untried:
		pick.Why = "it is the first of the ladder"
		if i := slices.Index(rungs, best); i > 0 {
			pick.Why = fmt.Sprintf("it comes after %s, which was sent and never spoke", rungs[i-1])
		}
	case silent:
		last := func(l Loader) time.Time {
			if a, b := own[l].Last, sort[l].Last; a.IsZero() {
				return b
			} else {
				return a
			}
		}
		for _, l := range rungs {
			if last(l).Before(last(best)) {
				best = l
			}
		}
		pick.Why, pick.Exhausted = "all of the ladder were sent and never spoke, and it begins again", true
	}
	pick.Loader, pick.NoISCSI = best, noISCSI(best)
	pick.Why += aside
	return pick
}
