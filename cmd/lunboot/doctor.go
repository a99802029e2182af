package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"lunboot/cmd/lunboot/cli"
	"lunboot/services"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/dhcp/survey"
	"lunboot/services/doctor"
	"lunboot/services/loaders"
	"lunboot/store"
	"lunboot/web/api"
)

// lowSpace is when the doctor speaks up about the data folder.
const lowSpace = 1 << 30

// doctorCmd asks the running appliance, or this machine when none answers.
type doctorCmd struct {
	Interface []string `placeholder:"IF" sep:"," help:"Check this interface too, and ask the network behind it who answers DHCP."`
	Probe     []string `placeholder:"IF" sep:"," help:"Only ask this network who answers DHCP, as five kinds of client, and list each answer."`
}

// Run prints the findings; the first fault makes the exit code.
func (d *doctorCmd) Run(w *world, c *cli.Context) error {
	if len(d.Probe) > 0 {
		return d.probe(w, c)
	}
	findings, err := d.findings(w, c)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(findings); err != nil {
			return err
		}
	} else {
		t := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
		for _, f := range findings {
			colon := ""
			if f.Mend != "" {
				colon = ":"
			}
			fmt.Fprintf(t, "%s\t%s%s\t%s%s\n", marks[f.State], strings.Repeat("  ", f.Depth), f.Name, f.Detail, colon)
			if f.Mend != "" {
				fmt.Fprintf(t, "\t\t    %s\n", f.Mend)
			}
		}
		t.Flush()
	}
	if f, bad := doctor.First(findings); bad {
		return fmt.Errorf("%s: %s", f.Name, strings.TrimSuffix(f.Detail+": "+f.Mend, ": "))
	}
	return nil
}

// marks tell the states apart at a glance, without colour.
var marks = map[doctor.State]string{doctor.Well: "ok", doctor.Advice: "!!", doctor.Fault: "XX", doctor.Unknown: "??", doctor.Waits: ".."}

func (d *doctorCmd) findings(w *world, c *cli.Context) ([]doctor.Finding, error) {
	out, err := d.remote(c)
	if !errors.Is(err, cli.ErrNoAppliance) || w.grammar.Server != "" {
		return out, err
	}
	out = []doctor.Finding{{Name: "appliance", State: doctor.Fault, Detail: err.Error()}}
	return append(out, doctor.Examine(c, d.alone(w.grammar)...)...), nil
}

// remote are the appliance's own findings. It is asked to ask the networks that
// it serves first, so that it speaks of now.
func (d *doctorCmd) remote(c *cli.Context) ([]doctor.Finding, error) {
	var links struct{ Items []store.Link }
	if err := c.Client.Do(c, "GET", "/network/interfaces", nil, &links); err != nil {
		return nil, err
	}
	var chosen []string
	for _, l := range links.Items {
		if l.Mode != store.DHCPOff {
			chosen = append(chosen, l.Name)
			// A token that may only read does not ask: what was heard last counts.
			_, _ = ask(c, l.Name)
		}
	}
	// Nor does it ask the provider through which people sign in.
	_ = c.Client.Do(c, "POST", "/oidc/look", nil, nil)
	var more []doctor.Finding
	for _, name := range d.Interface {
		if slices.Contains(chosen, name) {
			continue // it is in the appliance's own list
		}
		heard, err := ask(c, name)
		if err != nil {
			heard = store.Survey{Interface: name, Failed: err.Error()}
		}
		more = append(more, doctor.Examine(c, doctor.Others(doctor.Segment{Interface: name, Ask: func(context.Context) store.Survey { return heard }}))...)
	}
	var h api.Health
	if err := c.Client.Do(c, "GET", "/health", nil, &h); err != nil {
		return nil, err
	}
	var out []doctor.Finding
	for _, s := range h.Services {
		f := doctor.Finding{Name: s.Name, OK: s.Healthy, State: doctor.Well, Detail: cmp.Or(s.Address, s.Detail)}
		if !s.Healthy {
			f.State, f.Detail = doctor.Fault, s.Detail
		}
		out = append(out, f)
	}
	for _, x := range h.Checks {
		out = append(out, doctor.Finding{Name: x.Name, OK: x.OK, State: doctor.State(x.State), Detail: x.Detail, Mend: x.Mend, Depth: x.Depth})
	}
	if c.Client.Local() && os.Geteuid() == 0 {
		out = withFilter(c, out, h, chosen)
	}
	return append(out, more...), nil
}

