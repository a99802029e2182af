// Package filter answers one question about a host's packet filter: would this
// packet come through? It reads what nft(8) and iptables(8) print, and knows
// three answers: a rule that it cannot judge makes the answer unsure, never
// good.
//
// It is pure: others run the commands.
package filter

import (
	"cmp"
	"fmt"
	"slices"
)

// Packet is the packet that is asked about.
type Packet struct {
	Hook      string // "input" or "output"
	Proto     string // "udp" or "tcp"
	Port      int    // destination port
	Interface string // the interface that it comes in or goes out on; empty for any but loopback
	Reply     bool   // it belongs to a flow that this host has answered: ct state established
}

// Fate is what becomes of a packet.
type Fate uint8

// The fates. The zero Fate is Unsure.
const (
	Unsure Fate = iota
	Accepted
	Dropped
)

// Verdict is the fate of a packet and the rule or policy that decides it.
type Verdict struct {
	Fate  Fate
	Why   string // the rule in nft's or iptables' words; empty for an accepted packet
	Chain Chain  // where that stands
}

// Chain is a base chain of a packet filter, or one that rules jump to.
type Chain struct {
	Family string // "ip", "inet" or "netdev"
	Table  string
	Name   string

	hook     string
	priority float64
	device   string
	drops    bool // its policy
	rules    []rule
}

// String names the chain as nft(8) does.
func (c Chain) String() string { return c.Family + " " + c.Table + " " + c.Name }

// Ruleset is a host's packet filter.
type Ruleset struct{ chains []Chain }

// Empty reports whether no chain looks at packets that come in or go out.
func (r Ruleset) Empty() bool {
	return !slices.ContainsFunc(r.chains, func(c Chain) bool { return c.hook != "" })
}

// Has reports whether there is a table of this name: some programs that manage
// a packet filter are known by theirs.
func (r Ruleset) Has(table string) bool {
	return slices.ContainsFunc(r.chains, func(c Chain) bool { return c.Table == table })
}

// Foreign reports whether nft could not print some rules because they were made
// by iptables, which can.
func (r Ruleset) Foreign() bool {
	return slices.ContainsFunc(r.chains, func(c Chain) bool {
		return c.Family == "ip" && slices.ContainsFunc(c.rules, func(r rule) bool { return r.foreign })
	})
}

// With returns the ruleset with iptables' chains: in the place of those that
// nft shows of the same tables, or beside them.
func (r Ruleset) With(iptables Ruleset) Ruleset {
	out := Ruleset{chains: slices.Clone(iptables.chains)}
	for _, c := range r.chains {
		theirs := func(o Chain) bool { return o.Family == c.Family && o.Table == c.Table }
		if !slices.ContainsFunc(iptables.chains, theirs) {
			out.chains = append(out.chains, c)
		}
	}
	return out
}

// HasChain reports whether there is a chain of this name.
func (r Ruleset) HasChain(name string) bool {
	return slices.ContainsFunc(r.chains, func(c Chain) bool { return c.Name == name })
}

// tri is a truth that may not be known.
type tri uint8

const (
	no tri = iota
	maybe
	yes
)

func truth(b bool) tri {
	if b {
		return yes
	}
	return no
}

func not(t tri) tri { return yes - t }

// and is the lesser of two truths.
func and(a, b tri) tri { return min(a, b) }

// condition is one match of a rule.
type condition func(Packet) tri

// action is what a rule does with a packet that it matches.
type action struct {
	kind   actionKind
	target string
}

type actionKind uint8

const (
	actNone actionKind = iota
	actAccept
	actDrop
	actJump
	actGoto
	actReturn
	actUnsure // queue, or something else that only the host knows the end of
)

// rule is one line of a chain. A verdict map has one choice for each element.
type rule struct {
	text    string
	when    []condition
	then    action
	choices []choice
	foreign bool // nft could not print it: iptables can
}

type choice struct {
	when condition
	then action
}

func (r rule) matches(p Packet) tri {
	out := yes
	for _, c := range r.when {
		out = and(out, c(p))
	}
	return out
}

// Ask follows a packet through every base chain of its way, in their order.
// One that drops it decides; one that accepts it only ends itself.
func (r Ruleset) Ask(p Packet) Verdict {
	worst := Verdict{Fate: Accepted}
	for _, c := range r.way(p) {
		v := r.base(c, p)
		if v.Fate == Dropped {
			return v
		}
		if v.Fate == Unsure && worst.Fate == Accepted {
			worst = v
		}
	}
	return worst
}

