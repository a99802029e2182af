package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"lunboot/cmd/lunboot/cli"
	"lunboot/services"
	"lunboot/services/doctor"
	"lunboot/services/loaders"
	"lunboot/store"
	"lunboot/web/api"
)

// lowSpace is when the doctor speaks up about the data folder.
const lowSpace = 1 << 30

// doctorCmd asks the running appliance, or this machine when none answers.
type doctorCmd struct{}

// Run prints the findings; the first fault makes the exit code.
func (doctorCmd) Run(w *world, c *cli.Context) error {
	var h api.Health
	err := c.Client.Do(c, "GET", "/health", nil, &h)
	var findings []doctor.Finding
	switch {
	case err == nil:
		for _, s := range h.Services {
			detail := s.Address
			if !s.Healthy {
				detail = s.Detail
			}
			findings = append(findings, doctor.Finding{Name: s.Name, OK: s.Healthy, Detail: detail})
		}
		for _, x := range h.Checks {
			findings = append(findings, doctor.Finding(x))
		}
	case errors.Is(err, cli.ErrNoAppliance) && w.grammar.Server == "":
		findings = append(findings, doctor.Finding{Name: "appliance", Detail: err.Error()})
		findings = append(findings, doctor.Examine(c, alone(w.grammar)...)...)
	default:
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(findings); err != nil {
			return err
		}
	} else {
		t := tabwriter.NewWriter(c.Out, 0, 4, 2, ' ', 0)
		for _, f := range findings {
			mark := "ok"
			if !f.OK {
				mark = "XX"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", mark, f.Name, f.Detail)
		}
		t.Flush()
	}
	if f, bad := doctor.First(findings); bad {
		return fmt.Errorf("%s: %s", f.Name, f.Detail)
	}
	return nil
}

// alone are the checks that make sense before an appliance runs.
func alone(g *grammar) []doctor.Check {
	port := func(name, network, addr, flag string) doctor.Check {
		return doctor.Check{Name: name, Run: func(context.Context) (string, error) {
			n := portOf(addr, 0)
			if who := services.PortHolder(network, int(n)); who != "" {
				return "", fmt.Errorf("port %d is held by %s; stop it, or choose another with %s", n, who, flag)
			}
			return fmt.Sprintf("port %d is free", n), nil
		}}
	}
	return []doctor.Check{
		{Name: "data folder", Run: func(context.Context) (string, error) {
			st, err := os.Stat(g.Data)
			if err != nil {
				return "", fmt.Errorf("%w; 'lunboot serve' makes it, or name another with --data", err)
			}
			if !st.IsDir() {
				return "", fmt.Errorf("%s is not a folder; name one with --data", g.Data)
			}
			return g.Data, nil
		}, Then: []doctor.Check{space(g.Data)}},
		{Name: "loaders", Run: func(context.Context) (string, error) {
			set, err := loaders.Load(g.Serve.Loaders, slog.New(slog.NewTextHandler(io.Discard, nil)))
			if err != nil {
				return "", err
			}
			return loadersFound(set)
		}},
		port("DHCP", "udp", ":67", "--dhcp off"),
		port("TFTP", "udp", g.Serve.TFTP, "--tftp"),
		port("boot HTTP", "tcp", g.Serve.Boot, "--boot"),
		port("iSCSI", "tcp", g.Serve.ISCSI, "--iscsi"),
		port("admin HTTP", "tcp", g.Serve.Admin, "--admin"),
	}
}

func space(dir string) doctor.Check {
	return doctor.Check{Name: "free space", Run: func(context.Context) (string, error) {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return "", err
		}
		free := int64(st.Bavail) * st.Bsize
		if free < lowSpace {
			return "", fmt.Errorf("%s free in %s; volumes grow as machines write, so make room", store.Bytes(free), dir)
		}
		return store.Bytes(free) + " free", nil
	}}
}

func loadersFound(set *loaders.Set) (string, error) {
	if missing := set.Missing(); missing != "" {
		return "", errors.New(missing)
	}
	return fmt.Sprintf("%d loaders", len(set.Manifest())), nil
}

// checkAgain looks whether anything that can be seen from here is in the way of
// machines that boot.
func (a *appliance) checkAgain(ctx context.Context) store.FixResult {
	if f, bad := doctor.First(a.checks(ctx)); bad {
		return store.FixResult{Says: f.Name + ": " + f.Detail}
	}
	return store.FixResult{OK: true, Says: "nothing that can be seen from the appliance is in the way"}
}

// checks are the appliance's own, beside its services' health.
func (a *appliance) checks(ctx context.Context) []doctor.Finding {
	return doctor.Examine(ctx, space(a.dir),
		doctor.Check{Name: "loaders", Run: func(context.Context) (string, error) { return loadersFound(a.loaders.Set) }})
}