func ask(c *cli.Context, name string) (s store.Survey, err error) {
	err = c.Client.Do(c, "POST", "/network/probe", map[string]string{"interface": name}, &s)
	return s, err
}

// withFilter reads the packet filter here, where the appliance could not: it
// gave up the right to, and root runs this.
func withFilter(c *cli.Context, findings []doctor.Finding, h api.Health, on []string) []doctor.Finding {
	at := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Name == packetFilter && f.State == doctor.Unknown })
	if at < 0 {
		return findings
	}
	end := at + 1
	for end < len(findings) && findings[end].Depth > findings[at].Depth {
		end++
	}
	addrs := map[string]string{}
	for _, s := range h.Services {
		addrs[s.Name] = s.Address
	}
	here := doctor.Examine(c, doctor.ThisHost().Firewall(doors(len(on) > 0, addrs["TFTP"], addrs["boot HTTP"], addrs["iSCSI"]), on))
	return slices.Replace(findings, at, end, here...)
}

// packetFilter is the name of the doctor's check.
const packetFilter = "packet filter"

// doors are the ports that machines come to; a listener on loopback is none.
func doors(dhcp bool, tftp, boot, iscsi string) []doctor.Door {
	var out []doctor.Door
	if dhcp {
		out = append(out, doctor.Door{Name: "DHCP", Proto: "udp", Port: 67}, doctor.Door{Name: "PXE", Proto: "udp", Port: 4011})
	}
	for _, l := range []struct{ name, proto, addr string }{{"TFTP", "udp", tftp}, {"boot HTTP", "tcp", boot}, {"iSCSI", "tcp", iscsi}} {
		host, _, err := net.SplitHostPort(l.addr)
		a, _ := netip.ParseAddr(host)
		if port := portOf(l.addr, 0); err == nil && port != 0 && !a.IsLoopback() {
			out = append(out, doctor.Door{Name: l.name, Proto: l.proto, Port: int(port)})
		}
	}
	return out
}

// alone are the checks that make sense before an appliance runs.
func (d *doctorCmd) alone(g *grammar) []doctor.Check {
	h, s := doctor.ThisHost(), g.Serve
	exe, err := os.Executable()
	if err != nil {
		exe = "lunboot"
	}
	on := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(s.Interface), d.Interface...))))
	checks := []doctor.Check{
		{Name: "data folder", Run: func(context.Context) (string, error) {
			st, err := os.Stat(g.Data)
			if err != nil {
				return "", fmt.Errorf("%w; 'lunboot serve' makes it, or name another with --data", err)
			}
			if !st.IsDir() {
				return "", fmt.Errorf("%s is not a folder; name one with --data", g.Data)
			}
			return g.Data, nil
		}, Then: []doctor.Check{h.Space(g.Data, "", 0, lowSpace)}},
		loadersOf(loaders.Load(s.Loaders, slog.New(slog.NewTextHandler(io.Discard, nil)))),
		h.Clock(), h.Kernel(),
		h.Rights(exe, lowPort(s.TFTP, s.Boot, s.ISCSI, s.Admin) || s.DHCP != "off", s.DHCP != "off"),
		dhcpPort(on, s.DHCP == "proxy"),
		doctor.Port("PXE", "udp", int(portOf(s.PXEListen, 4011)), "--pxe-listen", services.HolderOf),
		doctor.Port("TFTP", "udp", int(portOf(s.TFTP, 69)), "--tftp", services.HolderOf),
		doctor.Port("boot HTTP", "tcp", int(portOf(s.Boot, 80)), "--boot", services.HolderOf),
		doctor.Port("iSCSI", "tcp", int(portOf(s.ISCSI, 3260)), "--iscsi", services.HolderOf),
		doctor.Port("admin HTTP", "tcp", int(portOf(s.Admin, 8080)), "--admin", services.HolderOf),
	}
	checks = append(checks, h.Firewall(doors(s.DHCP != "off", s.TFTP, s.Boot, s.ISCSI), on))
	for _, name := range on {
		checks = append(checks, h.Link(doctor.Segment{Interface: name, Ask: func(ctx context.Context) store.Survey {
			heard, _ := survey.NewBook(time.Now).Ask(ctx, name) // the survey says why, too
			return heard
		}}))
	}
	return checks
}

