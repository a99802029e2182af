package filter

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func in(proto string, port int) Packet {
	return Packet{Hook: "input", Proto: proto, Port: port, Interface: "eth1"}
}

// nftCases are rulesets in nft's language; a test gives each to the real nft
// and reads what that prints.
var nftCases = []struct {
	name, rules string
	ask         Packet
	fate        Fate
	why         string
}{
	{"no rules", "", in("udp", 67), Accepted, ""},
	{"a policy of drop", "table inet filter { chain input { type filter hook input priority 0; policy drop; iifname \"lo\" accept; ct state established,related accept; } }", in("udp", 67), Dropped, "policy of chain inet filter input"},
	{"its replies come in", "table inet filter { chain input { type filter hook input priority 0; policy drop; ct state established,related accept; } }", Packet{Hook: "input", Proto: "udp", Port: 40000, Interface: "eth1", Reply: true}, Accepted, ""},
	{"replies are not let in", "table inet filter { chain input { type filter hook input priority 0; policy drop; udp dport { 67, 69 } accept; } }", Packet{Hook: "input", Proto: "udp", Port: 40000, Interface: "eth1", Reply: true}, Dropped, "policy"},
	{"an open port", "table inet filter { chain input { type filter hook input priority 0; policy drop; udp dport { 67, 69 } accept; } }", in("udp", 69), Accepted, ""},
	{"the same number over TCP", "table inet filter { chain input { type filter hook input priority 0; policy drop; udp dport { 67, 69 } accept; } }", in("tcp", 69), Dropped, "policy"},
	{"an open range", "table inet filter { chain input { type filter hook input priority 0; policy drop; tcp dport 3000-4000 accept; } }", in("tcp", 3260), Accepted, ""},
	{"a named set", "table inet filter { set boot { type inet_service; elements = { 67, 69, 3260 }; } chain input { type filter hook input priority 0; policy drop; udp dport @boot accept; } }", in("udp", 69), Accepted, ""},
	{"a rule for one port", "table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 3260 drop; } }", in("tcp", 3260), Dropped, `rule "tcp dport 3260 drop" of chain inet filter input`},
	{"and the others pass it", "table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 3260 drop; } }", in("tcp", 80), Accepted, ""},
	{"another interface's rule", "table inet filter { chain input { type filter hook input priority 0; policy accept; iifname \"eth0\" udp dport 69 drop; } }", in("udp", 69), Accepted, ""},
	{"our interface is open", "table inet filter { chain input { type filter hook input priority 0; policy drop; iifname \"eth*\" accept; } }", in("tcp", 80), Accepted, ""},
	{"all but one interface", "table inet filter { chain input { type filter hook input priority 0; policy accept; iifname != \"eth0\" tcp dport 80 reject; } }", in("tcp", 80), Dropped, "tcp dport 80 reject"},
	{"only some addresses", "table inet filter { chain input { type filter hook input priority 0; policy drop; ip saddr 10.0.0.0/8 udp dport 67 accept; } }", in("udp", 67), Unsure, "ip saddr 10.0.0.0/8"},
	{"some addresses are shut out", "table inet filter { chain input { type filter hook input priority 0; policy accept; ip saddr 10.0.0.0/8 drop; } }", in("udp", 67), Unsure, "ip saddr"},
	{"a rate", "table inet filter { chain input { type filter hook input priority 0; policy drop; udp dport 67 limit rate 5/second accept; } }", in("udp", 67), Unsure, "limit"},
	{"through a jump", "table inet filter { chain boot { udp dport 69 accept; } chain input { type filter hook input priority 0; policy drop; jump boot; } }", in("udp", 69), Accepted, ""},
	{"a jump comes back", "table inet filter { chain boot { udp dport 68 accept; } chain input { type filter hook input priority 0; policy drop; jump boot; } }", in("udp", 69), Dropped, "policy"},
	{"a goto does not", "table inet filter { chain boot { udp dport 68 accept; } chain input { type filter hook input priority 0; policy drop; goto boot; udp dport 69 accept; } }", in("udp", 69), Dropped, "policy"},
	{"a return before the end", "table inet filter { chain boot { udp dport 69 return; drop; } chain input { type filter hook input priority 0; policy accept; jump boot; } }", in("udp", 69), Accepted, ""},
	{"some return", "table inet filter { chain input { type filter hook input priority 0; policy accept; ip saddr 10.0.0.1 return; udp dport 69 drop; } }", in("udp", 69), Unsure, "return"},
	{"a map of states", "table inet filter { chain input { type filter hook input priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; udp dport 69 accept; } }", in("udp", 69), Accepted, ""},
	{"a map of ports", "table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport vmap { 80 : drop, 81 : accept }; } }", in("tcp", 80), Dropped, "vmap"},
	{"a second chain drops what the first let in", "table inet a { chain input { type filter hook input priority 0; policy drop; udp dport 69 accept; } }; table ip b { chain in { type filter hook input priority 10; policy accept; udp dport 69 drop; } }", in("udp", 69), Dropped, "chain ip b in"},
	{"before the routing", "table inet raw { chain pre { type filter hook prerouting priority raw; policy accept; iifname \"eth1\" udp dport 67 drop; } }", in("udp", 67), Dropped, "inet raw pre"},
	{"IPv6 is not asked", "table ip6 filter { chain input { type filter hook input priority 0; policy drop; } }", in("udp", 67), Accepted, ""},
	{"nfproto IPv6", "table inet filter { chain input { type filter hook input priority 0; policy accept; meta nfproto ipv6 drop; ip6 saddr ::1 drop; icmp type echo-request drop; } }", in("udp", 67), Accepted, ""},
	{"the protocol by number", "table inet filter { chain input { type filter hook input priority 0; policy accept; meta l4proto { tcp } drop; } }", in("tcp", 80), Dropped, "l4proto"},
	{"counted and logged", "table inet filter { chain input { type filter hook input priority 0; policy drop; udp dport 67 counter log prefix \"dhcp \" accept; } }", in("udp", 67), Accepted, ""},
	{"out", "table inet filter { chain output { type filter hook output priority 0; policy drop; } }", Packet{Hook: "output", Proto: "udp", Port: 2070, Interface: "eth1"}, Dropped, "policy of chain inet filter output"},
}

