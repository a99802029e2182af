package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Command is a program to run. The zero Namespace is the host's own.
type Command struct {
	Namespace string
	Path      string
	Args      []string
	Env       []string  // added to the caller's
	Dir       string    //
	Stdin     io.Reader //
	Output    io.Writer // gets stdout and stderr as they come; may be nil
}

// exec prepares the command. `ip netns exec` replaces itself by the program, so
// that the process id is the program's own, and a parent that is killed takes
// it along: nothing of the lab outlives the lab.
func (c Command) exec(ctx context.Context) *exec.Cmd {
	path, args := c.Path, c.Args
	if c.Namespace != "" {
		path, args = "ip", append([]string{"netns", "exec", c.Namespace, c.Path}, c.Args...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second
	cmd.Dir = c.Dir
	cmd.Stdin = c.Stdin
	if len(c.Env) > 0 {
		cmd.Env = append(os.Environ(), c.Env...)
	}
	return cmd
}

// Run runs a command to its end and returns its standard output. An error
// carries what the program said.
func Run(ctx context.Context, c Command) ([]byte, error) {
	cmd := c.exec(ctx)
	var stdout, stderr tail
	stdout.limit = 16 << 20
	cmd.Stdout, cmd.Stderr = io.Writer(&stdout), io.Writer(&stderr)
	if c.Output != nil {
		cmd.Stdout = io.MultiWriter(&stdout, c.Output)
		cmd.Stderr = io.MultiWriter(&stderr, c.Output)
	}
	runtime.LockOSThread() // see Start
	err := cmd.Run()
	runtime.UnlockOSThread()
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.last(400))
		}
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(c.Path), strings.Join(c.Args, " "), ended(ctx, err), said)
	}
	return stdout.bytes(), nil
}

// ended prefers the reason why a context ended over "signal: killed".
func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Process is a program that the lab started and ends.
type Process struct {
	Name string
	cmd  *exec.Cmd
	out  tail
	done chan struct{}
	err  error
}

// Start starts a command. The process ends with ctx at the latest.
func Start(ctx context.Context, c Command) (*Process, error) {
	p := &Process{Name: filepath.Base(c.Path), cmd: c.exec(ctx), done: make(chan struct{})}
	var out io.Writer = &p.out
	if c.Output != nil {
		out = io.MultiWriter(&p.out, c.Output)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// The parent-death signal is tied to the thread that made the process, not to
	// the program (prctl(2)): this goroutine keeps its thread until the process
	// has ended.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.Name, err)
	}
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns how it ended.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; a process that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling %s: %w", p.Name, err)
	}
	return nil
}

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	if err := p.Signal(syscall.SIGKILL); err == nil {
		<-p.done
	}
}

// Stop asks the process to end, and kills it when it has not after the grace.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("%s did not end %v after SIGTERM and was killed", p.Name, grace)
	}
}

// Output returns the last 64 KiB that the process printed.
func (p *Process) Output() string { return p.out.String() }

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	limit int // 0: 64 KiB
	b     []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := t.limit
	if limit == 0 {
		limit = 64 << 10
	}
	t.b = append(t.b, p...)
	if over := len(t.b) - limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.b...)
}

func (t *tail) String() string { return string(t.bytes()) }

func (t *tail) last(n int) string {
	b := t.bytes()
	return string(b[max(0, len(b)-n):])
}
