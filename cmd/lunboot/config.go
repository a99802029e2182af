package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"lunboot/services/httpboot"
	"lunboot/store"
)

// serveCmd is 'lunboot serve': the flags that decide what the inventory does
// not. Every one is also an environment variable LUNBOOT_….
type serveCmd struct {
	Interface   []string `placeholder:"IF" sep:"," help:"Network interface to answer DHCP on; repeat for several."`
	DHCP        string   `name:"dhcp" enum:"auto,full,proxy,off" default:"auto" help:"Part in DHCP: ${enum}. full gives addresses; proxy leaves them to another DHCP server and says what to boot; auto is full where a range was chosen and no other server answers, and proxy where one does."`
	DHCPRange   string   `name:"dhcp-range" placeholder:"A-B" help:"Addresses to give, such as 192.168.40.100-192.168.40.199."`
	DHCPListen  string   `name:"dhcp-listen" placeholder:"ADDR" help:"Address of the DHCP listener (default: port 67 on each interface)."`
	PXEListen   string   `name:"pxe-listen" placeholder:"ADDR" help:"Address where firmware asks for its boot server (default: port 4011 on each interface)."`
	DHCPForce   bool     `name:"dhcp-force" help:"Give addresses although another DHCP server answers."`
	Advertise   string   `placeholder:"IP" help:"Address to tell machines instead of ours on their interface."`
	ScriptGuard string   `name:"script-guard" enum:"strict,subnet,off" default:"strict" help:"Who gets a script with passwords: the address that the machine's MAC holds (strict), its subnet, anybody (off)."`
	Admin       string   `default:":8080" placeholder:"ADDR" help:"Pages and API for people (default: :8080)."`
	TLS         string   `name:"tls" enum:"off,self" default:"off" help:"HTTPS on the admin port: ${enum}. self: with a certificate that the appliance makes and keeps; its fingerprint is printed."`
	TLSCert     string   `name:"tls-cert" placeholder:"FILE" help:"HTTPS on the admin port with this certificate chain (PEM); read again when it changes."`
	TLSKey      string   `name:"tls-key" placeholder:"FILE" help:"The key of --tls-cert (PEM)."`
	Boot        string   `default:":80" placeholder:"ADDR" help:"Scripts and files for machines (default: :80)."`
	TFTP        string   `name:"tftp" default:":69" placeholder:"ADDR" help:"Loaders for machines (default: :69)."`
	ISCSI       string   `name:"iscsi" default:":3260" placeholder:"ADDR" help:"Portal of the iSCSI target (default: :3260). Up to 1024 sessions, 64 of one initiator; the data that they have under way takes at most 512 MiB and 1 MiB for each."`
	Target      string   `placeholder:"IQN" help:"Name of the target (default: chosen at the first start)."`
	Loaders     string   `placeholder:"DIR" help:"Folder with loaders of your own; each replaces the built-in one of its name."`
	Images      []string `placeholder:"DIR" sep:":" help:"Folder with disk images that may be imported from the pages, besides DATA/images; repeat for several."`
	LogFormat   string   `name:"log-format" enum:"text,json" default:"text" help:"Log format: ${enum}."`
	LogLevel    string   `name:"log-level" enum:"debug,info,warn,error" default:"info" help:"Least level to log: ${enum}."`
}

// settings are the flags, read.
type settings struct {
	rng       store.Range // zero when no range was given
	advertise netip.Addr
	guard     httpboot.Guard
	target    store.IQN
}

// read checks every flag, before anything is opened.
func (c *serveCmd) read() (s settings, err error) {
	if err := c.checkTLS(); err != nil {
		return s, err
	}
	if c.DHCPRange != "" {
		if s.rng, err = store.ParseRange(c.DHCPRange); err != nil {
			return s, fmt.Errorf("--dhcp-range: %w", err)
		}
	}
	if c.Advertise != "" {
		if s.advertise, err = netip.ParseAddr(c.Advertise); err != nil || !s.advertise.Is4() {
			return s, fmt.Errorf("--advertise: %q is not an IPv4 address", c.Advertise)
		}
	}
	if s.guard, err = httpboot.ParseGuard(c.ScriptGuard); err != nil {
		return s, fmt.Errorf("--script-guard: %w", err)
	}
	if c.Target != "" {
		if s.target, err = store.ParseIQN(c.Target); err != nil {
			return s, fmt.Errorf("--target: %w", err)
		}
	}
	switch {
	case c.DHCP == "proxy" && len(c.Interface) == 0:
		return s, fmt.Errorf("--dhcp proxy needs --interface: nothing is sent to a network that nobody chose")
	case c.DHCP == "proxy" && s.rng.From.IsValid():
		return s, fmt.Errorf("--dhcp proxy gives no addresses, so --dhcp-range has no meaning with it")
	case c.DHCP == "full" && len(c.Interface) == 0:
		return s, fmt.Errorf("--dhcp full needs --interface: nothing is sent to a network that nobody chose")
	case c.DHCP == "full" && !s.rng.From.IsValid():
		return s, fmt.Errorf("--dhcp full needs --dhcp-range, such as 192.168.40.100-192.168.40.199")
	case s.rng.From.IsValid() && len(c.Interface) == 0:
		return s, fmt.Errorf("--dhcp-range needs --interface: nothing is sent to a network that nobody chose")
	case s.rng.From.IsValid() && len(c.Interface) > 1:
		return s, fmt.Errorf("--dhcp-range goes with one --interface; serve the others from the page or with their own subnets")
	}
	for _, name := range c.Interface {
		if _, err := net.InterfaceByName(name); err != nil {
			return s, fmt.Errorf("--interface: there is no network interface %q here; there are: %s", name, interfaceNames())
		}
	}
	return s, nil
}

func interfaceNames() string {
	ifs, err := net.Interfaces()
	if err != nil {
		return "none that can be listed"
	}
	out := ""
	for _, i := range ifs {
		if out != "" {
			out += ", "
		}
		out += i.Name
	}
	return out
}

// logger makes the one logger; services get children of it.
func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// portOf reads the port of a listen address, def when it has none.
func portOf(addr string, def uint16) uint16 {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return def
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return def
	}
	return uint16(n)
}
