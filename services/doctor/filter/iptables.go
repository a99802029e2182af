package filter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// builtin are the chains of iptables' table filter that see packets to and from
// this host.
var builtin = map[string]string{"INPUT": "input", "OUTPUT": "output"}

// ParseIPTables reads what "iptables -S" printed: the table filter of IPv4.
func ParseIPTables(text string) (Ruleset, error) {
	var out Ruleset
	at := func(name string) *Chain {
		i := slices.IndexFunc(out.chains, func(c Chain) bool { return c.Name == name })
		if i < 0 {
			out.chains = append(out.chains, Chain{Family: "ip", Table: "filter", Name: name, hook: builtin[name]})
			i = len(out.chains) - 1
		}
		return &out.chains[i]
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		switch {
		case f[0] == "-P" && len(f) >= 3:
			at(f[1]).drops = f[2] == "DROP"
		case f[0] == "-N" && len(f) == 2:
			at(f[1])
		case f[0] == "-A" && len(f) >= 2:
			c := at(f[1])
			c.rules = append(c.rules, parseLine(f[2:]))
		default:
			return Ruleset{}, fmt.Errorf("read iptables' rules: %q is no line of \"iptables -S\"", strings.TrimSpace(line))
		}
	}
	return out, nil
}

// parseLine reads the words of one rule. A word that it does not know makes the
// rule one that may match.
func parseLine(f []string) rule {
	r := rule{text: strings.Join(f, " ")}
	invert := false
	add := func(c condition) {
		if invert {
			inner := c
			c = func(p Packet) tri { return not(inner(p)) }
		}
		invert = false
		r.when = append(r.when, c)
	}
	for i := 0; i < len(f); i++ {
		value := ""
		if i+1 < len(f) {
			value = f[i+1]
		}
		switch f[i] {
		case "!":
			invert = true
			continue
		case "-p":
			add(func(p Packet) tri { return truth(value == p.Proto || value == "all") })
		case "-i", "-o":
			hook := map[string]string{"-i": "input", "-o": "output"}[f[i]]
			add(func(p Packet) tri {
				if p.Hook != hook {
					return no
				}
				return onInterface(p, value)
			})
		case "--dport", "--dports", "--ports":
			add(ports(value))
		case "--ctstate", "--state":
			add(func(p Packet) tri {
				return anyOf(strings.Split(value, ","), func(s string) tri { return inState(p, s) })
			})
		case "-m":
			// It only names the extension that the next words belong to; those
			// without words of their own are none of these.
			if !slices.Contains([]string{"udp", "tcp", "multiport", "conntrack", "state", "comment"}, value) {
				add(unknowable)
			}
		case "--comment":
			if strings.HasPrefix(value, `"`) && (len(value) == 1 || !strings.HasSuffix(value, `"`)) {
				for i+1 < len(f) && !strings.HasSuffix(f[i+1], `"`) {
					i++
				}
			}
		case "-j", "-g":
			r.then = targetOf(f[i], value)
		case "--reject-with", "--log-prefix", "--log-level", "--nflog-group", "--nflog-prefix", "--set-mark", "--set-xmark":
			for i+2 < len(f) && !strings.HasPrefix(f[i+2], "-") { // a prefix of several words
				i++
			}
		default:
			add(unknowable)
			if strings.HasPrefix(value, "-") || value == "!" {
				continue // it has no value
			}
		}
		i++
	}
	return r
}

func targetOf(how, name string) action {
	switch name {
	case "ACCEPT":
		return action{kind: actAccept}
	case "DROP", "REJECT":
		return action{kind: actDrop}
	case "RETURN":
		return action{kind: actReturn}
	case "LOG", "NFLOG", "MARK", "CONNMARK", "CT", "TRACE", "SET":
		return action{}
	case "NFQUEUE":
		return action{kind: actUnsure}
	}
	if how == "-g" {
		return action{kind: actGoto, target: name}
	}
	return action{kind: actJump, target: name}
}

// ports reads "67", "67,69" and "1024:65535".
func ports(s string) condition {
	return func(p Packet) tri {
		return anyOf(strings.Split(s, ","), func(part string) tri {
			from, to, ranged := strings.Cut(part, ":")
			a, err := strconv.Atoi(from)
			b := a
			if err == nil && ranged {
				b, err = strconv.Atoi(to)
			}
			if err != nil {
				return maybe
			}
			return truth(p.Port >= a && p.Port <= b)
		})
	}
}
