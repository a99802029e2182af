package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// RouterAddr is the address of a lab's router.
var RouterAddr = netip.MustParseAddr("10.77.0.254")

const routerInterface = "rtr0"

// Router is somebody else's DHCP server on the lab's network, in a namespace of
// its own: a dnsmasq that gives addresses from .50 to .59, as a home router does.
type Router struct {
	Namespace string
	network   *Network
	process   *Process
}

// StartRouter starts a dnsmasq beside the appliance, with flags besides those
// that give addresses, and waits until it serves.
func (l *Lab) StartRouter(ctx context.Context, flags ...string) (*Router, error) {
	r := &Router{Namespace: strings.TrimSuffix(l.Network.Server, "-srv") + "-rtr", network: l.Network}
	if err := l.Network.join(ctx, r.Namespace, routerInterface, netip.PrefixFrom(RouterAddr, ServerPrefix.Bits())); err != nil {
		return nil, err
	}
	if err := shell(ctx, r.Namespace, "ip addr add fd00:77::1/64 dev "+routerInterface); err != nil {
		return nil, err
	}
	return r, r.Start(ctx, flags...)
}

// Start starts the router's dnsmasq, with other flags if need be.
func (r *Router) Start(ctx context.Context, flags ...string) error {
	args := append([]string{
		"-k", "-C", "/dev/null", "--log-facility=-", "--port=0", "--user=root", "--interface=" + routerInterface, "--bind-interfaces",
		"--dhcp-authoritative", "--no-ping", "--dhcp-range=10.77.0.50,10.77.0.59,1h", "--leasefile-ro",
	}, flags...)
	p, err := Start(ctx, Command{Namespace: r.Namespace, Path: "dnsmasq", Args: args})
	if err != nil {
		return err
	}
	r.process = p
	for !strings.Contains(p.Output(), "DHCP, IP range") {
		select {
		case <-p.Done():
			return fmt.Errorf("the router ended: %w: %s", p.Wait(), p.Output())
		case <-ctx.Done():
			return fmt.Errorf("the router did not start: %w: %s", context.Cause(ctx), p.Output())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// Stop switches the router off.
func (r *Router) Stop() {
	if r.process != nil {
		r.process.Kill()
		r.process = nil
	}
}

// Log is what the router said.
func (r *Router) Log() string {
	if r.process == nil {
		return ""
	}
	return r.process.Output()
}
