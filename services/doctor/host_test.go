package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/services"
	"lunboot/store"
)

// house is a machine in memory.
type house struct {
	files    map[string]string
	denied   map[string]bool   // files that may not be read
	commands map[string]string // what "nft -j list ruleset" prints
	refused  map[string]error
	free     int64
	synced   error // nil: yes
	adrift   bool
	now      time.Time
	flags    net.Flags
	addrs    []netip.Prefix
}

func newHouse() *house {
	return &house{
		files: map[string]string{
			"/proc/self/status":                         "Name:\tlunboot\nCapEff:\t0000000000002400\n",
			"/proc/net/packet":                          "sk",
			"/proc/net/if_inet6":                        "",
			"/proc/modules":                             "bridge 1 0 - Live 0x0\n",
			"/proc/sys/net/ipv4/ip_local_port_range":    "32768\t60999\n",
			"/proc/sys/net/ipv6/conf/eth1/disable_ipv6": "0\n",
			"/proc/sys/net/ipv6/conf/eth1/forwarding":   "0\n",
			"/proc/sys/net/ipv4/conf/all/rp_filter":     "0\n",
			"/proc/sys/net/ipv4/conf/eth1/rp_filter":    "0\n",
			"/proc/1/comm":                              "systemd\n",
			"/sys/class/net/eth1/operstate":             "up\n",
		},
		denied: map[string]bool{}, commands: map[string]string{}, refused: map[string]error{},
		free: 50 << 30, now: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC),
		flags: net.FlagUp | net.FlagRunning, addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")},
	}
}

func (h *house) host() Host {
	return Host{
		ReadFile: func(p string) ([]byte, error) {
			if h.denied[p] {
				return nil, &os.PathError{Op: "open", Path: p, Err: syscall.EACCES}
			}
			if v, ok := h.files[p]; ok {
				return []byte(v), nil
			}
			return nil, &os.PathError{Op: "open", Path: p, Err: syscall.ENOENT}
		},
		ReadDir: func(dir string) ([]string, error) {
			var out []string
			dir = path.Clean(dir)
			for f := range h.files {
				if rest, ok := strings.CutPrefix(f, dir+"/"); ok {
					name, _, _ := strings.Cut(rest, "/")
					out = append(out, name)
				}
			}
			if out == nil {
				return nil, os.ErrNotExist
			}
			slices.Sort(out)
			return slices.Compact(out), nil
		},
		Run: func(_ context.Context, name string, args ...string) ([]byte, error) {
			line := strings.Join(append([]string{name}, args...), " ")
			if err := h.refused[line]; err != nil {
				return nil, err
			}
			if out, ok := h.commands[line]; ok {
				return []byte(out), nil
			}
			return nil, exec.ErrNotFound
		},
		Free:         func(string) (int64, error) { return h.free, nil },
		Synchronised: func() (bool, error) { return !h.adrift, h.synced },
		Interface: func(name string) (*net.Interface, []netip.Prefix, error) {
			if name != "eth1" {
				return nil, nil, errors.New("no such network interface")
			}
			return &net.Interface{Name: name, Flags: h.flags}, h.addrs, nil
		},
		Now: func() time.Time { return h.now },
	}
}

// finds checks the one finding of a name.
func finds(t *testing.T, got []Finding, name string, state State, wants ...string) {
	t.Helper()
	for _, f := range got {
		if f.Name != name {
			continue
		}
		if f.State != state || f.OK != (state == Well) {
			t.Errorf("%s is %s, want %s: %s", name, f.State, state, f.Detail)
		}
		for _, want := range wants {
			if !strings.Contains(f.Detail+"\n"+f.Mend, want) {
				t.Errorf("%s says %q with %q, not %q", name, f.Detail, f.Mend, want)
			}
		}
		return
	}
	t.Errorf("no finding %q in %+v", name, got)
}

func TestAHealthyMachineHasNothingToMend(t *testing.T) {
	h := newHouse().host()
	got := Examine(t.Context(), h.Rights("/usr/bin/lunboot", true, true), h.Clock(), h.Space("/data", "", 0, 1<<30), h.Kernel(),
		h.Firewall([]Door{{"TFTP", "udp", 69}}, []string{"eth1"}), h.Link(Segment{Interface: "eth1", Relayed: true}))
	for _, f := range got {
		if f.State != Well || f.Mend != "" {
			t.Errorf("%+v", f)
		}
	}
	if len(got) < 10 {
		t.Errorf("only %d checks", len(got))
	}
}