// dhcpPort checks port 67: on the interfaces that are named, where another
// server may have it on one and we on the other, else anywhere. In proxy mode
// it can be shared.
func dhcpPort(on []string, proxy bool) doctor.Check {
	if len(on) == 0 {
		return doctor.Port("DHCP", "udp", 67, "--dhcp off", services.HolderOf)
	}
	return doctor.Check{Name: "DHCP", Run: func(context.Context) (string, error) {
		for _, name := range on {
			ifi, err := net.InterfaceByName(name)
			if err != nil {
				continue // the interface has a check of its own
			}
			err = sockets.Free(netip.AddrPortFrom(netip.IPv4Unspecified(), 67), ifi)
			if err != nil && proxy && !sockets.Ours(err) {
				return "on " + name + " the DHCP server of this host has port 67; machines are answered beside it, and relays are not", nil
			}
			if err != nil {
				return "", fmt.Errorf("on %s: %w", name, err)
			}
		}
		return "port 67 is free on " + strings.Join(on, ", "), nil
	}}
}

func lowPort(addrs ...string) bool {
	return slices.ContainsFunc(addrs, func(a string) bool { return portOf(a, 0) != 0 && portOf(a, 0) < 1024 })
}

func loadersOf(set *loaders.Set, err error) doctor.Check {
	if err != nil {
		return doctor.Check{Name: "loaders", Run: func(context.Context) (string, error) { return "", err }}
	}
	var have []doctor.Loader
	for _, i := range set.Manifest() {
		l := doctor.Loader{Name: string(i.Name), Firmware: i.Firmware, Arch: i.Arch, Version: i.Version, Features: i.Features}
		if i.Opaque && len(i.Features) == 0 {
			l.Features = []string{"its features cannot be told from its bytes"}
		}
		have = append(have, l)
	}
	return doctor.Loaders(have, set.Missing())
}

// checkAgain looks whether anything that can be seen from here is in the way of
// packets between machines and the appliance: what the doctor finds on the way,
// and whether the appliance's own doors answer at its addresses there. A packet
// filter that shuts a door shuts it for the appliance too, unless it looks at
// the interface.
func (a *appliance) checkAgain(ctx context.Context) store.FixResult {
	_, way := a.examine(ctx)
	findings := doctor.Examine(ctx, way...)
	if f, bad := doctor.First(findings); bad {
		return store.FixResult{Says: f.Name + ": " + f.Detail}
	}
	at := a.network.addresses()
	for _, addr := range at {
		for name, bound := range map[string]netip.AddrPort{"iSCSI": a.target.Addr(), "boot HTTP": a.boot.Addr(), "TFTP": a.tftp.Addr()} {
			if !bound.Addr().IsUnspecified() && bound.Addr().Unmap() != addr {
				continue // it does not listen there
			}
			door := netip.AddrPortFrom(addr, bound.Port())
			ask := knock
			if name == "TFTP" {
				ask = knockTFTP
			}
			if err := ask(ctx, door); err != nil {
				return store.FixResult{Says: fmt.Sprintf("%s does not answer at %s, also from the appliance itself: %v; a packet filter is in the way (lunboot doctor, as root, reads it)", name, door, err)}
			}
		}
	}
	unsure := slices.ContainsFunc(findings, func(f doctor.Finding) bool { return f.State == doctor.Unknown })
	switch {
	case len(at) == 0:
		return store.FixResult{Says: "no network is served, so there is no way to check"}
	case unsure:
		return store.FixResult{OK: true, Says: "the ports answer; the packet filter itself cannot be read from inside the appliance, and lunboot doctor as root reads it"}
	}
	return store.FixResult{OK: true, Says: "the ports answer, and nothing that can be seen from the appliance is in the way"}
}

