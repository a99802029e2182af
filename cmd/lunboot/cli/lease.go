package cli

import (
	"fmt"
	"strings"

	"lunboot/store"
)

// LeaseCmd is the noun lease.
type LeaseCmd struct {
	List LeaseListCmd `cmd:"" help:"List leases."`
	Drop LeaseDropCmd `cmd:"" help:"Forget leases: one, several, those that have expired, or all that a search finds."`
}

// LeaseListCmd lists leases.
type LeaseListCmd struct{ listFlags }

// Run lists leases.
func (l *LeaseListCmd) Run(c *Context) error {
	var out list[struct {
		store.Lease
		Name string `json:"machine_name,omitempty"`
		Over bool   `json:"expired,omitempty"`
	}]
	if err := c.Client.Do(c, "GET", "/leases"+l.query(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, l := range out.Items {
			state := string(l.State)
			if l.Over {
				state = "expired"
			}
			rows = append(rows, []string{l.Address.String(), l.MAC.String(), l.Name, state, l.Hostname, when(l.Expires), l.Port})
		}
		c.table("ADDRESS MAC MACHINE STATE HOSTNAME EXPIRES PORT", rows)
	})
}

// LeaseDropCmd forgets leases.
type LeaseDropCmd struct {
	Address []string `arg:"" optional:"" help:"Address; several for several leases."`
	Expired bool     `help:"All that have expired."`
	Search  *string  `help:"All that this finds, as in 'lease list'; with --expired only the expired ones of them." placeholder:"SEARCH"`
	InUse   bool     `name:"in-use" help:"Of several also those that are in use: their machines go on using the addresses until they ask again, and others may be given them meanwhile. A lease from whose address a volume is open stays in any case."`
	DryRun  bool     `name:"dry-run" help:"Only say what would become of each."`
}

// leaseDrops is what became of leases, as the API says it.
type leaseDrops struct {
	Match   string               `json:"match"`
	Done    bool                 `json:"done"`
	Dropped int                  `json:"dropped"`
	Items   []store.LeaseDropped `json:"items"`
}

// Run forgets leases.
func (d *LeaseDropCmd) Run(c *Context) error {
	many := d.Expired || d.Search != nil
	switch {
	case many && len(d.Address) > 0:
		return usage("name addresses, or say --expired or --search")
	case !many && len(d.Address) == 0:
		return usage("name the addresses whose leases are to be dropped, or say --expired or --search")
	case len(d.Address) == 1 && !d.DryRun: // whoever names the one means it
		if err := c.Client.Do(c, "DELETE", "/leases/"+esc(d.Address[0]), nil, nil); err != nil {
			return err
		}
		c.say("forgot the lease of %s", d.Address[0])
		return nil
	}
	in := map[string]any{"in_use": d.InUse, "dry_run": true}
	if many {
		search := ""
		if d.Search != nil {
			search = *d.Search
		}
		if d.Expired {
			search = strings.TrimSpace("state:expired " + search)
		}
		in["search"] = search
	} else {
		in["addresses"] = d.Address
	}
	var out leaseDrops
	if err := c.Client.Do(c, "POST", "/leases/drop", in, &out); err != nil {
		return err
	}
	if !d.DryRun { // those that were found, and no others
		in["dry_run"], in["match"] = false, out.Match
		if err := c.Client.Do(c, "POST", "/leases/drop", in, &out); err != nil {
			return err
		}
	}
	err := c.show(out, func() {
		for _, l := range out.Items {
			use := ""
			if l.InUse && l.Dropped {
				use = ", which is in use"
			}
			switch {
			case !l.Dropped:
				c.say("the lease of %s stays: %s", l.Address, clean(l.Problem))
			case d.DryRun:
				c.say("would forget the lease of %s%s", l.Address, use)
			default:
				c.say("forgot the lease of %s%s", l.Address, use)
			}
		}
		if len(out.Items) == 0 {
			c.say("no lease fits")
		}
	})
	if stay := len(out.Items) - out.Dropped; err == nil && stay > 0 && !d.DryRun {
		err = fmt.Errorf("%d of %d leases were not dropped", stay, len(out.Items))
	}
	return err
}
