package cli

import (
	"lunboot/store"
)

// MachineCloneCmd gives machines a clone each.
type MachineCloneCmd struct {
	Machines []string `arg:"" optional:"" name:"machine" help:"Id, name, MAC or UUID; any number of them."`
	All      bool     `help:"Every machine."`
	Search   string   `help:"With --all: only those that this finds, as in 'machine list'."`
	CloneOf  string   `name:"clone-of" help:"The golden volume. Without it: that of the setting default-golden, else the only one." placeholder:"VOLUME"`
	Reset    bool     `name:"reset-at-boot" help:"The clones begin anew at each boot."`
	Volatile bool     `help:"With --reset-at-boot: nobody waits for the disk, which is faster; what the machines wrote is discarded after a crash of the appliance's machine."`
}

// Run gives machines a clone each, and says what became of each machine.
func (m *MachineCloneCmd) Run(c *Context) error {
	switch {
	case m.All == (len(m.Machines) > 0):
		return usage("name the machines that get a clone each, or all of them with --all")
	case m.Search != "" && !m.All:
		return usage("--search goes with --all")
	case m.Volatile && !m.Reset:
		return usage("--volatile goes with --reset-at-boot")
	}
	in := map[string]any{"search": m.Search, "all": m.All && m.Search == "", "clone_of": m.CloneOf, "reset_at_boot": m.Reset, "volatile": m.Volatile}
	if len(m.Machines) > 0 {
		in["machines"] = m.Machines
	}
	var job store.Job
	if err := c.Client.Do(c, "POST", "/machines/clones", in, &job); err != nil {
		return err
	}
	job, err := waitJob(c, job)
	if err != nil {
		return err
	}
	if err := c.show(job, func() { c.verdicts(job) }); err != nil {
		return err
	}
	return endedWell(job)
}

func (c *Context) verdicts(job store.Job) {
	var rows [][]string
	for _, v := range job.Verdicts {
		result := string(v.Result)
		if v.Result == store.ResultWaiting {
			result = "not reached"
		}
		rows = append(rows, []string{v.Name, result, v.Detail})
	}
	c.table("MACHINE RESULT DETAIL", rows)
}
