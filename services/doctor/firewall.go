package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"lunboot/services/doctor/filter"
)

// Door is a port that machines must be able to reach.
type Door struct {
	Name  string // "DHCP"
	Proto string // "udp" or "tcp"
	Port  int
}

func (d Door) String() string { return fmt.Sprintf("%s port %d", strings.ToUpper(d.Proto), d.Port) }

// Firewall checks that the host's packet filter lets machines in: to each door,
// and to the ephemeral ports from which TFTP answers. interfaces are those
// that machines boot on; none means that nobody has chosen yet.
func (h Host) Firewall(doors []Door, interfaces []string) Check {
	var rules filter.Ruleset
	c := Check{Name: "packet filter", Run: func(ctx context.Context) (fact string, err error) {
		rules, fact, err = h.ruleset(ctx)
		return fact, err
	}}
	if len(interfaces) == 0 {
		interfaces = []string{""}
	}
	for _, d := range doors {
		c.Then = append(c.Then, Check{Name: d.Name + " is let in", Run: func(context.Context) (string, error) {
			for _, name := range interfaces {
				v := rules.Ask(filter.Packet{Hook: "input", Proto: d.Proto, Port: d.Port, Interface: name})
				if err := judge(rules, v, d.String(), name, d.Proto, fmt.Sprint(d.Port)); err != nil {
					return "", err
				}
			}
			return d.String() + " is open", nil
		}})
	}
	if at := doorOf(doors, "TFTP"); at.Port != 0 {
		c.Then = append(c.Then, Check{Name: "TFTP replies pass", Run: func(context.Context) (string, error) { return h.replies(rules, interfaces) }})
	}
	return c
}

func doorOf(doors []Door, name string) Door {
	for _, d := range doors {
		if d.Name == name {
			return d
		}
	}
	return Door{}
}

// ruleset reads the host's packet filter. An error is never "there is none".
func (h Host) ruleset(ctx context.Context) (filter.Ruleset, string, error) {
	const install = "apt-get install nftables"
	legacy, legacyErr := h.legacy(ctx)
	text, err := h.Run(ctx, "nft", "-j", "list", "ruleset")
	switch {
	case errors.Is(err, exec.ErrNotFound):
		if legacyErr != nil {
			return legacy, "", legacyErr
		}
		if !legacy.Empty() {
			return legacy, "read from iptables", nil
		}
		if used, known := h.nftUsed(); !known || used {
			return legacy, "", unknown(install, "the packet filter cannot be read: there is no program nft. Install it")
		}
		return legacy, "the kernel has no packet filter loaded", nil
	case err != nil:
		return legacy, "", unknown("sudo lunboot doctor", "the packet filter cannot be read (%s), which needs root. Run", reason(err))
	}
	rules, err := filter.ParseNFT(text)
	if err != nil {
		return rules, "", unknown("nft list ruleset", "the packet filter cannot be read: %v. Look yourself", err)
	}
	if legacyErr != nil {
		return rules, "", legacyErr
	}
	if rules.Foreign() && legacy.Empty() {
		// iptables-nft: nft shows the rules without the words of its extensions.
		out, err := h.Run(ctx, "iptables", "-S")
		if err == nil {
			legacy, err = filter.ParseIPTables(string(out))
		}
		if err != nil {
			return rules, "", unknown("iptables -S", "rules that iptables made cannot be read (%s). Look yourself", reason(err))
		}
	}
	rules = rules.With(legacy)
	if rules.Empty() {
		return rules, "no rules", nil
	}
	return rules, "rules read", nil
}

// legacy reads the tables of the older iptables, which nft does not show.
func (h Host) legacy(ctx context.Context) (filter.Ruleset, error) {
	names, err := h.ReadFile("/proc/net/ip_tables_names")
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && !strings.Contains(string(names), "filter"):
		return filter.Ruleset{}, nil // not loaded
	case err != nil:
		return filter.Ruleset{}, unknown("sudo lunboot doctor", "the packet filter cannot be read (%s), which needs root. Run", reason(err))
	}
	out, err := h.Run(ctx, "iptables-legacy", "-S")
	if errors.Is(err, exec.ErrNotFound) {
		out, err = h.Run(ctx, "iptables", "-S")
	}
	var rules filter.Ruleset
	if err == nil {
		rules, err = filter.ParseIPTables(string(out))
	}
	if err != nil {
		return rules, unknown("iptables -S", "the rules of iptables cannot be read (%s). Look yourself", reason(err))
	}
	return rules, nil
}