func TestMissingRightsComeWithTheCommand(t *testing.T) {
	w := newHouse()
	w.files["/proc/self/status"] = "CapEff:\t0000000000000400\n"
	finds(t, Examine(t.Context(), w.host().Rights("/usr/bin/lunboot", true, true)), "rights", Fault, "CAP_NET_RAW", "setcap cap_net_bind_service,cap_net_raw+ep /usr/bin/lunboot")
	w.files["/proc/self/status"] = "CapEff:\t0000000000002000\n"
	finds(t, Examine(t.Context(), w.host().Rights("x", true, true)), "rights", Fault, "CAP_NET_BIND_SERVICE")
	w.files["/proc/sys/net/ipv4/ip_unprivileged_port_start"] = "0\n"
	finds(t, Examine(t.Context(), w.host().Rights("x", true, true)), "rights", Well)
	w.files["/proc/self/status"] = "CapEff:\t0000000000000000\n"
	finds(t, Examine(t.Context(), w.host().Rights("x", false, false)), "rights", Well)
	delete(w.files, "/proc/self/status")
	finds(t, Examine(t.Context(), w.host().Rights("x", true, true)), "rights", Unknown)
}

func TestAClockThatWasNeverSetIsAFault(t *testing.T) {
	w := newHouse()
	w.now = time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC)
	finds(t, Examine(t.Context(), w.host().Clock()), "clock", Fault, "1970-01-01", "timedatectl")
	w = newHouse()
	w.adrift = true
	finds(t, Examine(t.Context(), w.host().Clock()), "clock", Advice, "systemd-timesyncd")
	w.synced = syscall.EPERM
	finds(t, Examine(t.Context(), w.host().Clock()), "clock", Unknown, "timedatectl")
}