// way lists the base chains that see the packet, in the order in which they do
// (https://wiki.nftables.org/wiki-nftables/index.php/Netfilter_hooks).
func (r Ruleset) way(p Packet) []Chain {
	order := map[string]int{"ingress": 1, "prerouting": 2, "input": 3}
	if p.Hook == "output" {
		order = map[string]int{"output": 1, "postrouting": 2}
	}
	var out []Chain
	for _, c := range r.chains {
		if order[c.hook] == 0 || c.hook == "ingress" && p.Interface != "" && c.device != p.Interface {
			continue
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(order[a.hook], order[b.hook]), cmp.Compare(a.priority, b.priority))
	})
	return out
}

// base judges one base chain.
func (r Ruleset) base(c Chain, p Packet) Verdict {
	w := walk{ruleset: r, base: c}
	fate, why := w.chain(c, p, 0)
	if fate == goesOn {
		fate, why = passed, ""
		if c.drops {
			fate, why = dropped, "the policy of chain "+c.String()+" is drop"
		}
	}
	v := Verdict{Why: why, Chain: c}
	switch {
	case fate == dropped && w.mayPass != "":
		v.Why = w.mayPass
	case fate == passed && w.mayDrop != "":
		v.Why = w.mayDrop
	case fate == dropped:
		v.Fate = Dropped
	case fate == passed:
		v = Verdict{Fate: Accepted}
	}
	return v
}

// maxDepth is deeper than the kernel lets chains nest (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// maxSteps bounds the work for one packet: chains may be entered many times.
const maxSteps = 1 << 16

type result uint8

const (
	goesOn result = iota // the chain ended without a word
	passed
	dropped
	unknown
)

// walk follows one packet through a base chain and remembers what could have
// ended it elsewise.
type walk struct {
	ruleset          Ruleset
	base             Chain
	mayPass, mayDrop string
	steps            int
}

func (w *walk) chain(c Chain, p Packet, depth int) (result, string) {
	if depth > maxDepth {
		return unknown, "the chains of " + c.String() + " nest too deeply"
	}
	for _, r := range c.rules {
		if w.steps++; w.steps > maxSteps {
			return unknown, "the rules of " + w.base.String() + " are too many to follow"
		}
		where := fmt.Sprintf("rule %q of chain %s", r.text, c)
		m := r.matches(p)
		if m == no {
			continue
		}
		acts := []action{r.then}
		truths := []tri{m}
		for _, ch := range r.choices {
			acts, truths = append(acts, ch.then), append(truths, and(m, ch.when(p)))
		}
		for i, a := range acts {
			if truths[i] == no || a.kind == actNone {
				continue
			}
			fate, why := w.act(c, a, p, depth, where)
			if fate == goesOn {
				if a.kind == actJump {
					continue
				}
				if truths[i] == yes { // back to where the jump came from, or to the policy
					return goesOn, ""
				}
				w.note(unknown, where)
				continue
			}
			if truths[i] == yes {
				return fate, why
			}
			w.note(fate, why)
		}
	}
	return goesOn, ""
}

func (w *walk) act(c Chain, a action, p Packet, depth int, where string) (result, string) {
	switch a.kind {
	case actAccept:
		return passed, where
	case actDrop:
		return dropped, where
	case actUnsure:
		return unknown, where
	case actJump, actGoto:
		for _, t := range w.ruleset.chains {
			if t.Family == c.Family && t.Table == c.Table && t.Name == a.target {
				return w.chain(t, p, depth+1)
			}
		}
		return unknown, where
	}
	return goesOn, ""
}

// note remembers an end that the packet may have met.
func (w *walk) note(r result, why string) {
	if r != dropped && w.mayPass == "" {
		w.mayPass = why
	}
	if r != passed && w.mayDrop == "" {
		w.mayDrop = why
	}
}

// onInterface compares a packet's interface with a name, in which a last * or +
// stands for anything.
func onInterface(p Packet, name string) tri {
	switch {
	case name == p.Interface && name != "":
		return yes
	case p.Interface == "":
		if name == "lo" {
			return no
		}
		return maybe
	case len(name) > 0 && (name[len(name)-1] == '*' || name[len(name)-1] == '+'):
		prefix := name[:len(name)-1]
		return truth(len(p.Interface) >= len(prefix) && p.Interface[:len(prefix)] == prefix)
	}
	return no
}

// inState compares a packet's state of connection tracking with one of its names.
func inState(p Packet, name string) tri {
	switch name {
	case "new", "NEW":
		return truth(!p.Reply)
	case "established", "ESTABLISHED":
		return truth(p.Reply)
	case "untracked", "UNTRACKED":
		return maybe
	}
	return no // related and invalid
}

// anyOf is the best of several truths.
func anyOf[T any](all []T, is func(T) tri) tri {
	out := no
	for _, v := range all {
		out = max(out, is(v))
	}
	return out
}