const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

func TestTheRealNFTsRulesAreJudged(t *testing.T) {
	if os.Getenv(insideNamespace) == "" {
		missing := func(why string) {
			if os.Getenv("CI") == "true" {
				t.Fatal(why)
			}
			t.Skip(why)
		}
		if os.Getuid() != 0 {
			missing("network namespaces need root")
		}
		if _, err := exec.LookPath("nft"); err != nil {
			missing("nft is not installed: apt-get install nftables")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), insideNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in its own namespace: %v\n%s", err, out)
		}
		return
	}
	for _, c := range nftCases {
		t.Run(c.name, func(t *testing.T) {
			load := exec.CommandContext(t.Context(), "nft", "-f", "-")
			load.Stdin = strings.NewReader("flush ruleset\n" + strings.ReplaceAll(c.rules, "; }", "; }\n") + "\n")
			if out, err := load.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			text, err := exec.CommandContext(t.Context(), "nft", "-j", "list", "ruleset").Output()
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseNFT(text)
			if err != nil {
				t.Fatal(err)
			}
			v := r.Ask(c.ask)
			if v.Fate != c.fate || !strings.Contains(v.Why, c.why) {
				t.Errorf("fate %d because of %q, want %d because of %q; nft printed:\n%s", v.Fate, v.Why, c.fate, c.why, text)
			}
		})
	}
}

func TestIPTablesRulesAreJudged(t *testing.T) {
	const ufw = `-P INPUT DROP
-P FORWARD DROP
-P OUTPUT ACCEPT
-N ufw-before-input
-N ufw-user-input
-N ufw-not-local
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 80 -m comment --comment "the boot server" -j ACCEPT
-A ufw-user-input -p udp -m multiport --dports 67,69 -j ACCEPT
`
	const odd = `-P INPUT ACCEPT
-A INPUT ! -i eth0 -p tcp -m tcp --dport 3260 -j REJECT --reject-with icmp-port-unreachable
-A INPUT -s 10.0.0.0/8 -p udp -m udp --dport 69 -j DROP
-A INPUT -p udp -m udp --dport 67 -m hashlimit --hashlimit-above 5/sec --hashlimit-name x -j DROP
-A INPUT -p tcp -m tcp --dport 8000:8100 -j LOG --log-prefix "in here "
-A INPUT -p tcp -m tcp --dport 8000:8100 -j DROP
`
	for _, c := range []struct {
		rules string
		ask   Packet
		fate  Fate
		why   string
	}{
		{ufw, in("tcp", 80), Accepted, ""},
		{ufw, in("udp", 69), Accepted, ""},
		{ufw, in("tcp", 3260), Dropped, "policy"},
		{ufw, Packet{Hook: "input", Proto: "udp", Port: 40000, Interface: "eth1", Reply: true}, Accepted, ""},
		{odd, in("tcp", 3260), Dropped, "-j REJECT"},
		{odd, in("udp", 69), Unsure, "10.0.0.0/8"},
		{odd, in("udp", 67), Unsure, "hashlimit"},
		{odd, in("tcp", 8080), Dropped, "8000:8100 -j DROP"},
		{odd, in("tcp", 80), Accepted, ""},
	} {
		r, err := ParseIPTables(c.rules)
		if err != nil {
			t.Fatal(err)
		}
		if v := r.Ask(c.ask); v.Fate != c.fate || !strings.Contains(v.Why, c.why) {
			t.Errorf("%v: fate %d because of %q, want %d because of %q", c.ask, v.Fate, v.Why, c.fate, c.why)
		}
	}
	r, _ := ParseIPTables(ufw)
	if !r.HasChain("ufw-user-input") || r.HasChain("other") || !r.Has("filter") {
		t.Error("the chains of ufw are not known")
	}
	if _, err := ParseIPTables("*filter\n"); err == nil {
		t.Error("what is not iptables -S was read")
	}
}

