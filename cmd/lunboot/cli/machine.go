package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"lunboot/store"
)

// MachineCmd is the noun machine.
type MachineCmd struct {
	List    MachineListCmd    `cmd:"" help:"List machines."`
	Show    MachineShowCmd    `cmd:"" help:"Show a machine."`
	Add     MachineAddCmd     `cmd:"" help:"Add a machine by its MAC."`
	Set     MachineSetCmd     `cmd:"" help:"Change a machine."`
	Remove  MachineRemoveCmd  `cmd:"" help:"Remove a machine and its mappings."`
	Enroll  MachineEnrollCmd  `cmd:"" help:"Enroll an unknown machine."`
	Ignore  MachineIgnoreCmd  `cmd:"" help:"Ignore an unknown machine."`
	Unknown MachineUnknownCmd `cmd:"" help:"List machines that asked to boot and are not enrolled."`
	Clone   MachineCloneCmd   `cmd:"" help:"Give machines a clone each of a golden volume, to boot from."`
	Auto    MachineAutoCmd    `cmd:"" help:"List or change the rules that enroll machines by themselves."`
	Explain MachineExplainCmd `cmd:"" help:"Say what a machine would get if it booted now, and how its last boot went."`
	Import  MachineImportCmd  `cmd:"" help:"Make and change machines by a CSV table; each line is done or refused with the reason."`
	Export  MachineExportCmd  `cmd:"" help:"Write machines into a CSV table, without their secrets."`
	Wake    MachineWakeCmd    `cmd:"" help:"Wake a machine by Wake-on-LAN."`
	Power   MachinePowerCmd   `cmd:"" help:"Switch a machine on or off by its BMC, or ask whether it is on."`
	Boot    MachineBootCmd    `cmd:"" help:"Choose the profile of the next boot only."`
}

// machine is a machine as the API shows it.
type machine struct {
	store.Machine
	Mappings []mapping `json:"mappings"`
}

type mapping struct {
	store.Mapping
	MachineName string `json:"machine_name"`
	VolumeName  string `json:"volume_name"`
	VolumeSize  int64  `json:"volume_size"`
}

