package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"lunboot/store"
)

// Segment is a network that machines boot on, or that somebody asks about.
type Segment struct {
	Interface string
	Mode      store.DHCPMode // how the appliance takes part there; empty when nobody has chosen
	Subnet    string         // what "lunboot subnet set" calls it; empty when there is none
	Range     string         // addresses that could be given there, as "A-B"; empty for none
	Idle      string         // why that mode is not at work; empty when it is, or cannot be told
	Beside    string         // who has the DHCP port there, beside whom that mode is at work; empty for nobody
	Relayed   bool           // requests from other networks come in here, through a relay
	Quiet     bool           // the operator switched off answers to router solicitations
	// Ask asks who else answers DHCP there; nil sends nothing.
	Ask func(context.Context) store.Survey
}

// Link checks one network: its interface, what the kernel does to the packets
// of machines there, and who else answers.
func (h Host) Link(s Segment) Check {
	name := s.Interface
	c := Check{Name: "interface " + name, Run: func(context.Context) (string, error) {
		ifi, addrs, err := h.Interface(name)
		switch {
		case err != nil:
			return "", fault("ip -brief link", "there is no interface %s. See what there is", name)
		case ifi.Flags&net.FlagUp == 0:
			return "", fault(fmt.Sprintf("ip link set %s up", name), "%s is down. Bring it up", name)
		}
		if _, err := h.ReadDir("/sys/class/net/" + name + "/brport"); err == nil {
			return "", fault("bridge link show dev "+name, "%s is a port of a bridge, so its packets are the bridge's. Name that bridge as the interface", name)
		}
		if ifi.Flags&net.FlagRunning == 0 {
			return "", fault("ethtool "+name, "%s has no carrier: no cable, or nothing at its other end. Look at it", name)
		}
		if len(addrs) == 0 {
			return "", fault(fmt.Sprintf("ip address add 192.168.40.1/24 dev %s", name), "%s has no IPv4 address. Give it one, such as", name)
		}
		return join(addrs) + ", link up", nil
	}}
	if s.Mode != "" && s.Mode != store.DHCPOff {
		c.Then = append(c.Then, Check{Name: "DHCP on " + name, Run: func(context.Context) (string, error) {
			if s.Idle != "" {
				return "", fault("", "%s mode is chosen and does not run: %s", s.Mode, s.Idle)
			}
			switch {
			case s.Beside != "" && s.Relayed:
				return "", advice("", "%s mode runs beside another program on this host, so that machines on this wire are answered, and those behind relays are not: %s", s.Mode, s.Beside)
			case s.Beside != "":
				return fmt.Sprintf("%s mode beside another program on this host; machines on this wire are answered, relays would not be: %s", s.Mode, s.Beside), nil
			}
			return string(s.Mode) + " mode", nil
		}})
	}
	c.Then = append(c.Then, h.spanningTree(name), h.advertisements(s))
	if s.Relayed {
		c.Then = append(c.Then, h.returnPath(name))
	}
	if s.Ask != nil {
		c.Then = append(c.Then, Others(s))
	}
	return c
}

func join(addrs []netip.Prefix) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// spanningTree checks a bridge of ours. Each port that comes up listens and
// learns before it forwards, for twice the forward delay (IEEE 802.1D-1998
// §8.4): longer than firmware waits for an address.
func (h Host) spanningTree(name string) Check {
	return Check{Name: "spanning tree on " + name, Run: func(context.Context) (string, error) {
		dir := "/sys/class/net/" + name + "/bridge/"
		if _, err := h.ReadDir(dir); err != nil {
			return "no bridge", nil
		}
		on, err := h.number(dir + "stp_state")
		if err != nil {
			return "", unknown("ip -details link show "+name, "whether the bridge runs spanning tree cannot be read (%v). Look yourself", err)
		}
		if on == 0 {
			return "off: ports forward at once", nil
		}
		delay, err := h.number(dir + "forward_delay") // hundredths of a second
		if err != nil {
			delay = 1500
		}
		return "", fault(fmt.Sprintf("ip link set %s type bridge stp_state 0", name),
			"each port of the bridge %s is deaf for %d s after it comes up, and a machine that is switched on gives up before. Where there is no loop, turn spanning tree off", name, 2*delay/100)
	}}
}

