package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The lab's network. Nothing of it reaches the host's own interfaces.
const (
	ServerInterface = "srv0"
	bridge          = "br0"
	bridgePort      = "lan0"
)

// ServerAddr is the appliance's address, ServerPrefix its network.
var (
	ServerAddr   = netip.MustParseAddr("10.77.0.1")
	ServerPrefix = netip.MustParsePrefix("10.77.0.0/24")
)

// Network is two namespaces: Server, where the appliance runs, and LAN, a
// bridge with a tap for each machine.
type Network struct {
	Server string
	LAN    string
	taps   int
	others []string // namespaces that joined
}

const namePrefix = "lunlab-"

// ownName carries who made a namespace or folder: process id and start time
// together are unique for as long as the host runs, so a later run knows a dead
// owner. The last part is free for a random number and the kind.
func ownName(rest string) (string, error) {
	started, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d-%d-%s", namePrefix, os.Getpid(), started, rest), nil
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot (proc(5)).
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses and may hold anything.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat cannot be read", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// abandoned reports whether a name is a lab's whose process has ended.
func abandoned(name string) bool {
	rest, found := strings.CutPrefix(name, namePrefix)
	parts := strings.SplitN(rest, "-", 3)
	if !found || len(parts) != 3 {
		return false
	}
	pid, err1 := strconv.Atoi(parts[0])
	born, err2 := strconv.ParseUint(parts[1], 10, 64)
	if err1 != nil || err2 != nil {
		return false
	}
	now, err := startTime(pid)
	return errors.Is(err, os.ErrNotExist) || err == nil && now != born
}

// RemoveAbandoned removes what crashed runs left behind: their processes, then
// their namespaces and folders. It returns the names that it removed.
func RemoveAbandoned(ctx context.Context) ([]string, error) {
	list, err := Run(ctx, Command{Path: "ip", Args: []string{"netns", "list"}})
	if err != nil {
		return nil, err
	}
	var removed []string
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !abandoned(name) {
			continue
		}
		if err := removeNamespace(ctx, name); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), namePrefix+"*"))
	if err != nil {
		return removed, err
	}
	for _, dir := range dirs {
		if !abandoned(filepath.Base(dir)) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return removed, fmt.Errorf("removing what a crashed run left: %w", err)
		}
		removed = append(removed, dir)
	}
	return removed, nil
}

// removeNamespace ends the processes of a namespace and removes it. All of
// them are a lab's: nobody else knows the name.
func removeNamespace(ctx context.Context, name string) error {
	pids, err := Run(ctx, Command{Path: "ip", Args: []string{"netns", "pids", name}})
	if err != nil {
		return err
	}
	for field := range strings.FieldsSeq(string(pids)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("ending process %d of namespace %s: %w", pid, name, err)
			}
		}
	}
	_, err = Run(ctx, Command{Path: "ip", Args: []string{"netns", "delete", name}})
	return err
}