func (m machine) macs() string {
	var out []string
	for _, a := range m.MACs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func (m machine) luns() string {
	var out []string
	for _, p := range m.Mappings {
		s := fmt.Sprintf("%d=%s", p.LUN, p.VolumeName)
		if p.Boot {
			s += " (boot)"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func (m machine) quirks() string {
	var out []string
	for _, q := range m.Quirks {
		out = append(out, string(q))
	}
	return strings.Join(out, ", ")
}

func (m machine) bmcTrust() string {
	if m.BMC.Trust == store.BMCPinned && m.BMC.Fingerprint == "" {
		return "pinned, to no certificate yet"
	}
	return strings.TrimSpace(string(m.BMC.Trust) + " " + m.BMC.Fingerprint)
}

// machineFields are the flags that add and set share. A nil field is not sent.
type machineFields struct {
	MAC           []string `help:"MAC address; repeat for several cards." placeholder:"MAC"`
	UUID          *string  `help:"SMBIOS UUID."`
	Address       *string  `help:"Reserved IPv4 address."`
	Profile       *string  `help:"Boot profile (default: san)."`
	IQN           *string  `help:"Initiator name (default: made from the name)." name:"iqn"`
	Auth          *string  `help:"How the machine logs in: none, chap or mutual (default: mutual)."`
	CHAPUser      *string  `name:"chap-user" help:"CHAP user name of the machine."`
	CHAPSecret    *string  `name:"chap-secret" help:"CHAP secret of the machine, at least 12 bytes (default: generated)."`
	ReverseUser   *string  `name:"reverse-user" help:"CHAP user name of the target."`
	ReverseSecret *string  `name:"reverse-secret" help:"CHAP secret of the target, at least 12 bytes (default: generated)."`
	Serial        *string  `help:"Serial number."`
	AssetTag      *string  `name:"asset-tag" help:"Asset tag."`
	Loader        *string  `help:"Loader or chain of its own; auto: the appliance chooses." placeholder:"NAME|auto"`
	Tag           []string `help:"Tag; repeat for several."`
	Notes         *string  `help:"Free text."`
	Quirk         []string `help:"What its firmware needs in its boot answers: no-proxy-offer (in proxy mode it is offered nothing, and answered on port 4011 only), no-option-43 or option-43 (it is told to ask on port 4011, or to fetch its loader at once); repeat for several, none for nothing."`
	BMC           *string  `name:"bmc" help:"What switches it on and off: redfish://user@host or ipmi://user@host, with :port where it is not the usual one; none for nothing." placeholder:"URL"`
	BMCSecret     *string  `name:"bmc-secret" help:"Password of the BMC's user; a dash reads it from standard input. It is never shown again."`
	BMCTrust      *string  `name:"bmc-trust" help:"How a Redfish BMC proves itself: verify (by an authority that the appliance's host trusts), pinned (by the one certificate that you compared) or none (whoever answers is given the password) (default: pinned)." placeholder:"HOW"`
	BMCPrint      *string  `name:"bmc-fingerprint" help:"SHA-256 of the certificate that the BMC must show; 'machine power M status' says which it shows now." placeholder:"SHA256"`
}

func (f machineFields) body(c *Context) (map[string]any, error) {
	if f.BMCSecret != nil && *f.BMCSecret == "-" {
		line, err := c.readPassword("the BMC")
		if err != nil {
			return nil, err
		}
		f.BMCSecret = &line
	}
	b := map[string]any{}
	put := func(key string, v *string) {
		if v != nil {
			b[key] = *v
		}
	}
	if f.MAC != nil {
		b["macs"] = f.MAC
	}
	if f.Tag != nil {
		b["tags"] = f.Tag
	}
	if len(f.Quirk) == 1 && f.Quirk[0] == "none" {
		b["quirks"] = []string{}
	} else if f.Quirk != nil {
		b["quirks"] = f.Quirk
	}
	put("uuid", f.UUID)
	put("address", f.Address)
	put("profile", f.Profile)
	put("loader", f.Loader)
	put("initiator", f.IQN)
	put("auth", f.Auth)
	put("chap_user", f.CHAPUser)
	put("chap_secret", f.CHAPSecret)
	put("reverse_user", f.ReverseUser)
	put("reverse_secret", f.ReverseSecret)
	put("serial", f.Serial)
	put("asset_tag", f.AssetTag)
	put("notes", f.Notes)
	put("bmc", f.BMC)
	put("bmc_secret", f.BMCSecret)
	put("bmc_trust", f.BMCTrust)
	put("bmc_fingerprint", f.BMCPrint)
	return b, nil
}

// MachineListCmd lists machines.
type MachineListCmd struct {
	Search string `arg:"" optional:"" help:"Words, each part of a name, MAC, UUID, address, tag or initiator, and the qualifiers tag:, profile:, mac: and state:failed, booting, lost, slow, up or never. All must fit."`
	Sort   string `help:"name (default), attention, profile, address or seen; with a hyphen before it the other way." placeholder:"COLUMN"`
}

// Run lists machines.
func (l *MachineListCmd) Run(c *Context) error {
	var out list[machine]
	if err := c.Client.Do(c, "GET", "/machines?limit=0&search="+url.QueryEscape(l.Search)+"&sort="+url.QueryEscape(l.Sort), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, m := range out.Items {
			addr := ""
			if m.Address.IsValid() {
				addr = m.Address.String()
			}
			rows = append(rows, []string{strconv.FormatInt(int64(m.ID), 10), m.Name, m.macs(), m.Profile, string(m.Auth), m.luns(), addr, when(m.LastSeen)})
		}
		c.table("ID NAME MAC PROFILE AUTH LUNS ADDRESS SEEN", rows)
	})
}

// MachineShowCmd shows one machine.
type MachineShowCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
	Secrets bool   `help:"Show the CHAP secrets."`
}

// Run shows one machine.
func (s *MachineShowCmd) Run(c *Context) error {
	path := "/machines/" + esc(s.Machine)
	if s.Secrets {
		path += "?secrets=true"
	}
	var m machine
	if err := c.Client.Do(c, "GET", path, nil, &m); err != nil {
		return err
	}
	return c.show(m, func() { printMachine(c, m) })
}

func printMachine(c *Context, m machine) {
	addr := "dynamic"
	if m.Address.IsValid() {
		addr = m.Address.String() + " (reserved)"
	}
	uuid := ""
	if !m.UUID.IsZero() {
		uuid = m.UUID.String()
	}
	port := m.Port
	if port != "" {
		port += ", seen " + when(m.PortSeen)
	}
	c.facts("Name", m.Name, "Id", strconv.FormatInt(int64(m.ID), 10), "MAC", m.macs(), "UUID", uuid, "Serial", m.Serial, "Asset tag", m.AssetTag,
		"Address", addr, "Firmware", strings.TrimSpace(m.Firmware+" "+m.Arch), "Profile", m.Profile, "Loader", m.Loader, "Next boot only", m.OnceProfile,
		"Initiator", string(m.Initiator), "Login", string(m.Auth), "CHAP user", m.CHAP.User, "CHAP secret", m.CHAP.Secret,
		"Reverse user", m.Reverse.User, "Reverse secret", m.Reverse.Secret, "LUNs", m.luns(), "Tags", strings.Join(m.Tags, ", "), "Quirks", m.quirks(), "Seen", when(m.LastSeen), "Plugged in", port, "BMC", m.BMC.String(), "BMC trust", m.bmcTrust(), "Notes", m.Notes)
}

// MachineAddCmd adds a machine.
type MachineAddCmd struct {
	Name string `arg:"" help:"Host name."`
	machineFields
}

// Run adds a machine.
func (a *MachineAddCmd) Run(c *Context) error {
	b, err := a.body(c)
	if err != nil {
		return err
	}
	b["name"] = a.Name
	var m machine
	if err := c.Client.Do(c, "POST", "/machines", b, &m); err != nil {
		return err
	}
	return c.show(m, func() { c.say("added machine %s (%s), initiator %s", m.Name, m.macs(), m.Initiator) })
}

// MachineSetCmd changes a machine.
type MachineSetCmd struct {
	Machine string  `arg:"" help:"Id, name, MAC or UUID."`
	Name    *string `help:"New host name."`
	machineFields
	ifSeen
}

// Run changes a machine.
func (s *MachineSetCmd) Run(c *Context) error {
	b, err := s.body(c)
	if err != nil {
		return err
	}
	if s.Name != nil {
		b["name"] = *s.Name
	}
	if len(b) == 0 {
		return usage("nothing to change; name at least one flag, such as --profile")
	}
	var m machine
	if err := c.change("PATCH", "/machines/"+esc(s.Machine), "", s.tag(), b, &m); err != nil {
		return err
	}
	return c.show(m, func() { printMachine(c, m) })
}

// MachineRemoveCmd removes a machine.
type MachineRemoveCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
	Force   bool   `help:"Also when it has a live session."`
	ifSeen
}

// Run removes a machine.
func (r *MachineRemoveCmd) Run(c *Context) error {
	if err := c.change("DELETE", "/machines/"+esc(r.Machine), "?force="+strconv.FormatBool(r.Force), r.tag(), nil, nil); err != nil {
		return err
	}
	c.say("removed machine %s", r.Machine)
	return nil
}

// MachineBootCmd chooses the next boot's profile.
type MachineBootCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
	Once    string `required:"" xor:"how" help:"Profile of the next boot only; empty takes it back." placeholder:"PROFILE"`
	Done    bool   `required:"" xor:"how" help:"The installation that the next boot was for is done: for an installer that reports nothing, and whose work cannot be seen on the machine's volume."`
	ifSeen
}