func (h Host) number(path string) (int, error) {
	b, err := h.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// advertisers are programs that send router advertisements.
var advertisers = []string{"radvd", "corerad", "bird", "zebra"}

// advertisements says who answers iPXE's question for an IPv6 router.
func (h Host) advertisements(s Segment) Check {
	name := s.Interface
	return Check{Name: "router solicitations on " + name, Run: func(context.Context) (string, error) {
		if s.Quiet {
			return "", advice("lunboot setting set router-adverts on", "the appliance was told not to answer them: where no router does, iPXE waits 16 s at each stage. Let it answer")
		}
		conf := "/proc/sys/net/ipv6/conf/" + name + "/"
		if off, err := h.number(conf + "disable_ipv6"); err != nil || off == 1 {
			return "", advice(fmt.Sprintf("sysctl -w net.ipv6.conf.%s.disable_ipv6=0", name), "%s has no IPv6. iPXE asks for a router all the same; the appliance answers it without an address of its own. It does so more surely with IPv6 on", name)
		}
		if who := h.running(advertisers); who != "" {
			return who + " answers them, so the appliance does not", nil
		}
		if on, err := h.number(conf + "forwarding"); err == nil && on == 1 {
			return "", advice(fmt.Sprintf("sysctl -w net.ipv6.conf.%s.forwarding=0", name),
				"this host forwards IPv6, so the appliance leaves router solicitations to it, and nothing here answers them: iPXE waits 16 s at each stage. Run a router daemon such as radvd, or stop forwarding")
		}
		return "the appliance answers them", nil
	}}
}

// running returns the first of some programs that runs, "" for none.
func (h Host) running(programs []string) string {
	pids, err := h.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, pid := range pids {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		comm, err := h.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		for _, p := range programs {
			if strings.TrimSpace(string(comm)) == p {
				return p
			}
		}
	}
	return ""
}

// returnPath checks the kernel's filter of source addresses (RFC 3704): a
// machine behind a relay has an address that this interface may not lead to.
func (h Host) returnPath(name string) Check {
	return Check{Name: "return path on " + name, Run: func(context.Context) (string, error) {
		worst := 0
		for _, conf := range []string{"all", name} { // the larger of both counts (ip-sysctl)
			n, err := h.number("/proc/sys/net/ipv4/conf/" + conf + "/rp_filter")
			if err != nil {
				return "", unknown("sysctl net.ipv4.conf."+name+".rp_filter", "the filter of source addresses cannot be read (%v). Look yourself", err)
			}
			worst = max(worst, n)
		}
		if worst == 1 {
			return "", advice(fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2", name),
				"the kernel drops packets of machines behind a relay when their route leads out elsewhere. Make it less strict")
		}
		return "packets of relayed networks are taken", nil
	}}
}

// change is the command that chooses another mode.
func (s Segment) change(mode, rng string) string {
	if s.Subnet == "" {
		return ""
	}
	cmd := "lunboot subnet set " + s.Subnet + " --mode " + mode
	if rng != "" {
		cmd += " --range " + rng
	}
	return cmd
}

// Others asks who else answers DHCP on a network.
func Others(s Segment) Check {
	return Check{Name: "other DHCP servers on " + s.Interface, Run: func(ctx context.Context) (string, error) {
		heard := s.Ask(ctx)
		text, verdict := heard.Sentence(), heard.Verdict()
		switch {
		case verdict == store.VerdictUnknown:
			return "", unknown("sudo lunboot doctor --probe "+s.Interface, "nobody was asked: %s. Ask again", text)
		case s.Mode == store.DHCPFull && verdict == store.VerdictBootOnly:
			return "", fault("", "%s", text)
		case s.Mode == store.DHCPFull && verdict != store.VerdictNobody:
			return "", fault(s.change("proxy", ""), "two servers give addresses on %s: %s. Turn the other one off, or leave the addresses to it", s.Interface, strings.TrimSuffix(text, ": proxy fits"))
		case s.Mode == store.DHCPProxy && (verdict == store.VerdictNobody || verdict == store.VerdictBootOnly):
			return "", fault(s.change("full", s.Range), "nobody gives addresses on %s, so no machine starts there. Turn your DHCP server on, or give them from here", s.Interface)
		case verdict == store.VerdictConflict && s.Mode != "" && s.Mode != store.DHCPOff:
			return "", fault("", "%s", text)
		case verdict == store.VerdictConflict, verdict == store.VerdictBootOnly:
			return "", advice("", "%s", text)
		}
		return text, nil
	}}
}