// As nft prints rules that iptables made and that it has no words for.
const foreign = `{"nftables": [{"metainfo": {"version": "1.0.6"}},
{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
{"chain": {"family": "inet", "table": "own", "name": "in", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}},
{"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 4, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}, {"xt": {"type": "match", "name": "udp"}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}}]}`

func TestRulesThatNFTCannotPrintComeFromIPTables(t *testing.T) {
	r, err := ParseNFT([]byte(foreign))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Foreign() || r.Ask(in("udp", 67)).Fate != Unsure {
		t.Errorf("foreign %v, fate %d", r.Foreign(), r.Ask(in("udp", 67)).Fate)
	}
	tables, err := ParseIPTables("-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 67 -j DROP\n")
	if err != nil {
		t.Fatal(err)
	}
	both := r.With(tables)
	if both.Foreign() || !both.Has("own") || both.Ask(in("udp", 67)).Fate != Dropped || both.Ask(in("udp", 69)).Fate != Accepted {
		t.Errorf("%+v", both.Ask(in("udp", 67)))
	}
}

func TestWhatIsHandedToAProgramHasAnUnknownEnd(t *testing.T) {
	const queued = `{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "in", "hook": "input", "policy": "accept"}},
{"rule": {"family": "ip", "table": "t", "chain": "in", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 67}}, {"queue": {"num": 0}}]}}]}`
	r, err := ParseNFT([]byte(queued))
	if err != nil {
		t.Fatal(err)
	}
	if v := r.Ask(in("udp", 67)); v.Fate != Unsure || !strings.Contains(v.Why, "queue") {
		t.Errorf("fate %d because of %q", v.Fate, v.Why)
	}
}

func TestAnUnknownInterfaceIsNeverLoopback(t *testing.T) {
	p := Packet{Hook: "input", Proto: "udp", Port: 67}
	r, err := ParseIPTables("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n")
	if err != nil {
		t.Fatal(err)
	}
	if v := r.Ask(p); v.Fate != Dropped {
		t.Errorf("fate %d because of %q", v.Fate, v.Why)
	}
	r, _ = ParseIPTables("-P INPUT DROP\n-A INPUT -i eth3 -j ACCEPT\n")
	if v := r.Ask(p); v.Fate != Unsure {
		t.Errorf("fate %d because of %q", v.Fate, v.Why)
	}
}

func FuzzParseNFT(f *testing.F) {
	f.Add(foreign)
	for _, e := range []string{`{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[[80,{"drop":null}]]}}}`, `{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["new"]}}`, `{"jump":{"target":"in"}}`} {
		f.Add(fmt.Sprintf(`{"nftables":[{"chain":{"family":"ip","table":"t","name":"in","hook":"input","policy":"drop"}},{"rule":{"family":"ip","table":"t","chain":"in","expr":[%s]}}]}`, e))
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseNFT([]byte(s))
		if err == nil {
			r.Ask(in("udp", 67))
		}
	})
}

func FuzzParseIPTables(f *testing.F) {
	f.Add("-P INPUT DROP\n-A INPUT ! -i lo -p udp -m udp --dport 1:2,3 -m comment --comment \"a b\" -j X\n-N X\n-A X -j X\n")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseIPTables(s)
		if err == nil {
			r.Ask(in("udp", 67))
		}
	})
}
