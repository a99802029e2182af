package typed

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"lunboot/store"
)

// Subnet reads a form's fields into a subnet; what has no field there keeps its
// value. Several fields may be at fault.
func Subnet(n *store.Subnet, field func(string) string) error {
	var errs []error
	text := func(name string) string { return strings.TrimSpace(field(name)) }
	n.Mode = store.DHCPMode(text("mode"))
	if n.ID == 0 {
		p, err := netip.ParsePrefix(text("prefix"))
		if err != nil {
			errs = append(errs, store.Invalid("prefix", "%q is not a network, such as 192.168.40.0/24", text("prefix")))
		}
		n.Prefix = p
	}
	n.Range = store.Range{}
	if t := text("range"); t != "" {
		r, err := store.ParseRange(t)
		if err != nil {
			errs = append(errs, Named("range", err))
		}
		n.Range = r
	}
	one := func(name string, a *netip.Addr) {
		*a = netip.Addr{}
		if t := text(name); t != "" {
			v, err := netip.ParseAddr(t)
			if err != nil {
				errs = append(errs, store.Invalid(name, "%q is not an address, such as 192.168.40.1", t))
			}
			*a = v
		}
	}
	one("router", &n.Router)
	one("next_server", &n.NextServer)
	many := func(name string, all *[]netip.Addr) {
		*all = nil
		for _, t := range words(field(name)) {
			v, err := netip.ParseAddr(t)
			if err != nil {
				errs = append(errs, store.Invalid(name, "%q is not an address, such as 192.168.40.1; several stand with a space between them", t))
			}
			*all = append(*all, v)
		}
	}
	many("dns", &n.DNS)
	many("ntp", &n.NTP)
	n.Domain, n.Search = text("domain"), words(field("search"))
	n.LeaseTime = 0 // the appliance's own choice
	if t := text("lease_time"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil {
			errs = append(errs, store.Invalid("lease_time", "%q is not a time, such as 30m, 4h or 24h", t))
		}
		n.LeaseTime = d
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return n.Validate()
}

// words are what stands between spaces and commas.
func words(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\n' || c == '\r' || c == '\t' })
}

// SubnetFields is what a form's fields show of a subnet.
func SubnetFields(n store.Subnet) map[string]string {
	out := map[string]string{"mode": string(n.Mode), "domain": n.Domain, "search": strings.Join(n.Search, " "), "dns": addresses(n.DNS), "ntp": addresses(n.NTP)}
	if n.Prefix.IsValid() {
		out["prefix"] = n.Prefix.String()
	}
	if n.Range.From.IsValid() {
		out["range"] = n.Range.String()
	}
	if n.Router.IsValid() {
		out["router"] = n.Router.String()
	}
	if n.NextServer.IsValid() {
		out["next_server"] = n.NextServer.String()
	}
	if n.LeaseTime > 0 {
		out["lease_time"] = Lasts(n.LeaseTime)
	}
	return out
}

// Lasts is a time without the units that are zero: 4h and not 4h0m0s.
func Lasts(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func addresses(all []netip.Addr) string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}