// nftUsed reports whether the kernel could hold nft's rules.
func (h Host) nftUsed() (used, known bool) {
	if _, err := h.ReadDir("/sys/module/nf_tables"); err == nil {
		return true, true
	}
	mods, err := h.ReadFile("/proc/modules")
	if err != nil {
		return false, false // built in, perhaps
	}
	return strings.Contains("\n"+string(mods), "\nnf_tables "), true
}

func reason(err error) string {
	if e, ok := errors.AsType[*exec.ExitError](err); ok && len(e.Stderr) > 0 {
		first, _, _ := strings.Cut(strings.TrimSpace(string(e.Stderr)), "\n")
		return first
	}
	return err.Error()
}

// judge turns a verdict into a finding with the command that opens the port.
func judge(rules filter.Ruleset, v filter.Verdict, what, ifname, proto, ports string) error {
	on := ""
	if ifname != "" {
		on = " on " + ifname
	}
	switch v.Fate {
	case filter.Dropped:
		return fault(open(rules, v.Chain, ifname, proto, ports), "%s%s is shut: %s. Open it", what, on, v.Why)
	case filter.Unsure:
		return unknown("nft list ruleset", "whether %s%s can be reached depends on %s. Look yourself", what, on, v.Why)
	}
	return nil
}

// open is the command that lets a port in, in the words of whoever manages the
// packet filter. A rule of our own beside theirs would be gone with their next
// reload.
func open(rules filter.Ruleset, c filter.Chain, ifname, proto, ports string) string {
	switch {
	case rules.HasChain("ufw-user-input"):
		on := ""
		if ifname != "" {
			on = "in on " + ifname + " "
		}
		return fmt.Sprintf("ufw allow %sto any port %s proto %s", on, strings.Replace(ports, "-", ":", 1), proto)
	case rules.Has("firewalld") || rules.HasChain("IN_public"):
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%s/%s && firewall-cmd --reload", ports, proto)
	case c.Family == "ip" && c.Table == "filter" && c.Name == "INPUT":
		on := ""
		if ifname != "" {
			on = "-i " + ifname + " "
		}
		return fmt.Sprintf("iptables -I INPUT %s-p %s --dport %s -j ACCEPT", on, proto, strings.Replace(ports, "-", ":", 1))
	}
	on := ""
	if ifname != "" {
		on = fmt.Sprintf(" iifname \"%s\"", ifname)
	}
	return fmt.Sprintf("nft insert rule %s%s %s dport %s accept", c, on, proto, ports)
}

// openReplies is the command that lets in what belongs to a flow of ours, a
// smaller hole than a range of ports.
func openReplies(rules filter.Ruleset, c filter.Chain, ifname, ports string) string {
	switch {
	case rules.HasChain("ufw-user-input") || rules.Has("firewalld"):
		return open(rules, c, ifname, "udp", ports) // both let replies in, unless somebody took that out
	case c.Family == "ip" && c.Table == "filter" && c.Name == "INPUT":
		return "iptables -I INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
	}
	return fmt.Sprintf("nft insert rule %s ct state established,related accept", c)
}

// replies checks the second half of TFTP: each transfer runs between two
// ephemeral ports (RFC 1350 §4), so that acknowledgements come to one that no
// rule names.
func (h Host) replies(rules filter.Ruleset, interfaces []string) (string, error) {
	low, high := h.ephemeral()
	ports := fmt.Sprintf("%d-%d", low, high)
	for _, name := range interfaces {
		for _, port := range []int{low, (low + high) / 2, high} {
			v := rules.Ask(filter.Packet{Hook: "input", Proto: "udp", Port: port, Interface: name, Reply: true})
			if v.Fate == filter.Dropped {
				return "", fault(openReplies(rules, v.Chain, name, ports), "machines acknowledge loaders to UDP ports %s, and these are shut: %s. Let replies in", ports, v.Why)
			}
			if err := judge(rules, v, "UDP ports "+ports+", to which machines acknowledge loaders,", name, "udp", ports); err != nil {
				return "", err
			}
			out := rules.Ask(filter.Packet{Hook: "output", Proto: "udp", Port: port, Interface: name})
			if out.Fate == filter.Dropped {
				return "", fault("nft insert rule "+out.Chain.String()+" meta l4proto udp accept", "our answers do not leave: %s. Let them out", out.Why)
			}
		}
	}
	return "acknowledgements to UDP ports " + ports + " come in", nil
}

// ephemeral is the range that the kernel takes ports from (ip(7)).
func (h Host) ephemeral() (low, high int) {
	b, err := h.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &low, &high)
	}
	if err != nil || low < 1 || high < low || high > 65535 {
		return 32768, 60999 // the kernel's own default
	}
	return low, high
}
