package cli

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"lunboot/store"
)

// MachineEnrollCmd enrolls an unknown machine, or all of them.
type MachineEnrollCmd struct {
	MAC     string `arg:"" optional:"" help:"MAC address."`
	Name    string `arg:"" optional:"" help:"Host name (default: what it calls itself, else made from its maker and MAC)."`
	Replace string `help:"An enrolled machine whose new hardware this is." placeholder:"MACHINE"`
	All     bool   `help:"Enroll every unknown machine that is not ignored."`
	Search  string `help:"With --all: only those that this finds, as in 'machine unknown'."`
	Pattern string `help:"With --all: how they are called, such as lab-{n}, rack-{nn} or pc-{mac}." placeholder:"PATTERN"`
	Profile string `help:"With --all: their profile (default: san)."`
	CloneOf string `name:"clone-of" help:"Boot from a fresh clone of this golden volume, or of none. Without it: of that of the setting default-golden, else of the only golden volume, where there is one." placeholder:"VOLUME|none"`
	Reset   bool   `name:"reset-at-boot" help:"The clone begins anew at each boot. Without --clone-of the setting fresh-clones says so too."`

	Volatile bool `help:"With --reset-at-boot: nobody waits for the disk, which is faster; what its machine wrote is discarded after a crash of the appliance's machine."`
}

// Run enrolls an unknown machine.
func (e *MachineEnrollCmd) Run(c *Context) error {
	switch {
	case e.All && (e.MAC != "" || e.Replace != ""):
		return usage("--all enrolls every unknown machine; it takes no MAC and no --replace")
	case e.Reset && e.CloneOf == store.CloneOfNone:
		return usage("--reset-at-boot goes with a clone, not with --clone-of none")
	case e.Volatile && !e.Reset:
		return usage("--volatile goes with --reset-at-boot")
	case e.All:
		return e.all(c)
	case e.MAC == "":
		return usage("name the MAC of an unknown machine, or all of them with --all")
	case e.Pattern != "" || e.Profile != "" || e.Search != "":
		return usage("--search, --pattern and --profile go with --all")
	}
	var m machine
	in := map[string]any{"name": e.Name, "replace": e.Replace, "clone_of": e.CloneOf, "reset_at_boot": e.Reset, "volatile": e.Volatile}
	if err := c.Client.Do(c, "POST", "/unknown-machines/"+esc(e.MAC)+"/enroll", in, &m); err != nil {
		return err
	}
	return c.show(m, func() {
		if e.Replace != "" {
			c.say("enrolled %s as %s, in place of its former board", m.macs(), m.Name)
			return
		}
		if len(m.Mappings) > 0 {
			c.say("enrolled %s as %s, with %s", m.macs(), m.Name, m.luns())
			return
		}
		c.say("enrolled %s as %s", m.macs(), m.Name)
	})
}

func (e *MachineEnrollCmd) all(c *Context) error {
	var out list[store.Enrolled]
	in := map[string]any{"name": e.Pattern, "profile": e.Profile, "clone_of": e.CloneOf, "reset_at_boot": e.Reset, "volatile": e.Volatile}
	if e.Search != "" {
		var found list[unknownMachine]
		if err := c.Client.Do(c, "GET", "/unknown-machines"+listFlags{Search: e.Search}.query(), nil, &found); err != nil {
			return err
		}
		macs := make([]string, len(found.Items))
		for i, u := range found.Items {
			macs[i] = u.MAC.String()
		}
		if len(macs) == 0 { // none would be all
			return c.show(list[store.Enrolled]{Items: []store.Enrolled{}}, func() { c.say("no unknown machine that waits fits") })
		}
		in["macs"] = macs
	}
	if err := c.Client.Do(c, "POST", "/unknown-machines/enroll", in, &out); err != nil {
		return err
	}
	failed := 0
	err := c.show(out, func() {
		for _, m := range out.Items {
			if m.Problem != "" {
				c.say("%s was not enrolled: %s", m.MAC, m.Problem)
				continue
			}
			c.say("enrolled %s as %s", m.MAC, m.Name)
		}
		if len(out.Items) == 0 {
			c.say("no unknown machine waits")
		}
	})
	for _, m := range out.Items {
		if m.Problem != "" {
			failed++
		}
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d machines were not enrolled", failed, len(out.Items))
	}
	return err
}

// MachineIgnoreCmd ignores an unknown machine.
type MachineIgnoreCmd struct {
	MAC  string `arg:"" help:"MAC address."`
	Undo bool   `help:"Stop ignoring it."`
}

// Run ignores an unknown machine.
func (i *MachineIgnoreCmd) Run(c *Context) error {
	if err := c.Client.Do(c, "PUT", "/unknown-machines/"+esc(i.MAC)+"/ignored", map[string]bool{"ignored": !i.Undo}, nil); err != nil {
		return err
	}
	if i.Undo {
		c.say("%s is no longer ignored", i.MAC)
	} else {
		c.say("%s is ignored: it gets an address, and nothing to boot", i.MAC)
	}
	return nil
}

