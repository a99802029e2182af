package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lunboot/store"
)

// Appliance is a lunboot that serves the lab: the program as users start it, in
// the server's namespace, on its default ports.
type Appliance struct {
	Binary  string
	Data    string   // its data folder
	Flags   []string // of lunboot serve, besides --data
	network *Network
	process *Process
	bootID  string // a file that stands for the kernel's; empty: the kernel's own
	log     tail
	show    io.Writer
}

// DefaultFlags serve the lab's network with addresses from .100 to .199.
func DefaultFlags() []string {
	return []string{"--interface", ServerInterface, "--dhcp", "full", "--dhcp-range", "10.77.0.100-10.77.0.199", "--dhcp-force"}
}

// BuildAppliance compiles the source tree's lunboot into dir and returns its
// path. Its flags are those of `go test`, so that SQLite's C, minutes of work on
// a small machine, is compiled once for both.
func BuildAppliance(ctx context.Context, dir string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "lunboot")
	_, err = Run(ctx, Command{
		Path: "go", Dir: root, Env: []string{"GOFLAGS=-tags=sqlite_omit_load_extension"},
		Args: []string{"build", "-o", path, "./cmd/lunboot"},
	})
	return path, err
}

// StartAppliance starts a lunboot with an empty data folder and waits until it
// is healthy. Its log goes to show as well, when that is not nil.
func (l *Lab) StartAppliance(ctx context.Context, binary string, show io.Writer, flags ...string) (*Appliance, error) {
	if len(flags) == 0 {
		flags = DefaultFlags()
	}
	data, err := os.MkdirTemp(l.Dir, "data-")
	if err != nil {
		return nil, err
	}
	a := &Appliance{Binary: binary, Data: data, Flags: flags, network: l.Network, show: show}
	a.log.limit = 4 << 20
	l.appliances = append(l.appliances, a)
	return a, a.Start(ctx)
}

// Start starts the appliance on its data folder and waits until every part of
// it is healthy.
func (a *Appliance) Start(ctx context.Context) error {
	if a.process != nil {
		return errors.New("the appliance runs already")
	}
	var out io.Writer = &a.log
	if a.show != nil {
		out = io.MultiWriter(&a.log, a.show)
	}
	path, args := a.Binary, append([]string{"--data", a.Data, "serve"}, a.Flags...)
	if a.bootID != "" {
		path, args = "unshare", append([]string{"--mount", "sh", "-c", `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, a.bootID, path}, args...)
	}
	process, err := Start(ctx, Command{Namespace: a.network.Server, Path: path, Args: args, Output: out})
	if err != nil {
		return err
	}
	a.process = process
	return a.waitHealthy(ctx)
}

func (a *Appliance) waitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("it was not healthy 30 s after its start"))
	defer cancel()
	for {
		err := a.healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-a.process.Done():
			return fmt.Errorf("the appliance ended: %w; it said:\n%s", a.process.Wait(), a.log.last(2000))
		case <-ctx.Done():
			return fmt.Errorf("the appliance did not start: %w: %w; it said:\n%s", context.Cause(ctx), err, a.log.last(2000))
		}
	}
}

// healthy asks the appliance on its unix socket how it is.
func (a *Appliance) healthy(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(a.Data, "lunboot.sock"))
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lunboot/api/v1/health", nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var health struct {
		Services []struct {
			Name    string
			Healthy bool
			Detail  string
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&health); err != nil {
		return fmt.Errorf("health: %s: %w", answer.Status, err)
	}
	for _, s := range health.Services {
		if !s.Healthy {
			return fmt.Errorf("%s is not healthy: %s", s.Name, s.Detail)
		}
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s", answer.Status)
	}
	return nil
}

// CLI runs a verb of the command line against the appliance.
func (a *Appliance) CLI(ctx context.Context, args ...string) (string, error) {
	out, err := Run(ctx, Command{Path: a.Binary, Args: append([]string{"--data", a.Data}, args...)})
	return string(out), err
}

// JSON runs a verb with --json and decodes what it prints.
func (a *Appliance) JSON(ctx context.Context, into any, args ...string) error {
	out, err := a.CLI(ctx, append([]string{"--json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("%s printed no JSON: %w", strings.Join(args, " "), err)
	}
	return nil
}

// VolumeFile returns the file that holds a raw volume's bytes.
func (a *Appliance) VolumeFile(ctx context.Context, name string) (string, error) {
	var v store.Volume
	if err := a.JSON(ctx, &v, "volume", "show", name); err != nil {
		return "", err
	}
	if v.Kind != store.VolumeRaw {
		return "", fmt.Errorf("volume %s is a %s: its bytes are in no one file", name, v.Kind)
	}
	return filepath.Join(a.Data, "volumes", v.Path), nil
}

// Attempt returns a machine's newest boot attempt; ok is false when it has
// none.
func (a *Appliance) Attempt(ctx context.Context, machine string) (attempt store.Attempt, ok bool, err error) {
	var list struct {
		Items []struct{ ID store.AttemptID }
	}
	if err := a.JSON(ctx, &list, "attempt", "list", machine); err != nil || len(list.Items) == 0 {
		return attempt, false, err
	}
	err = a.JSON(ctx, &attempt, "attempt", "show", fmt.Sprint(list.Items[0].ID))
	return attempt, err == nil, err
}

// WaitAttempt waits until a machine's newest attempt is as asked.
func (a *Appliance) WaitAttempt(ctx context.Context, machine string, is func(store.Attempt) bool) (store.Attempt, error) {
	var last store.Attempt
	for {
		attempt, ok, err := a.Attempt(ctx, machine)
		if err != nil && ctx.Err() == nil {
			return last, err
		}
		if ok {
			if last = attempt; is(attempt) {
				return attempt, nil
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return last, fmt.Errorf("%s's boot attempt is %s at stage %s: %w", machine, last.Outcome, last.Stage, context.Cause(ctx))
		}
	}
}

// Log returns the last 4 MiB of the appliance's log, over all its restarts.
func (a *Appliance) Log() string { return a.log.String() }

// Kill ends the appliance as a power cut does (kill -9): nothing is flushed.
func (a *Appliance) Kill() {
	if a.process != nil {
		a.process.Kill()
		a.process = nil
	}
}

// Crash is Kill when the machine that the appliance runs on goes down with it: from
// its next start on, the kernel seems to have been started anew. What the page cache
// held is there all the same, so that nothing but what lunboot itself says of such a
// crash shows.
func (a *Appliance) Crash() error {
	a.Kill()
	a.bootID = filepath.Join(a.Data, "boot-id-of-the-lab")
	return os.WriteFile(a.bootID, []byte(store.NewUUID().String()+"\n"), 0o600)
}

// Stop asks the appliance to end, as a service manager does.
func (a *Appliance) Stop(grace time.Duration) error {
	if a.process == nil {
		return nil
	}
	err := a.process.Stop(grace)
	a.process = nil
	return err
}

// Pause stops the appliance's process without ending it: its connections stay
// and nothing is answered. Resume lets it go on.
func (a *Appliance) Pause() error { return a.process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (a *Appliance) Resume() error { return a.process.Signal(syscall.SIGCONT) }