// Run chooses the next boot's profile.
func (b *MachineBootCmd) Run(c *Context) error {
	var m machine
	if b.Done {
		if err := c.Client.Do(c, "GET", "/machines/"+esc(b.Machine), nil, &m); err != nil {
			return err
		}
		if m.OnceProfile == "" {
			return fmt.Errorf("machine %s has no profile for its next boot only, so no installation waits for its end", m.Name)
		}
		m = machine{} // an answer without the profile would leave it
	}
	if err := c.change("PATCH", "/machines/"+esc(b.Machine), "", b.tag(), map[string]string{"once_profile": b.Once}, &m); err != nil {
		return err
	}
	var p store.Profile
	if m.OnceProfile != "" {
		if err := c.Client.Do(c, "GET", "/profiles/"+esc(m.OnceProfile), nil, &p); err != nil {
			return err
		}
	}
	return c.show(m, func() {
		if p.Kind.Installs() {
			defer c.say("it stays until the installer reports that it is done, or the machine comes back from it and its volume starts another boot loader; where neither can be, say so: lunboot machine boot %s --done", m.Name)
		}
		if m.OnceProfile == "" {
			c.say("every boot of %s uses the profile %s", m.Name, m.Profile)
		} else {
			c.say("the next boot of %s uses the profile %s, those after it %s", m.Name, m.OnceProfile, m.Profile)
		}
	})
}

// MachineWakeCmd wakes a machine.
type MachineWakeCmd struct {
	Machine string `arg:"" help:"Id, name, MAC or UUID."`
}

// Run wakes a machine.
func (w *MachineWakeCmd) Run(c *Context) error {
	var out struct {
		Machine  string   `json:"machine"`
		Networks []string `json:"networks"`
	}
	if err := c.Client.Do(c, "POST", "/machines/"+esc(w.Machine)+"/wake", nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		c.say("sent the packet that wakes %s on %s; it wakes if its card listens (often a choice in the firmware)", out.Machine, strings.Join(out.Networks, ", "))
	})
}
