package cli

import "lunboot/store"

// MachinePowerCmd switches a machine on or off by its BMC.
type MachinePowerCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
	Act     string `arg:"" enum:"on,off,shutdown,cycle,reset,status" help:"on; off at once; shutdown, which asks the operating system to end; cycle, which is off and on; reset; or status."`
	Once    string `enum:"pxe," default:"" help:"pxe: the boot that follows, and no other, is one from the network." placeholder:"pxe"`
	Profile string `help:"Profile of that boot only; with --once pxe." placeholder:"PROFILE"`
	Force   bool   `help:"Also when it runs from a volume of the appliance now: what it has not written yet is lost."`
}

// Run gives the order.
func (p *MachinePowerCmd) Run(c *Context) error {
	path := "/machines/" + esc(p.Machine) + "/power"
	var r store.PowerReport
	var err error
	switch {
	case p.Act != "status":
		body := map[string]any{"act": p.Act, "force": p.Force}
		if p.Once != "" {
			body["once"] = p.Once
		}
		if p.Profile != "" {
			body["profile"] = p.Profile
		}
		err = c.Client.Do(c, "POST", path, body, &r)
	case p.Once != "" || p.Profile != "":
		return usage("status changes nothing; give --once and --profile with on, cycle or reset")
	default:
		err = c.Client.Do(c, "GET", path, nil, &r)
	}
	if err != nil {
		return err
	}
	return c.show(r, func() { c.say("%s", clean(r.Says)) })
}
