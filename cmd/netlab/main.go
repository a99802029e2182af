// Command netlab shows and tests lunboot with machines that really boot: QEMU's
// firmware, in a network of its own, against the program as users start it.
//
//	netlab demo       power-on to operating system, on BIOS and on UEFI
//	netlab bench      the services under load, each beside others of its kind
//	netlab trace FILE what a machine asks of its volume while it boots
//	netlab image DIR  the disk images that the machines boot from
//	netlab check      the Debian packages that are missing
//	netlab packages   the Debian packages that the lab and its tests use
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// grammar is the whole command line.
type grammar struct {
	Demo     demoCmd     `cmd:"" help:"Boot machines from an appliance, from power-on to their operating systems, and check every byte."`
	Bench    benchCmd    `cmd:"" help:"Measure the services under load, each beside others of its kind where they are installed."`
	Trace    traceCmd    `cmd:"" help:"Record what a machine asks of its volume while it boots, for bench storm to replay."`
	Echo     echoCmd     `cmd:"" hidden:"" help:"Answer requests as fast as Go can: what bench holds the target against."`
	Image    imageCmd    `cmd:"" help:"Build the disk images that the machines boot from."`
	Check    checkCmd    `cmd:"" help:"Say which Debian packages are missing."`
	Packages packagesCmd `cmd:"" help:"List the Debian packages that the lab and its tests use, one a line."`
}

// world is what a verb may touch of the process.
type world struct {
	ctx context.Context
	in  *os.File
	out *os.File
	err *os.File
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(&world{ctx, os.Stdin, os.Stdout, os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(w *world, args []string) int {
	g := &grammar{}
	exited := -1
	parser, err := kong.New(g, kong.Name("netlab"), kong.Description("Netboot tests with emulated machines that really boot."), kong.Writers(w.out, w.err),
		kong.Exit(func(code int) { exited = code }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(w.err, "netlab:", err)
		return exitFailed
	}
	verb, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(w.err, "netlab: %v\nTry: netlab --help\n", err)
		return exitUsage
	}
	if err := verb.Run(w); err != nil {
		fmt.Fprintln(w.err, "netlab:", err)
		return exitFailed
	}
	return exitDone
}

type checkCmd struct{}

// Run prints the apt-get line and nothing else, so that it can be run as it is.
func (checkCmd) Run(w *world) error {
	missing := lab.Missing()
	if len(missing) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(w.out, lab.InstallLine(missing))
	return err
}

type packagesCmd struct{}

// Run lists the packages.
func (packagesCmd) Run(w *world) error {
	for _, p := range slices.Concat(lab.Packages(), lab.TestPackages()) {
		if _, err := fmt.Fprintln(w.out, p.Name); err != nil {
			return err
		}
	}
	return nil
}

type imageCmd struct {
	Dir string `arg:"" help:"Folder for linux.img and bootsector.img."`
}

// Run builds both images, with a nonce of their own and a guest that powers
// off.
func (c imageCmd) Run(w *world) error {
	if missing := lab.Missing(); len(missing) > 0 {
		return errors.New("packages are missing: " + lab.InstallLine(missing))
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	image, err := lab.LinuxImage(w.ctx)
	if err != nil {
		return err
	}
	linux, sector := filepath.Join(c.Dir, "linux.img"), filepath.Join(c.Dir, "bootsector.img")
	if err := lab.CopyImage(linux, image); err != nil {
		return err
	}
	f, err := os.OpenFile(linux, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	nonce := area.NewNonce()
	err = area.Stamp(f, area.Control{Nonce: nonce, Mode: area.PowerOff, Report: lab.ReportURL()})
	if err := errors.Join(err, f.Close(), lab.BuildBootSector(sector, nonce, area.PowerOff)); err != nil {
		return err
	}
	_, err = io.WriteString(w.out, linux+"\n"+sector+"\nnonce "+nonce.String()+"\n")
	return err
}
