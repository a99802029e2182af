package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

type demoCmd struct {
	Firmware string        `enum:"bios,uefi,both" default:"both" help:"Machines to boot: ${enum}."`
	Binary   string        `placeholder:"FILE" help:"The lunboot to test (default: built from this source tree)."`
	LUN      int64         `default:"2" help:"LUN to map the volumes as."`
	Limit    time.Duration `default:"8m" help:"Give up after this long."`
	Keep     string        `placeholder:"DIR" help:"Keep consoles, screens and the appliance's log there."`
	Yes      bool          `env:"YES" help:"Install missing packages without asking."`
}

// bootLimit is four times what a boot takes on an idle machine, and more.
const bootLimit = 3 * time.Minute

// Run shows a boot from power-on to operating system, for each firmware, and
// checks it from both ends.
func (c demoCmd) Run(w *world) (err error) {
	ctx, cancel := context.WithTimeoutCause(w.ctx, c.Limit, fmt.Errorf("the demo took longer than %v (see --limit)", c.Limit))
	defer cancel()
	lun, err := store.NewLUN(c.LUN)
	if err != nil {
		return err
	}
	started := time.Now()
	p := newPrinter(w.out)
	if err := c.install(ctx, w, p); err != nil {
		return err
	}
	l, err := lab.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()

	binary := c.Binary
	if binary == "" {
		err = p.step("Building lunboot", func() (string, error) {
			binary, err = lab.BuildAppliance(ctx, l.Dir)
			return "", err
		})
		if err != nil {
			return err
		}
	}
	err = p.step("Building the disk image", func() (string, error) {
		image, err := lab.LinuxImage(ctx)
		return image, err
	})
	if err != nil {
		return err
	}
	var a *lab.Appliance
	err = p.step("Starting the appliance", func() (string, error) {
		a, err = l.StartAppliance(ctx, binary, nil)
		return fmt.Sprintf("on %s, in a network namespace of its own", lab.ServerAddr), err
	})
	defer func() {
		if a == nil {
			return
		}
		if err != nil {
			fmt.Fprintf(w.out, "\nThe appliance's log:\n%s\n", a.Log())
		}
		err = errors.Join(err, c.keep("appliance.log", []byte(a.Log())), a.Stop(10*time.Second))
	}()
	if err != nil {
		return err
	}
	for i, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		name := strings.ToLower(string(firmware))
		if c.Firmware != "both" && c.Firmware != name {
			continue
		}
		m := lab.Machine{Name: "demo-" + name, Firmware: firmware, MAC: lab.MAC(byte(10 + i)), UUID: store.NewUUID()}
		if err := c.boot(ctx, p, l, a, m, lun); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	p.bold("PASS", fmt.Sprintf("in %.0f s", time.Since(started).Seconds()))
	return nil
}

// install prints what is missing and installs it, when that is wanted. Without
// a terminal there is nobody to ask, and the demo was asked for.
func (c demoCmd) install(ctx context.Context, w *world, p *printer) error {
	missing := lab.Missing()
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(w.out, "The lab needs %d Debian packages that are not installed:\n", len(missing))
	for _, m := range missing {
		fmt.Fprintf(w.out, "  %-20s %s\n", m.Name, m.Why)
	}
	line := lab.InstallLine(missing)
	if os.Geteuid() != 0 {
		return errors.New("install them as root: " + line)
	}
	if !c.Yes && terminal(w.in) {
		fmt.Fprintf(w.out, "%s\nInstall them now? [Y/n] ", line)
		answer, err := bufio.NewReader(w.in).ReadString('\n')
		if err != nil {
			return err
		}
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "" && a != "y" && a != "yes" {
			return errors.New("nothing was installed; the lab cannot run without them")
		}
	}
	for _, args := range [][]string{{"update", "-q"}, strings.Fields(line)[1:]} {
		fmt.Fprintf(w.out, "apt-get %s\n", strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = p.dim(), p.dim()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], err)
		}
	}
	return lab.Usable()
}

// boot enrolls a machine, boots it and checks what came of it.
func (c demoCmd) boot(ctx context.Context, p *printer, l *lab.Lab, a *lab.Appliance, m lab.Machine, lun store.LUN) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("no end of the boot after %v", bootLimit))
	defer cancel()
	p.bold(fmt.Sprintf("%s: a %s machine, %s", m.Name, m.Firmware, m.MAC), "")
	var client *lab.Client
	err := p.step("Importing its volume, mapping it as LUN "+fmt.Sprint(lun), func() (string, error) {
		disk, err := l.LinuxDisk(ctx, m.Name, area.PowerOff, 0)
		if err != nil {
			return "", err
		}
		client, err = l.Enroll(ctx, a, m, lun, disk)
		return "mutual CHAP, nonce " + disk.Nonce.String(), err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, "Power on. Its serial console:")
	r, err := client.PowerOn(ctx)
	if err != nil {
		return err
	}
	defer r.Kill()
	var console sync.WaitGroup
	console.Go(func() { r.Console.Follow(ctx, p.line) })
	up, err := c.follow(ctx, client, r)
	if err != nil {
		shot := c.screenshot(r)
		r.Kill()
		console.Wait()
		return errors.Join(err, shot, c.keep(m.Name+".console", []byte(r.Console.Text())))
	}
	console.Wait()
	attempt, err := a.WaitAttempt(ctx, m.Name, func(t store.Attempt) bool { return t.Outcome != store.OutcomeRunning })
	if err != nil {
		return err
	}
	p.timeline(attempt)
	if err := errors.Join(c.keep(m.Name+".console", []byte(r.Console.Text())), complete(attempt)); err != nil {
		return err
	}
	p.ok(fmt.Sprintf("up %.1f s after power-on, as %s at %s, from LUN %s (%s)", up.At.Seconds(), up.Facts["hostname"], up.Facts["ip"], up.Facts["lun"], up.Facts["root"]))
	p.ok("it read the nonce that was hidden on its volume")
	if err := client.CheckLinux(ctx); err != nil {
		return err
	}
	p.ok(fmt.Sprintf("its %d KiB are in the volume's file, byte for byte, and its file system is whole", area.PatternSize>>10))
	return nil
}

