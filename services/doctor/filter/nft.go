package filter

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object is a JSON object whose members are read one by one: nft prints dozens
// of kinds (libnftables-json(5)).
type object = map[string]any

// ParseNFT reads what "nft -j list ruleset" printed.
func ParseNFT(text []byte) (Ruleset, error) {
	var doc struct {
		NFTables []object `json:"nftables"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return Ruleset{}, fmt.Errorf("read nft's JSON: %w", err)
	}
	var out Ruleset
	sets := map[string][]any{}
	for _, o := range doc.NFTables {
		if c, ok := o["chain"].(object); ok && forIPv4(c) {
			out.chains = append(out.chains, Chain{
				Family: word(c, "family"), Table: word(c, "table"), Name: word(c, "name"),
				hook: word(c, "hook"), priority: number(c["prio"]), device: word(c, "dev"), drops: word(c, "policy") == "drop",
			})
		}
		if s, ok := o["set"].(object); ok {
			if elems, ok := s["elem"].([]any); ok {
				sets[word(s, "family")+" "+word(s, "table")+" "+word(s, "name")] = elems
			}
		}
	}
	for _, o := range doc.NFTables {
		r, ok := o["rule"].(object)
		if !ok {
			continue
		}
		at := slices.IndexFunc(out.chains, func(c Chain) bool {
			return c.Family == word(r, "family") && c.Table == word(r, "table") && c.Name == word(r, "chain")
		})
		if at < 0 {
			continue
		}
		c := &out.chains[at]
		parsed := parseRule(r, func(name string) []any { return sets[c.Family+" "+c.Table+" "+name] })
		c.rules = append(c.rules, parsed)
	}
	// A chain of type nat sees only the first packet of a flow and is not meant
	// to drop; it is followed all the same, since it can.
	return out, nil
}

// forIPv4 reports whether a chain sees IPv4 packets of this host. Bridges have
// a family of their own, which sees what is only passed on.
func forIPv4(c object) bool {
	return slices.Contains([]string{"ip", "inet", "netdev"}, word(c, "family"))
}

func word(o object, key string) string {
	s, _ := o[key].(string)
	return s
}

func number(v any) float64 {
	n, _ := v.(float64)
	return n
}

func parseRule(r object, set func(string) []any) rule {
	var out rule
	var words []string
	exprs, _ := r["expr"].([]any)
	for _, e := range exprs {
		o, ok := e.(object)
		if !ok {
			out.when = append(out.when, unknowable)
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(o)) {
			v := o[key]
			words = append(words, describe(key, v))
			switch key {
			case "match":
				m, _ := v.(object)
				out.when = append(out.when, parseMatch(m, set))
			case "vmap":
				m, _ := v.(object)
				out.choices = append(out.choices, parseMap(m, set)...)
			case "counter", "log", "notrack", "mangle", "ct helper", "set", "masquerade", "flow":
				// It looks or writes, and lets the packet go on.
			case "xt":
				out.when, out.foreign = append(out.when, unknowable), true
			case "limit", "ct count", "quota", "meter", "connlimit":
				out.when = append(out.when, unknowable)
			default:
				out.then = parseAction(key, v)
			}
		}
	}
	out.text = strings.Join(words, " ")
	return out
}

func unknowable(Packet) tri { return maybe }

func parseAction(key string, v any) action {
	o, _ := v.(object)
	switch key {
	case "accept":
		return action{kind: actAccept}
	case "drop", "reject":
		return action{kind: actDrop}
	case "return":
		return action{kind: actReturn}
	case "jump":
		return action{kind: actJump, target: word(o, "target")}
	case "goto":
		return action{kind: actGoto, target: word(o, "target")}
	case "continue":
		return action{}
	}
	return action{kind: actUnsure}
}

// parseMap reads a verdict map: {"key": …, "data": {"set": [[value, verdict], …]}}.
func parseMap(m object, set func(string) []any) []choice {
	var pairs []any
	switch data := m["data"].(type) {
	case object:
		pairs, _ = data["set"].([]any)
	}
	if pairs == nil { // a named one
		return []choice{{when: unknowable, then: action{kind: actUnsure}}}
	}
	var out []choice
	for _, p := range pairs {
		pair, ok := p.([]any)
		if !ok || len(pair) != 2 {
			return []choice{{when: unknowable, then: action{kind: actUnsure}}}
		}
		c := choice{when: compare(m["key"], pair[0], set), then: action{kind: actUnsure}}
		if v, ok := pair[1].(object); ok {
			for key, inner := range v {
				c.then = parseAction(key, inner)
			}
		}
		out = append(out, c)
	}
	return out
}

func parseMatch(m object, set func(string) []any) condition {
	is := compare(m["left"], m["right"], set)
	switch word(m, "op") {
	case "==", "in":
		return is
	case "!=":
		return func(p Packet) tri { return not(is(p)) }
	}
	return unknowable
}

// compare compares a part of the packet with a value, set or range.
func compare(left, right any, set func(string) []any) condition {
	l, ok := left.(object)
	if !ok {
		return unknowable
	}
	if meta, ok := l["meta"].(object); ok {
		switch word(meta, "key") {
		case "iifname", "iif", "iifgroup":
			if word(meta, "key") == "iifgroup" {
				return unknowable
			}
			return onHook("input", right, set, func(p Packet, v any) tri { return onInterface(p, text(v)) })
		case "oifname", "oif":
			return onHook("output", right, set, func(p Packet, v any) tri { return onInterface(p, text(v)) })
		case "l4proto":
			return each(right, set, isProto)
		case "nfproto", "protocol":
			return each(right, set, func(_ Packet, v any) tri { return truth(text(v) == "ipv4" || text(v) == "ip") })
		}
		return unknowable
	}
	if ct, ok := l["ct"].(object); ok && word(ct, "key") == "state" {
		return each(right, set, func(p Packet, v any) tri { return inState(p, text(v)) })
	}
	pay, ok := l["payload"].(object)
	if !ok {
		return unknowable
	}
	proto, field := word(pay, "protocol"), word(pay, "field")
	switch {
	case proto == "ip6" || proto == "icmp" || proto == "icmpv6" || proto == "arp":
		return func(Packet) tri { return no }
	case proto == "ip" && field == "protocol":
		return each(right, set, isProto)
	case field == "dport" && (proto == "udp" || proto == "tcp" || proto == "th"):
		port := each(right, set, isPort)
		return func(p Packet) tri {
			if proto != "th" && proto != p.Proto {
				return no
			}
			return port(p)
		}
	case proto == "udp" || proto == "tcp":
		return func(p Packet) tri {
			if proto != p.Proto {
				return no
			}
			return maybe
		}
	}
	return unknowable
}

// onHook is each for an interface that a packet has only on its own side.
func onHook(hook string, right any, set func(string) []any, is func(Packet, any) tri) condition {
	c := each(right, set, is)
	return func(p Packet) tri {
		if p.Hook != hook {
			return no
		}
		return c(p)
	}
}

// each asks is of a value, or of each member of a set or list.
func each(right any, set func(string) []any, is func(Packet, any) tri) condition {
	values := []any{right}
	switch v := right.(type) {
	case []any:
		values = v
	case object:
		if s, ok := v["set"].([]any); ok {
			values = s
		}
	case string:
		if name, ok := strings.CutPrefix(v, "@"); ok {
			if values = set(name); values == nil {
				return unknowable
			}
		}
	}
	return func(p Packet) tri {
		return anyOf(values, func(v any) tri {
			if o, ok := v.(object); ok { // an element with a comment or a timeout
				if e, ok := o["elem"].(object); ok {
					v = e["val"]
				}
			}
			return is(p, v)
		})
	}
}

func isProto(p Packet, v any) tri {
	switch x := v.(type) {
	case string:
		return truth(x == p.Proto)
	case float64:
		return truth(x == 6 && p.Proto == "tcp" || x == 17 && p.Proto == "udp")
	}
	return maybe
}

func isPort(p Packet, v any) tri {
	switch x := v.(type) {
	case float64:
		return truth(int(x) == p.Port)
	case object:
		if r, ok := x["range"].([]any); ok && len(r) == 2 {
			from, ok1 := r[0].(float64)
			to, ok2 := r[1].(float64)
			if ok1 && ok2 {
				return truth(p.Port >= int(from) && p.Port <= int(to))
			}
		}
	}
	return maybe
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// describe prints a statement much as nft does.
func describe(key string, v any) string {
	o, _ := v.(object)
	switch key {
	case "match":
		op := word(o, "op") + " "
		if op == "== " || op == "in " {
			op = ""
		}
		return strings.TrimSpace(operand(o["left"]) + " " + op + operand(o["right"]))
	case "jump", "goto":
		return key + " " + word(o, "target")
	case "vmap":
		return operand(o["key"]) + " vmap …"
	case "counter", "log":
		return key
	}
	if v == nil || len(o) == 0 {
		return key
	}
	return key + " …"
}

func operand(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case float64:
		return fmt.Sprint(x)
	case []any:
		var parts []string
		for _, e := range x {
			parts = append(parts, operand(e))
		}
		return strings.Join(parts, ",")
	case object:
		for _, key := range slices.Sorted(maps.Keys(x)) {
			inner, _ := x[key].(object)
			switch key {
			case "payload":
				return strings.TrimSpace(word(inner, "protocol") + " " + word(inner, "field"))
			case "meta", "ct":
				return strings.TrimPrefix(key+" "+word(inner, "key"), "meta ")
			case "set":
				return "{ " + strings.ReplaceAll(operand(x[key]), ",", ", ") + " }"
			case "range":
				return strings.ReplaceAll(operand(x[key]), ",", "-")
			case "prefix":
				return word(inner, "addr") + "/" + operand(inner["len"])
			case "elem":
				return operand(inner["val"])
			}
		}
	}
	return "…"
}