func TestSpaceAndItsReserve(t *testing.T) {
	w := newHouse()
	w.free = 100 << 20
	finds(t, Examine(t.Context(), w.host().Space("/data", "", 0, 1<<30)), "free space", Fault, "100 MiB", "df -h /data")
	w.free = 9 << 30
	reserve := t.TempDir() + "/inventory.db.reserve"
	finds(t, Examine(t.Context(), w.host().Space("/data", reserve, 4096, 1<<30)), "free space", Advice, "were given back")
	if err := os.WriteFile(reserve, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	finds(t, Examine(t.Context(), w.host().Space("/data", reserve, 4096, 1<<30)), "free space", Well, "9 GiB free", "kept for leases")
}

func TestLoadersAreShownWithWhatTheyCan(t *testing.T) {
	got := Examine(t.Context(), Loaders([]Loader{{Name: "snponly.efi", Firmware: "UEFI", Arch: "x86-64", Version: "1.21.1", Features: []string{"iSCSI", "HTTP"}}}, ""))
	finds(t, got, "loaders", Well, "1 loaders")
	finds(t, got, "snponly.efi", Well, "UEFI x86-64, iPXE 1.21.1, iSCSI HTTP")
	finds(t, Examine(t.Context(), Loaders(nil, "There is no loader for BIOS machines. Install one with `apt-get install ipxe`, or put …")), "loaders", Fault, "no loader for BIOS machines", "apt-get install ipxe")
}

func TestAPortsHolderIsNamedWithTheWayToStopIt(t *testing.T) {
	holder := func(network string, port int) (services.Holder, bool) {
		switch fmt.Sprint(network, port) {
		case "udp69":
			return services.Holder{Name: "in.tftpd", PID: 812, Stop: "systemctl disable --now tftpd-hpa"}, true
		case "tcp3260":
			return services.Holder{Stop: "targetcli clearconfig confirm=True"}, true
		}
		return services.Holder{}, false
	}
	finds(t, Examine(t.Context(), Port("TFTP", "udp", 69, "--tftp", holder)), "TFTP", Fault, "in.tftpd (pid 812)", "systemctl disable --now tftpd-hpa")
	finds(t, Examine(t.Context(), Port("iSCSI", "tcp", 3260, "--iscsi", holder)), "iSCSI", Fault, "cannot be named", "targetcli")
	finds(t, Examine(t.Context(), Port("boot HTTP", "tcp", 80, "--boot", holder)), "boot HTTP", Well, "port 80 is free")
}

const shut = `{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "prio": 0, "policy": "drop"}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 2, "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": {"set": [67]}}}, {"accept": null}]}}]}`

var doors = []Door{{"DHCP", "udp", 67}, {"TFTP", "udp", 69}, {"boot HTTP", "tcp", 80}, {"iSCSI", "tcp", 3260}}

func TestAShutPortComesWithTheCommandThatOpensIt(t *testing.T) {
	w := newHouse()
	w.commands["nft -j list ruleset"] = shut
	got := Examine(t.Context(), w.host().Firewall(doors, []string{"eth1"}))
	finds(t, got, "packet filter", Well)
	finds(t, got, "DHCP is let in", Well)
	finds(t, got, "iSCSI is let in", Fault, "TCP port 3260 on eth1 is shut", "policy of chain inet filter input is drop", `nft insert rule inet filter input iifname "eth1" tcp dport 3260 accept`)
	finds(t, got, "TFTP replies pass", Fault, "32768-60999", "nft insert rule inet filter input ct state established,related accept")

	t.Run("in ufw's words", func(t *testing.T) {
		w := newHouse()
		w.files["/proc/net/ip_tables_names"] = "filter\n"
		w.commands["iptables-legacy -S"] = "-P INPUT DROP\n-N ufw-user-input\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A INPUT -j ufw-user-input\n-A ufw-user-input -p udp -m udp --dport 67 -j ACCEPT\n"
		got := Examine(t.Context(), w.host().Firewall(doors, []string{"eth1"}))
		finds(t, got, "DHCP is let in", Well)
		finds(t, got, "boot HTTP is let in", Fault, "ufw allow in on eth1 to any port 80 proto tcp")
		finds(t, got, "TFTP replies pass", Well)
	})
	t.Run("in firewalld's words", func(t *testing.T) {
		w := newHouse()
		w.commands["nft -j list ruleset"] = strings.ReplaceAll(shut, `"table": "filter"`, `"table": "firewalld"`)
		finds(t, Examine(t.Context(), w.host().Firewall(doors, nil)), "TFTP is let in", Fault, "firewall-cmd --permanent --add-port=69/udp && firewall-cmd --reload")
	})
	t.Run("in iptables' words", func(t *testing.T) {
		w := newHouse()
		w.files["/proc/net/ip_tables_names"] = "filter\n"
		w.commands["iptables -S"] = "-P INPUT DROP\n"
		got := Examine(t.Context(), w.host().Firewall(doors, []string{"eth1"}))
		finds(t, got, "TFTP is let in", Fault, "iptables -I INPUT -i eth1 -p udp --dport 69 -j ACCEPT")
		finds(t, got, "TFTP replies pass", Fault, "--ctstate RELATED,ESTABLISHED")
	})
}

func TestAPacketFilterThatCannotBeReadIsNeverGreen(t *testing.T) {
	for name, change := range map[string]func(*house){
		"no right":                func(w *house) { w.refused["nft -j list ruleset"] = errors.New("Operation not permitted") },
		"nonsense":                func(w *house) { w.commands["nft -j list ruleset"] = "{" },
		"no nft, and it is used":  func(w *house) { w.files["/proc/modules"] = "nf_tables 1 0 - Live 0x0\n" },
		"no nft, and nobody says": func(w *house) { w.denied["/proc/modules"] = true },
		"tables without a reader": func(w *house) { w.files["/proc/net/ip_tables_names"] = "filter\n" },
		"tables that we may not see": func(w *house) {
			w.denied["/proc/net/ip_tables_names"] = true
			w.commands["nft -j list ruleset"] = `{"nftables": []}`
		},
		"rules without iptables": func(w *house) {
			w.commands["nft -j list ruleset"] = `{"nftables": [{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}}, {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "expr": [{"xt": null}, {"drop": null}]}}]}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHouse()
			change(w)
			got := Examine(t.Context(), w.host().Firewall(doors, []string{"eth1"}))
			finds(t, got, "packet filter", Unknown)
			finds(t, got, "DHCP is let in", Waits)
			if _, bad := First(got); bad {
				t.Error("and it is called a fault")
			}
		})
	}
	w := newHouse()
	w.commands["nft -j list ruleset"] = `{"nftables": [{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}}, {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "expr": [{"xt": null}, {"drop": null}]}}]}`
	w.commands["iptables -S"] = "-P INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 67 -j DROP\n"
	got := Examine(t.Context(), w.host().Firewall(doors, []string{"eth1"}))
	finds(t, got, "DHCP is let in", Fault, "--dport 67 -j DROP")
	finds(t, got, "TFTP is let in", Well)
}

func TestALinkSaysWhatKeepsMachinesFromBooting(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*house)
		finding string
		state   State
		wants   []string
	}{
		"down":       {func(w *house) { w.flags = 0 }, "interface eth1", Fault, []string{"ip link set eth1 up"}},
		"no carrier": {func(w *house) { w.flags = net.FlagUp }, "interface eth1", Fault, []string{"no cable", "ethtool eth1"}},
		"no address": {func(w *house) { w.addrs = nil }, "interface eth1", Fault, []string{"ip address add", "dev eth1"}},
		"a bridge's port": {func(w *house) { w.files["/sys/class/net/eth1/brport/state"] = "3" }, "interface eth1", Fault,
			[]string{"port of a bridge"}},
		"spanning tree": {func(w *house) {
			w.files["/sys/class/net/eth1/bridge/stp_state"], w.files["/sys/class/net/eth1/bridge/forward_delay"] = "1\n", "1500\n"
		}, "spanning tree on eth1", Fault, []string{"30 s", "ip link set eth1 type bridge stp_state 0"}},
		"a bridge without it": {func(w *house) { w.files["/sys/class/net/eth1/bridge/stp_state"] = "0\n" }, "spanning tree on eth1", Well, nil},
		"forwarding": {func(w *house) { w.files["/proc/sys/net/ipv6/conf/eth1/forwarding"] = "1\n" }, "router solicitations on eth1", Advice,
			[]string{"16 s", "sysctl -w net.ipv6.conf.eth1.forwarding=0"}},
		"a router daemon": {func(w *house) {
			w.files["/proc/sys/net/ipv6/conf/eth1/forwarding"], w.files["/proc/77/comm"] = "1\n", "radvd\n"
		}, "router solicitations on eth1", Well, []string{"radvd answers"}},
		"no IPv6":     {func(w *house) { w.files["/proc/sys/net/ipv6/conf/eth1/disable_ipv6"] = "1\n" }, "router solicitations on eth1", Advice, []string{"disable_ipv6=0"}},
		"strict path": {func(w *house) { w.files["/proc/sys/net/ipv4/conf/all/rp_filter"] = "1\n" }, "return path on eth1", Advice, []string{"rp_filter=2"}},
		"loose path":  {func(w *house) { w.files["/proc/sys/net/ipv4/conf/all/rp_filter"] = "2\n" }, "return path on eth1", Well, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHouse()
			c.change(w)
			finds(t, Examine(t.Context(), w.host().Link(Segment{Interface: "eth1", Relayed: true})), c.finding, c.state, c.wants...)
		})
	}
	got := Examine(t.Context(), newHouse().host().Link(Segment{Interface: "eth1", Mode: store.DHCPProxy, Idle: "port 4011 is taken", Quiet: true}))
	finds(t, got, "DHCP on eth1", Fault, "proxy mode is chosen and does not run: port 4011 is taken")
	finds(t, got, "router solicitations on eth1", Advice, "router-adverts on")
	finds(t, Examine(t.Context(), newHouse().host().Link(Segment{Interface: "eth1", Mode: store.DHCPFull})), "DHCP on eth1", Well, "full mode")
	shared := Segment{Interface: "eth1", Mode: store.DHCPProxy, Beside: "UDP port 67 is held by dnsmasq (pid 7)"}
	finds(t, Examine(t.Context(), newHouse().host().Link(shared)), "DHCP on eth1", Well, "relays would not be: UDP port 67 is held by dnsmasq (pid 7)")
	shared.Relayed = true
	finds(t, Examine(t.Context(), newHouse().host().Link(shared)), "DHCP on eth1", Advice, "those behind relays are not", "held by dnsmasq")
	got = Examine(t.Context(), newHouse().host().Link(Segment{Interface: "eth9"}))
	finds(t, got, "interface eth9", Fault, "there is no interface eth9")
	finds(t, got, "spanning tree on eth9", Waits)
}

func TestAnotherServerIsAFaultOnlyWhereItIsInTheWay(t *testing.T) {
	router := []store.Heard{{As: store.ClientPlain, Server: netip.MustParseAddr("10.77.0.254"), Offered: netip.MustParseAddr("10.77.0.50")}}
	boots := append(router, store.Heard{As: store.ClientBIOS, Server: netip.MustParseAddr("10.77.0.254"), Offered: netip.MustParseAddr("10.77.0.50"), File: "pxelinux.0"})
	proxy := []store.Heard{{As: store.ClientUEFI, Server: netip.MustParseAddr("10.77.0.9"), PXE: true}}
	for _, c := range []struct {
		mode  store.DHCPMode
		heard []store.Heard
		state State
		want  string
	}{
		{"", nil, Well, "nobody else answers"},
		{"", router, Well, "proxy fits"},
		{"", boots, Advice, "pxelinux.0"},
		{store.DHCPFull, nil, Well, "nobody else answers"},
		{store.DHCPFull, router, Fault, "two servers give addresses"},
		{store.DHCPFull, proxy, Fault, "10.77.0.9 gives no addresses"},
		{store.DHCPProxy, router, Well, "proxy fits"},
		{store.DHCPProxy, boots, Fault, `"pxelinux.0"`},
		{store.DHCPProxy, nil, Fault, "nobody gives addresses"},
		{store.DHCPOff, boots, Advice, "pxelinux.0"},
	} {
		seg := Segment{Interface: "eth1", Mode: c.mode, Ask: func(context.Context) store.Survey { return store.Survey{Heard: c.heard} }}
		t.Run(fmt.Sprintf("%s, %d answers", c.mode, len(c.heard)), func(t *testing.T) {
			finds(t, Examine(t.Context(), newHouse().host().Link(seg)), "other DHCP servers on eth1", c.state, c.want)
		})
	}
	seg := Segment{Interface: "eth1", Mode: store.DHCPFull, Subnet: "10.77.0.0/24", Range: "10.77.0.128-10.77.0.254", Ask: func(context.Context) store.Survey { return store.Survey{Heard: router} }}
	finds(t, Examine(t.Context(), Others(seg)), "other DHCP servers on eth1", Fault, "lunboot subnet set 10.77.0.0/24 --mode proxy")
	seg.Mode, seg.Ask = store.DHCPProxy, func(context.Context) store.Survey { return store.Survey{} }
	finds(t, Examine(t.Context(), Others(seg)), "other DHCP servers on eth1", Fault, "lunboot subnet set 10.77.0.0/24 --mode full --range 10.77.0.128-10.77.0.254")
	seg = Segment{Interface: "eth1", Ask: func(context.Context) store.Survey { return store.Survey{Failed: "root is needed"} }}
	finds(t, Examine(t.Context(), newHouse().host().Link(seg)), "other DHCP servers on eth1", Unknown, "root is needed", "--probe eth1")
}

const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

// The rules, the program that prints them and the kernel are real here.
func TestTheRealPacketFilterIsRead(t *testing.T) {
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
		if _, err := lookPath("nft"); err != nil {
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
	h := ThisHost()
	got := Examine(t.Context(), h.Firewall(doors, []string{"eth1"}))
	for _, d := range doors {
		finds(t, got, d.Name+" is let in", Well)
	}
	run := func(line string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	run(`nft add table inet filter; nft 'add chain inet filter input { type filter hook input priority 0; policy drop; }'; nft add rule inet filter input iifname lo accept`)
	// Each command that a fault comes with mends it.
	for range 10 {
		f, bad := First(Examine(t.Context(), h.Firewall(doors, []string{"eth1"})))
		if !bad {
			break
		}
		t.Log(f.Name, "mended by", f.Mend)
		run(f.Mend)
	}
	got = Examine(t.Context(), h.Firewall(doors, []string{"eth1"}))
	for _, d := range doors {
		finds(t, got, d.Name+" is let in", Well)
	}
	finds(t, got, "TFTP replies pass", Well)
	finds(t, Examine(t.Context(), h.Firewall([]Door{{"SSH", "tcp", 22}}, []string{"eth1"})), "SSH is let in", Fault)
}
