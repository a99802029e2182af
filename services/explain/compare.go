package explain

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"lunboot/services/boot"
	"lunboot/store"
)

// comparison collects what differs.
type comparison []store.Difference

// add takes a difference when both sides are known.
func (c *comparison) add(what, then, now string) {
	if then != "" && now != "" && then != now {
		*c = append(*c, store.Difference{What: what, Then: then, Now: now})
	}
}

// compare lays what was seen in the last attempt beside what would happen now.
// What was not seen then says nothing.
func compare(now store.DryRun, last store.Attempt, events []store.Event) []store.Difference {
	then := seen(events)
	if then.address == "" {
		then.address = last.Address
	}
	var c comparison
	c.add("firmware", strings.TrimSpace(last.Firmware+" "+last.Arch), strings.TrimSuffix(now.Platform, " HTTP"))
	firmware, ipxe := now.Offers[0], now.Offers[1]
	if a := ipxe.Address; a.IsValid() {
		c.add("address", then.address, a.String())
	}
	c.add("DHCP answer", then.answered(firmware), firmware.Verdict)
	c.add("loader", then.loader, loaderOf(firmware))
	c.add("script URL", then.url, ipxe.File)
	c.add("script", then.answer, answerWords(now.Script))
	c.add("profile", then.profile, now.Script.Profile)
	c.add("matched by", then.matched, now.Script.MatchedBy)
	if then.answer == scriptWords && now.Script.Answer == "script" {
		c.lines(last.Script, now.Script.Text)
	}
	c.add("initiator name", then.initiator, string(now.Login.Initiator))
	c.add("target name", then.target, string(now.Login.Target))
	c.add("login", then.login, loginWords(now.Login))
	if then.luns != "" {
		c.add("LUNs", then.luns, lunsOf(now.Login))
	}
	return slices.Clip(append([]store.Difference{}, c...))
}

// past is what the events of an attempt tell.
type past struct {
	address, loader, url, answer, profile, matched string
	initiator, target, login, luns                 string
	offered                                        bool
}

const scriptWords = "its script"

func seen(events []store.Event) past {
	var p past
	for _, e := range events {
		d := e.Detail
		switch e.Kind {
		case store.EventDHCPOffer, store.EventDHCPAck, store.EventDHCPProxyOffer, store.EventDHCPBootServer:
			p.offered = true
			if e.Addr.IsValid() {
				p.address = e.Addr.String()
			}
			if d.Loader != "" && d.Loader != "." {
				p.loader = d.Loader
			}
			if d.URL != "" {
				p.url = d.URL
			}
		case store.EventLoaderSent, store.EventTFTPSent:
			if d.Loader != "" {
				p.loader = path.Base(d.Loader)
			}
		case store.EventScriptSent:
			p.answer, p.profile, p.matched = scriptWords, d.Profile, d.MatchedBy
		case store.EventScriptWaiting:
			p.answer = "the waiting screen"
		case store.EventScriptConflict:
			p.answer = "a refusal: it names different machines"
		case store.EventScriptWithheld:
			p.answer = "a refusal: its address was not known to be its own"
		case store.EventScriptFailed:
			p.answer, p.profile, p.matched = "a notice that it cannot boot", d.Profile, d.MatchedBy
		case store.EventIgnoredMachine:
			p.answer = "nothing: it was ignored"
		case store.EventISCSILogin:
			p.initiator, p.target, p.login = d.Initiator, d.Target, admitted(d.Auth)
			p.luns = ints(d.Mapped)
		case store.EventISCSIRefused:
			p.initiator, p.target, p.login = d.Initiator, d.Target, "refused"
		case store.EventISCSINoLUN:
			p.luns = ints(d.Mapped)
		}
	}
	return p
}

// answered says that there was an offer, when now there is none.
func (p past) answered(now store.OfferExplanation) string {
	if !p.offered || now.Verdict == "" {
		return ""
	}
	if now.Verdict == "nothing" {
		return "an offer"
	}
	return now.Verdict
}

func loaderOf(o store.OfferExplanation) string {
	if o.Loader == "" {
		return ""
	}
	return path.Base(o.Loader)
}

func answerWords(s store.ScriptExplanation) string {
	switch s.Answer {
	case "script":
		return scriptWords
	case "unknown":
		return "the waiting screen"
	case "conflict":
		return "a refusal: it names different machines"
	case "blocked", "failed":
		return "a notice that it cannot boot"
	case "ignored":
		return "nothing: it was ignored"
	}
	return ""
}

func loginWords(l store.LoginExplanation) string {
	switch {
	case l.Initiator == "":
		return ""
	case l.Refused != "":
		return "refused"
	}
	return admitted(map[store.AuthMode]string{store.AuthNone: "none", store.AuthCHAP: "CHAP", store.AuthMutual: "mutual CHAP"}[l.Auth])
}

// admitted says how an initiator proved itself, by the words of the login's
// event: "none", "CHAP with MD5", "mutual CHAP with SHA-256".
func admitted(method string) string {
	switch way, _, _ := strings.Cut(method, " with "); way {
	case "":
		return "admitted"
	case "none":
		return "admitted without a password"
	default:
		return "admitted by " + way
	}
}

func lunsOf(l store.LoginExplanation) string {
	var out []int
	for _, u := range l.Units {
		if u.Problem == "" {
			out = append(out, int(u.LUN))
		}
	}
	return ints(out)
}

func ints(list []int) string {
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	var out []string
	for _, n := range list {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ", ")
}

// plumbing are the lines by which a script comes back to the appliance, and where
// it sends who reads it. A report and a case number are their attempt's, which a
// dry run has not.
var plumbing = regexp.MustCompile(`^goto again$|^echo (Case number [0-9]+\. )?See http|` + regexp.QuoteMeta(boot.ReportPath) + `\?|` + regexp.QuoteMeta(boot.ScriptPath) + `\?mac=`)

// ticket is the part of an answer file's address that is an attempt's.
var ticket = regexp.MustCompile(`(/files/` + store.AnswerRoot + `/[^/ ]+/[^/ ]+/)[^/ ]+`)

// body takes a script's comments and its plumbing away, and what is its attempt's.
func body(script string) []string {
	var out []string
	for _, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || plumbing.MatchString(line) {
			continue
		}
		out = append(out, ticket.ReplaceAllString(line, "${1}0"))
	}
	return out
}

// maxLines bounds how much of a script is shown as different.
const maxLines = 20

// lines adds the lines of the script that are not the same.
func (c *comparison) lines(then, now string) {
	a, b := body(then), body(now)
	gone := missing(a, b)
	new := missing(b, a)
	for i := range max(len(gone), len(new)) {
		if i == maxLines {
			*c = append(*c, store.Difference{What: "script", Then: "…", Now: fmt.Sprintf("and %d more lines", max(len(gone), len(new))-maxLines)})
			return
		}
		d := store.Difference{What: "a line of the script"}
		if i < len(gone) {
			d.Then = gone[i]
		}
		if i < len(new) {
			d.Now = new[i]
		}
		*c = append(*c, d)
	}
}

// missing lists the lines of a that b has not.
func missing(a, b []string) []string {
	have := map[string]int{}
	for _, l := range b {
		have[l]++
	}
	var out []string
	for _, l := range a {
		if have[l] == 0 {
			out = append(out, l)
			continue
		}
		have[l]--
	}
	return out
}