// unknownMachine is an unknown machine as the API shows it.
type unknownMachine struct {
	store.UnknownMachine
	Maker string `json:"maker"`
}

// hardware is what the machine says of itself, else who made its card.
func (u unknownMachine) hardware() string {
	if u.Vendor != "" {
		return u.Vendor
	}
	return u.Maker
}

func (u unknownMachine) card() string {
	if u.Chip == "" {
		return u.NIC
	}
	return strings.TrimSpace(u.Chip + " " + u.NIC)
}

// MachineUnknownCmd lists unknown machines.
type MachineUnknownCmd struct {
	listFlags
	All bool `help:"Also those that are ignored."`
}

// Run lists unknown machines.
func (u *MachineUnknownCmd) Run(c *Context) error {
	var out list[unknownMachine]
	if err := c.Client.Do(c, "GET", "/unknown-machines"+u.query("ignored", strconv.FormatBool(u.All)), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, m := range out.Items {
			addr := ""
			if m.Address.IsValid() {
				addr = m.Address.String()
			}
			rows = append(rows, []string{m.MAC.String(), m.hardware(), strings.TrimSpace(m.Firmware + " " + m.Arch), m.card(), addr, m.Hostname, strconv.FormatInt(m.Count, 10), when(m.LastSeen), m.Port, yes(m.Ignored, "ignored")})
		}
		c.table("MAC HARDWARE FIRMWARE CARD ADDRESS HOSTNAME ASKED SEEN PORT STATE", rows)
	})
}

// MachineAutoCmd lists or changes the rules that enroll machines.
type MachineAutoCmd struct {
	Add     string `help:"Enroll machines by themselves whose MAC begins so." placeholder:"PREFIX"`
	Name    string `help:"With --add: how they are called, such as lab-{n} (default: what each calls itself)." placeholder:"PATTERN"`
	Profile string `help:"With --add: their profile (default: san)."`
	Limit   int    `help:"With --add: how many machines with the prefix there may be (default: 256)."`
	CloneOf string `name:"clone-of" help:"With --add: each boots from a fresh clone of this golden volume, or of none. Without it: of that of the setting default-golden, else of the only golden volume, where there is one." placeholder:"VOLUME|none"`
	Reset   bool   `name:"reset-at-boot" help:"With --add: the clones begin anew at each boot. Without --clone-of the setting fresh-clones says so too."`
	Remove  string `help:"Take the rule of a prefix away." placeholder:"PREFIX"`

	Volatile bool `help:"With --reset-at-boot: nobody waits for the disk, which is faster; what their machines wrote is discarded after a crash of the appliance's machine."`
}

type autoEnroll struct {
	Rules store.AutoEnroll `json:"rules"`
}

// Run lists or changes the rules.
func (a *MachineAutoCmd) Run(c *Context) error {
	if a.Add == "" && (a.Name != "" || a.Profile != "" || a.Limit != 0 || a.CloneOf != "" || a.Reset) || a.Reset && a.CloneOf == store.CloneOfNone || a.Volatile && !a.Reset {
		return usage("--name, --profile, --limit, --clone-of and --reset-at-boot go with --add, --reset-at-boot with a clone, and --volatile with --reset-at-boot")
	}
	var now autoEnroll
	resp, err := c.Client.send(c, http.MethodGet, "/auto-enroll", nil, "", nil)
	if err != nil {
		return err
	}
	if err := decode(resp, &now); err != nil {
		return err
	}
	if a.Add != "" || a.Remove != "" {
		if a.Remove != "" {
			p, err := store.ParseMACPrefix(a.Remove)
			if err != nil {
				return err
			}
			kept := store.AutoEnroll{}
			for _, r := range now.Rules {
				if r.Prefix != p {
					kept = append(kept, r)
				}
			}
			if len(kept) == len(now.Rules) {
				return fmt.Errorf("there is no rule for %s", p)
			}
			now.Rules = kept
		}
		if a.Add != "" {
			now.Rules = append(now.Rules, store.AutoEnrollRule{Prefix: store.MACPrefix(a.Add), Name: store.NamePattern(a.Name), Profile: a.Profile, Limit: a.Limit, CloneOf: a.CloneOf, Reset: a.Reset, Volatile: a.Volatile})
		}
		if err := c.change("PUT", "/auto-enroll", "", resp.Header.Get("ETag"), now, &now); err != nil {
			return err
		}
	}
	return c.show(now, func() {
		var rows [][]string
		for _, r := range now.Rules {
			rows = append(rows, []string{string(r.Prefix), string(r.Name), r.Profile, strconv.Itoa(r.Limit), cmp.Or(r.CloneOf, "by setting"), yes(r.Reset, "at boot"), yes(r.Volatile, "volatile")})
		}
		c.table("PREFIX NAME PROFILE LIMIT CLONE-OF RESET DISK", rows)
	})
}