// follow waits for each of the guest's marks, and for the end of the machine.
func (c demoCmd) follow(ctx context.Context, client *lab.Client, r *lab.Running) (lab.Up, error) {
	if client.Machine.Firmware == lab.BIOS {
		if err := r.ChainLoader(ctx); err != nil {
			return lab.Up{}, err
		}
	}
	up, err := client.WaitUp(ctx, r)
	if err != nil {
		return up, err
	}
	if err := c.screenshot(r); err != nil {
		return up, err
	}
	if _, err := r.WaitWrote(ctx); err != nil {
		return up, err
	}
	return up, r.Wait(ctx)
}

// complete says whether an attempt shows the whole way: loader over TFTP,
// script, login, reads, operating system.
func complete(a store.Attempt) error {
	if a.Outcome != store.OutcomeUp {
		return fmt.Errorf("the appliance calls the attempt %s: it should be up", a.Outcome)
	}
	for _, s := range a.Stages {
		if s.State != store.StageDone && s.State != store.StageSlow {
			return fmt.Errorf("the attempt's stage %s is %s: %s", s.Name, s.State, s.Detail)
		}
		if s.Name == store.StageLoader && !strings.Contains(s.Detail, "bytes") {
			return fmt.Errorf("the attempt does not say how many bytes the loader had: %s", s.Detail)
		}
	}
	return nil
}

func (c demoCmd) screenshot(r *lab.Running) error {
	if c.Keep == "" {
		return nil
	}
	if err := os.MkdirAll(c.Keep, 0o755); err != nil {
		return err
	}
	return r.Screenshot(filepath.Join(c.Keep, r.Machine.Name+".png"))
}

func (c demoCmd) keep(name string, data []byte) error {
	if c.Keep == "" {
		return nil
	}
	if err := os.MkdirAll(c.Keep, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Keep, name), data, 0o644)
}

// terminal reports whether a person may sit there.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// printer writes the demo's output, with a terminal's shades where there is
// one.
type printer struct {
	mu    sync.Mutex
	out   io.Writer
	color bool
}

func newPrinter(out *os.File) *printer {
	return &printer{out: out, color: terminal(out) && os.Getenv("NO_COLOR") == ""}
}

func (p *printer) shade(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// step prints what is being done, does it, and prints how long it took.
func (p *printer) step(what string, do func() (string, error)) error {
	start := time.Now()
	fmt.Fprintf(p.out, "%s ... ", what)
	fact, err := do()
	if err != nil {
		fmt.Fprintln(p.out, "failed")
		return err
	}
	fmt.Fprintf(p.out, "%.1f s %s\n", time.Since(start).Seconds(), p.shade("2", fact))
	return nil
}

// clean keeps what a machine said from steering the operator's terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// line prints one line of a machine's console.
func (p *printer) line(l lab.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, p.shade("2", fmt.Sprintf("  %6.2f | %s", l.At.Seconds(), clean(l.Text))))
}

func (p *printer) ok(text string) { fmt.Fprintf(p.out, "%s %s\n", p.shade("32", "ok"), text) }

func (p *printer) bold(text, rest string) {
	fmt.Fprintf(p.out, "\n%s %s\n", p.shade("1", text), rest)
}

// dim returns a writer for another program's output.
func (p *printer) dim() io.Writer {
	if !p.color {
		return p.out
	}
	return dimmed{p.out}
}

type dimmed struct{ out io.Writer }

func (d dimmed) Write(b []byte) (int, error) {
	if _, err := fmt.Fprintf(d.out, "\x1b[2m%s\x1b[0m", b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// timeline prints an attempt as the appliance tells it.
func (p *printer) timeline(a store.Attempt) {
	fmt.Fprintf(p.out, "\nThe same boot as the appliance saw it (attempt %d, %s):\n", a.ID, a.Outcome)
	for _, s := range a.Stages {
		when, at := s.At, ""
		if !s.Ended.IsZero() {
			when = s.Ended
		}
		if !when.IsZero() {
			at = fmt.Sprintf("+%.1f s", when.Sub(a.Started).Seconds())
		}
		fmt.Fprintf(p.out, "  %-8s %-8s %9s  %s\n", s.Name, s.State, at, clean(s.Detail))
	}
	for _, d := range a.Diagnoses {
		fmt.Fprintf(p.out, "  %s: %s\n", d.Code, clean(d.Title))
	}
	fmt.Fprintln(p.out)
}
