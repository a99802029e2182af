package cli

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"lunboot/store"
)

// SubnetCmd is the noun subnet.
type SubnetCmd struct {
	List   SubnetListCmd   `cmd:"" help:"List subnets."`
	Add    SubnetAddCmd    `cmd:"" help:"Add a subnet: on an interface, or behind a relay."`
	Set    SubnetSetCmd    `cmd:"" help:"Change a subnet."`
	Remove SubnetRemoveCmd `cmd:"" help:"Remove a subnet; its leases stay until they end."`
}

// SubnetListCmd lists subnets.
type SubnetListCmd struct{ listFlags }

// Run lists subnets.
func (l *SubnetListCmd) Run(c *Context) error {
	var out list[struct {
		store.Subnet
		Given int `json:"given"`
	}]
	if err := c.Client.Do(c, "GET", "/subnets"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, s := range out.Items {
			where := s.Interface
			if where == "" {
				where = "behind a relay"
			}
			names := joined(s.DNS)
			if s.Domain != "" {
				names = strings.TrimSpace(names + " " + s.Domain)
			}
			rows = append(rows, []string{strconv.FormatInt(s.ID, 10), s.Prefix.String(), where, string(s.Mode), addressRange(s.Range), address(s.Router), names, s.LeaseTime.String(), strconv.Itoa(s.Given)})
		}
		c.table("ID NETWORK INTERFACE MODE RANGE ROUTER NAMES LEASE GIVEN", rows)
	})
}

func addressRange(r store.Range) string {
	if !r.From.IsValid() {
		return ""
	}
	return r.String()
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func joined(all []netip.Addr) string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// subnetFields are the flags that add and set share. A nil field is not sent; an
// empty text takes a value away.
type subnetFields struct {
	Interface  *string        `placeholder:"IF" help:"The interface that it is on; without one it is behind a relay."`
	Prefix     *string        `placeholder:"NETWORK" help:"Its network, such as 192.168.40.0/24 (default: the interface's)."`
	Mode       *string        `placeholder:"MODE" help:"full gives addresses, proxy says only what to boot, off does nothing (default: full)."`
	Range      *string        `placeholder:"A-B" help:"Addresses to give, such as 192.168.40.100-192.168.40.199."`
	Router     *string        `placeholder:"IP" help:"Router."`
	DNS        []string       `name:"dns" placeholder:"IP" help:"Name server; repeat for several."`
	Domain     *string        `help:"Domain."`
	Search     []string       `placeholder:"DOMAIN" help:"Domain to look names up in; repeat for several."`
	NTP        []string       `name:"ntp" placeholder:"IP" help:"Time server; repeat for several."`
	LeaseTime  *time.Duration `name:"lease-time" placeholder:"TIME" help:"How long an address is given for, such as 30m or 4h (default: 4h)."`
	NextServer *string        `name:"next-server" placeholder:"IP" help:"Address of this appliance that machines there boot from (default: the one by which they reach it)."`
}

func (f subnetFields) body() map[string]any {
	b := map[string]any{}
	put := func(key string, v *string) {
		if v != nil {
			b[key] = *v
		}
	}
	many := func(key string, v []string) {
		if len(v) == 1 && v[0] == "" {
			v = []string{}
		}
		if v != nil {
			b[key] = v
		}
	}
	put("interface", f.Interface)
	put("prefix", f.Prefix)
	put("mode", f.Mode)
	put("range", f.Range)
	put("router", f.Router)
	many("dns", f.DNS)
	put("domain", f.Domain)
	many("search", f.Search)
	many("ntp", f.NTP)
	put("next_server", f.NextServer)
	if f.LeaseTime != nil {
		b["lease_time"] = int64(*f.LeaseTime)
	}
	return b
}

// SubnetAddCmd adds a subnet.
type SubnetAddCmd struct {
	subnetFields
}

// Run adds a subnet.
func (a *SubnetAddCmd) Run(c *Context) error {
	if a.Interface == nil && a.Prefix == nil {
		return usage("name the subnet: --interface for one of this appliance's networks, --prefix for one behind a relay")
	}
	var s store.Subnet
	if err := c.Client.Do(c, "POST", "/subnets", a.body(), &s); err != nil {
		return err
	}
	return c.show(s, func() { c.say("%s", said(s)) })
}

// said is what a subnet is from here on, in one sentence.
func said(s store.Subnet) string {
	where := " behind relays"
	if s.Interface != "" {
		where = " on " + s.Interface
	}
	what := s.Prefix.String() + where
	switch {
	case s.Mode == store.DHCPProxy:
		return "machines of " + what + " are told what to boot"
	case s.Mode == store.DHCPOff:
		return what + " is left alone"
	case s.Range.From.IsValid():
		return "machines of " + what + " are given " + s.Range.String()
	}
	return "machines of " + what + " are given their reserved addresses; --range gives others, too"
}

// SubnetSetCmd changes a subnet.
type SubnetSetCmd struct {
	Subnet string `arg:"" help:"Id or network, such as 192.168.40.0/24."`
	subnetFields
	ifSeen
}

// Run changes a subnet.
func (s *SubnetSetCmd) Run(c *Context) error {
	in := s.body()
	if len(in) == 0 {
		return usage("nothing to change; name at least one flag, such as --range")
	}
	n, err := findSubnet(c, s.Subnet)
	if err != nil {
		return err
	}
	if s.Revision == 0 {
		s.Revision = n.Revision
	}
	if err := c.change("PATCH", "/subnets/"+strconv.FormatInt(n.ID, 10), "", s.tag(), in, &n); err != nil {
		return err
	}
	return c.show(n, func() { c.say("%s", said(n)) })
}

// SubnetRemoveCmd removes a subnet.
type SubnetRemoveCmd struct {
	Subnet string `arg:"" help:"Id or network, such as 192.168.40.0/24."`
	ifSeen
}

// Run removes a subnet.
func (r *SubnetRemoveCmd) Run(c *Context) error {
	n, err := findSubnet(c, r.Subnet)
	if err != nil {
		return err
	}
	if r.Revision == 0 {
		r.Revision = n.Revision
	}
	if err := c.change("DELETE", "/subnets/"+strconv.FormatInt(n.ID, 10), "", r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("%s is gone", n.Name())
	return nil
}

// findSubnet looks up a subnet by its id or its network.
func findSubnet(c *Context, key string) (store.Subnet, error) {
	var all list[store.Subnet]
	if err := c.Client.Do(c, "GET", "/subnets", nil, &all); err != nil {
		return store.Subnet{}, err
	}
	var found []store.Subnet
	for _, s := range all.Items {
		if key == strconv.FormatInt(s.ID, 10) || key == s.Prefix.String() || key == s.Name() {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return store.Subnet{}, store.NotFound("subnet", key)
	case 1:
		return found[0], nil
	}
	return store.Subnet{}, store.Conflict("subnet", "%s is on %s and on %s; name the id", key, found[0].Interface, found[1].Interface)
}