// NewNetwork makes the two namespaces. Close removes them.
func NewNetwork(ctx context.Context) (_ *Network, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab makes network namespaces and taps, which only root may: run it as root")
	}
	var id [3]byte
	rand.Read(id[:])
	name, err := ownName(hex.EncodeToString(id[:]))
	if err != nil {
		return nil, err
	}
	n := &Network{Server: name + "-srv", LAN: name + "-lan"}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, name := range []string{n.Server, n.LAN} {
		if _, err = Run(ctx, Command{Path: "ip", Args: []string{"netns", "add", name}}); err != nil {
			return nil, err
		}
	}
	// No DAD: an interface that advertises within its first second has its
	// link-local address at once. No autoconfiguration: what the appliance
	// advertises must not come back to it as an address of its own.
	const quiet = `
for f in /proc/sys/net/ipv6/conf/*; do
	echo 0 >$f/accept_ra; echo 0 >$f/autoconf; echo 0 >$f/accept_dad; echo 0 >$f/dad_transmits; echo 0 >$f/router_solicitations
done
`
	server := quiet + fmt.Sprintf(`
ip link set lo up
ip link add %[1]s type veth peer name %[2]s netns %[3]s
for f in accept_ra autoconf accept_dad dad_transmits router_solicitations; do echo 0 >/proc/sys/net/ipv6/conf/%[1]s/$f; done
ip addr add %[4]s/%[5]d brd + dev %[1]s
ethtool -K %[1]s tx off rx off sg off tso off gso off gro off >/dev/null
ip link set %[1]s up
ip route add default dev %[1]s
`, ServerInterface, bridgePort, n.LAN, ServerAddr, ServerPrefix.Bits())
	lan := fmt.Sprintf(`
for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done
ip link set lo up
ip link add %[1]s type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ethtool -K %[2]s tx off rx off sg off tso off gso off gro off >/dev/null
ip link set %[2]s master %[1]s
ip link set %[2]s up
ip link set %[1]s up
`, bridge, bridgePort)
	for _, step := range []struct{ ns, script string }{{n.Server, server}, {n.LAN, lan}} {
		if err = shell(ctx, step.ns, step.script); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// shell runs a script in a namespace and stops at its first failing line.
func shell(ctx context.Context, ns, script string) error {
	_, err := Run(ctx, Command{Namespace: ns, Path: "/bin/sh", Args: []string{"-euc", script}})
	return err
}

// join makes a namespace with an interface on the bridge.
func (n *Network) join(ctx context.Context, ns, name string, addr netip.Prefix) error {
	if _, err := Run(ctx, Command{Path: "ip", Args: []string{"netns", "add", ns}}); err != nil {
		return err
	}
	n.others = append(n.others, ns)
	port := fmt.Sprintf("far%d", len(n.others))
	err := shell(ctx, ns, fmt.Sprintf(`
for f in /proc/sys/net/ipv6/conf/*; do echo 0 >$f/accept_dad; echo 0 >$f/dad_transmits; done
ip link set lo up
ip link add %[1]s type veth peer name %[2]s netns %[3]s
ip addr add %[4]s brd + dev %[1]s
ethtool -K %[1]s tx off rx off sg off tso off gso off gro off >/dev/null
ip link set %[1]s up
`, name, port, n.LAN, addr))
	if err != nil {
		return err
	}
	return shell(ctx, n.LAN, fmt.Sprintf("ip link set %[1]s master %[2]s\nip link set %[1]s up\n", port, bridge))
}

// AddTap makes one more tap on the bridge and returns its name.
func (n *Network) AddTap(ctx context.Context) (string, error) {
	tap := fmt.Sprintf("tap%d", n.taps)
	n.taps++
	return tap, shell(ctx, n.LAN, fmt.Sprintf("ip tuntap add dev %[1]s mode tap\nip link set %[1]s master %[2]s\nip link set %[1]s up\n", tap, bridge))
}

// The network behind the router that Route makes, and the router's addresses on
// both sides.
var (
	RoutedPrefix = netip.MustParsePrefix("10.88.0.0/24")
	routerInside = netip.MustParseAddr("10.88.0.1")
	routerServer = netip.MustParseAddr("10.77.0.2")
)

// Relay is a DHCP relay agent for Route: its command, which runs on the router
// until the context ends.
type Relay func(inside, outside string) (program string, args []string)

// Dhcrelay is ISC's relay agent, which says in option 82 where a machine is.
func Dhcrelay(inside, outside string) (string, []string) {
	return "dhcrelay", []string{"-4", "-d", "--no-pid", "-a", "-id", inside, "-iu", outside, ServerAddr.String()}
}

// Dnsmasq is dnsmasq as nothing but a relay agent.
func Dnsmasq(_, _ string) (string, []string) {
	return "dnsmasq", []string{"-d", "-C", "/dev/null", "--port=0", "--user=root", "--dhcp-relay=" + routerInside.String() + "," + ServerAddr.String()}
}

// Route puts a router between the appliance and the machines: they are on
// RoutedPrefix from here on, and DHCP reaches the appliance through a relay.
func (n *Network) Route(ctx context.Context, relay Relay) (*Process, error) {
	router := fmt.Sprintf(`
ip link set %[1]s nomaster
ip addr add %[2]s/%[3]d brd + dev %[1]s
ip addr add %[4]s/%[5]d brd + dev %[6]s
echo 1 >/proc/sys/net/ipv4/ip_forward
`, bridgePort, routerServer, ServerPrefix.Bits(), routerInside, RoutedPrefix.Bits(), bridge)
	if err := shell(ctx, n.LAN, router); err != nil {
		return nil, err
	}
	if err := shell(ctx, n.Server, fmt.Sprintf("ip route add %s via %s\n", RoutedPrefix, routerServer)); err != nil {
		return nil, err
	}
	path, args := relay(bridge, bridgePort)
	return Start(ctx, Command{Namespace: n.LAN, Path: path, Args: args})
}

// Unplug pulls the server's cable, Plug puts it back: the machines see a
// network that swallows everything.
func (n *Network) Unplug(ctx context.Context) error {
	return shell(ctx, n.LAN, "ip link set "+bridgePort+" down")
}

// Plug undoes Unplug.
func (n *Network) Plug(ctx context.Context) error {
	return shell(ctx, n.LAN, "ip link set "+bridgePort+" up")
}

// Close removes the namespaces, with every interface in them.
func (n *Network) Close() error {
	// Removal must work when the run was cancelled, too.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var errs []error
	for _, name := range append([]string{n.LAN, n.Server}, n.others...) {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			errs = append(errs, removeNamespace(ctx, name))
		}
	}
	return errors.Join(errs...)
}
