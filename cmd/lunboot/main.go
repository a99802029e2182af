// Command lunboot is a netboot appliance in one binary: DHCP, TFTP, an iPXE
// script generator and an iSCSI target over one inventory. 'lunboot serve' runs
// it; every other verb talks to a running one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"lunboot/cmd/lunboot/cli"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// grammar is the whole command line.
type grammar struct {
	Data   string `default:"/var/lib/lunboot" placeholder:"DIR" help:"Data folder of the appliance (default: /var/lib/lunboot)."`
	Server string `placeholder:"URL" help:"Talk to an appliance over HTTP(S) instead of the socket in its data folder."`
	Token  string `placeholder:"TOKEN" help:"API token for --server."`
	Pin    string `name:"fingerprint" placeholder:"SHA256" help:"Trust this certificate of --server, by its SHA-256, whoever issued it."`
	JSON   bool   `name:"json" help:"Print JSON."`

	Serve serveCmd `cmd:"" help:"Run the appliance."`
	cli.Commands
	Restore restoreCmd `cmd:"" help:"Put a backup back into an empty data folder."`
	Doctor  doctorCmd  `cmd:"" help:"Check the appliance and this machine, and say what is wrong."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// world is what a verb may touch of the process.
type world struct {
	ctx      context.Context
	hurry    <-chan struct{} // closed by a second signal
	grammar  *grammar
	in       io.Reader
	out, err io.Writer
	process  bool // the process is lunboot's own: it may start itself again
}

func main() {
	ctx, hurry, stop := signals()
	w := &world{ctx: ctx, hurry: hurry, in: os.Stdin, out: os.Stdout, err: os.Stderr, process: true}
	code := w.run(os.Args[1:])
	stop()
	os.Exit(code)
}

// signals returns a context that the first SIGINT or SIGTERM ends, and a
// channel that the second one closes.
func signals() (context.Context, <-chan struct{}, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	hurry, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		select {
		case <-c:
			cancel()
		case <-done:
			return
		}
		select {
		case <-c:
			close(hurry)
		case <-done:
		}
	}()
	return ctx, hurry, func() { signal.Stop(c); close(done); cancel() }
}

// run is the program without its process: a test can call it.
func run(ctx context.Context, hurry <-chan struct{}, args []string, in io.Reader, out, errw io.Writer) int {
	w := &world{ctx: ctx, hurry: hurry, in: in, out: out, err: errw}
	return w.run(args)
}

func (w *world) run(args []string) int {
	g := &grammar{}
	w.grammar = g
	exited := -1
	parser, err := kong.New(g, kong.Name("lunboot"), kong.Description("A netboot appliance: DHCP, TFTP, iPXE scripts and an iSCSI target in one binary."),
		kong.Writers(w.out, w.err), kong.Exit(func(code int) { exited = code }), kong.PostBuild(nameEnvironment),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(w.err, "lunboot:", err)
		return exitFailed
	}
	kctx, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(w.err, "lunboot: %v\nTry: lunboot --help\n", err)
		return exitUsage
	}
	if err := cli.CheckServer(g.Server); err != nil {
		fmt.Fprintln(w.err, "lunboot:", err)
		return exitUsage
	}
	trust, err := pinned(g.Pin)
	if err != nil {
		fmt.Fprintln(w.err, "lunboot:", err)
		return exitUsage
	}
	client := cli.NewClient(g.Data, g.Server, g.Token, trust)
	defer client.Close()
	c := &cli.Context{Context: w.ctx, Client: client, In: w.in, Out: w.out, JSON: g.JSON}
	switch err := kctx.Run(w, c, parser); {
	case err == nil:
		return exitDone
	case cli.IsUsage(err):
		fmt.Fprintln(w.err, "lunboot:", err)
		return exitUsage
	case errors.Is(err, context.Canceled) && w.ctx.Err() != nil:
		return exitFailed
	default:
		fmt.Fprintln(w.err, "lunboot:", err)
		return exitFailed
	}
}

// nameEnvironment gives every flag its environment variable: LUNBOOT_ and the
// flag for those of lunboot itself and of serve, the verb's words before the
// flag for the others (LUNBOOT_MAPPING_ADD_BOOT), so that what an appliance is
// started with never reaches into a verb that has a flag of the same name.
func nameEnvironment(k *kong.Kong) error {
	var name func(n *kong.Node, prefix string)
	name = func(n *kong.Node, prefix string) {
		for _, f := range n.Flags {
			if f.Name != "help" {
				f.Envs = []string{envName(prefix + "_" + f.Name)}
				f.Value.Tag.Envs = f.Envs
			}
		}
		for _, child := range n.Children {
			if child.Name == "serve" {
				name(child, prefix)
			} else {
				name(child, prefix+"_"+child.Name)
			}
		}
	}
	name(k.Model.Node, "lunboot")
	return nil
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// versionCmd prints the version.
type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(w *world) error {
	_, err := fmt.Fprintln(w.out, "lunboot", version)
	return err
}