// knock opens a connection to a door and closes it again.
func knock(ctx context.Context, door netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", door.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// knockTFTP asks for a file that there is not, and is content with the answer
// that there is none (RFC 1350 §5).
func knockTFTP(ctx context.Context, door netip.AddrPort) error {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	defer c.Close()
	until, _ := ctx.Deadline()
	if soon := time.Now().Add(2 * time.Second); until.IsZero() || soon.Before(until) {
		until = soon
	}
	if err := c.SetDeadline(until); err != nil {
		return err
	}
	if _, err := c.WriteToUDPAddrPort([]byte("\x00\x01doctor.check\x00octet\x00"), door); err != nil {
		return err
	}
	_, _, err = c.ReadFromUDPAddrPort(make([]byte, 512))
	return err
}

// checks are the appliance's own, beside its services' health. They send
// nothing: of other DHCP servers they know what the last survey heard.
func (a *appliance) checks(ctx context.Context) []doctor.Finding {
	own, way := a.examine(ctx)
	return doctor.Examine(ctx, slices.Concat(own, a.fileChecks(ctx), way)...)
}

// examine makes the checks: of the appliance itself, and of the way between it
// and machines.
func (a *appliance) examine(ctx context.Context) (own, way []doctor.Check) {
	h := doctor.ThisHost()
	links, err := networks{a}.Links(ctx)
	if err != nil {
		a.log.Error("list the interfaces", "error", err)
	}
	relayed := false
	subnets, err := a.db.Subnets(ctx)
	if err != nil {
		a.log.Error("list the subnets", "error", err)
	}
	for _, s := range subnets {
		relayed = relayed || s.Interface == "" && s.Mode != store.DHCPOff
	}
	adverts, err := store.SettingValue(ctx, a.db, store.SettingRouterAdverts)
	if err != nil {
		a.log.Error("read a setting", "setting", store.SettingRouterAdverts, "error", err)
	}
	var on []string
	var each []doctor.Check
	for _, l := range links {
		if l.Mode == store.DHCPOff {
			continue
		}
		on = append(on, l.Name)
		seg := doctor.Segment{Interface: l.Name, Mode: l.Mode, Beside: a.network.beside(l.Name), Relayed: relayed, Quiet: adverts == "off"}
		if len(l.Addresses) > 0 && l.Locked == "" {
			seg.Subnet = l.Addresses[0].Masked().String()
		}
		if l.Proposed.From.IsValid() {
			seg.Range = l.Proposed.String()
		}
		if !l.Serving {
			seg.Idle = cmp.Or(l.Trouble, "its service did not start")
		}
		if l.Survey != nil {
			seg.Ask = func(context.Context) store.Survey { return *l.Survey }
		}
		each = append(each, h.Link(seg))
	}
	exe, err := os.Executable()
	if err != nil {
		exe = "lunboot"
	}
	own = []doctor.Check{
		h.Space(a.dir, filepath.Join(a.dir, "inventory.db.reserve"), reserveSize, lowSpace),
		loadersOf(a.loaders.Set, nil), h.Clock(), h.Kernel(),
		h.Rights(exe, false, len(on) > 0), // the ports are held already
		captureCheck(a.capture), notifyCheck(a), a.certificateCheck(), a.providerCheck(ctx),
	}
	way = append([]doctor.Check{
		h.Firewall(doors(len(on) > 0, a.tftp.Addr().String(), a.boot.Addr().String(), a.target.Addr().String()), on),
	}, each...)
	return own, way
}

// reserveSize is what the inventory keeps free for leases.
const reserveSize = 64 << 20

// probe asks the networks and lists each answer.
func (d *doctorCmd) probe(w *world, c *cli.Context) error {
	var all []store.Survey
	for _, name := range d.Probe {
		s, err := ask(c, name)
		if errors.Is(err, cli.ErrNoAppliance) && w.grammar.Server == "" {
			s, err = survey.NewBook(time.Now).Ask(c, name)
		}
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	if c.JSON {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	for _, s := range all {
		fmt.Fprintf(c.Out, "%s: %s\n", s.Interface, s.Sentence())
		t := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
		for _, h := range s.Heard {
			what := []string{"no address"}
			if h.Offered.IsValid() {
				what = []string{"address " + h.Offered.String()}
			}
			if h.File != "" {
				what = append(what, fmt.Sprintf("file %q", h.File))
			}
			if h.Next.IsValid() {
				what = append(what, "next server "+h.Next.String())
			}
			if h.PXE {
				what = append(what, "PXE")
			}
			if h.Ours {
				what = append(what, "this appliance")
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", h.As.Words(), h.Server, h.MAC, strings.Join(what, ", "))
		}
		t.Flush()
	}
	return nil
}
