package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// Firmware is what starts a machine.
type Firmware string

// The kinds of firmware. BIOS machines have an iPXE in their card's ROM; UEFI
// machines have the firmware's own PXE stack, which is no iPXE.
const (
	BIOS Firmware = "BIOS"
	UEFI Firmware = "UEFI"
)

// Arch is a machine's processor.
type Arch string

// The processors. ARM64 machines have UEFI and need more packages (TestPackages).
const (
	AMD64 Arch = ""
	ARM64 Arch = "arm64"
)

// Machine is what to build: a computer with one network card and no disk of
// its own. It is emulated, so that the lab runs where there is no KVM; one
// machine burns one core while it boots.
type Machine struct {
	Name     string // for files and messages; unique in a lab
	Firmware Firmware
	Arch     Arch // "" is AMD64
	MAC      store.MAC
	UUID     store.UUID
	NIC      string // QEMU's device; "" is virtio-net-pci, the only one that the lab's Linux drives
	Memory   int    // MiB; 0 is 512
	HTTPBoot bool   // UEFI: HTTP boot instead of PXE
	Secure   bool   // UEFI on AMD64: Secure Boot, with the key of SnakeOil enrolled
	// Microsoft enrolls Microsoft's keys for Secure Boot instead, as a new computer
	// has them.
	Microsoft bool
	OnlyIPv4  bool    // UEFI: PXE over IPv4, then HTTP; without the minute that PXE over IPv6 waits in between
	Kernel    *Kernel // QEMU loads it, and nothing is booted from the network, when it is set
	Disk      string  // a raw image as a local disk, booted instead of the network when it is set
	Local     string  // a raw image as a local disk, which the firmware's list has behind the network
}

// Running is a machine that has power.
type Running struct {
	Machine Machine
	Console *Console
	started time.Time
	process *Process
	monitor *monitor
	keys    io.WriteCloser
	logs    sync.WaitGroup
}

// nicFor fills the default in.
func (m Machine) nic() string {
	if m.NIC == "" {
		return "virtio-net-pci"
	}
	return m.NIC
}

// arguments is QEMU's command line. Text of the firmware goes to the serial
// port on both: graphics=off makes SeaBIOS copy INT 10h output there, OVMF
// does so by itself. The UEFI machine's card gets no option ROM, or QEMU's
// iPXE would run instead of the firmware's own PXE stack.
func (m Machine) arguments(dir, tap string) []string {
	memory := m.Memory
	if memory == 0 {
		memory = 512
	}
	cpu := "qemu64,+ssse3,+sse4.1,+sse4.2,+rdrand"
	if m.Arch == ARM64 {
		cpu = "cortex-a72"
	}
	args := []string{
		"-name", m.Name, "-nodefaults", "-no-user-config", "-smp", "1", "-m", strconv.Itoa(memory),
		"-cpu", cpu, "-accel", "tcg,thread=single",
		"-display", "none", "-no-reboot", "-rtc", "base=utc",
		"-chardev", "stdio,id=com1,signal=off", "-serial", "chardev:com1",
		"-qmp", "unix:" + filepath.Join(dir, "qmp") + ",server=on,wait=off",
		"-uuid", m.UUID.String(),
		"-netdev", "tap,id=n0,ifname=" + tap + ",script=no,downscript=no",
	}
	card := m.nic() + ",netdev=n0,mac=" + m.MAC.String()
	switch {
	case m.Kernel != nil:
		card += ",romfile="
		args = append(args, "-kernel", m.Kernel.Image, "-initrd", m.Kernel.Initrd, "-append", kernelArgs+" loglevel=1 "+area.Workbench)
	case m.Local != "":
		card += ",bootindex=1"
		args = append(args, "-drive", "id=d0,if=none,format=raw,file="+m.Local, "-device", "ide-hd,drive=d0,bootindex=2")
	case m.Disk == "":
		card += ",bootindex=1"
	default:
		args = append(args, "-drive", "id=d0,if=none,format=raw,file="+m.Disk, "-device", "ide-hd,drive=d0,bootindex=1")
	}
	switch m.Firmware {
	case UEFI:
		code, _ := m.flash()
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code,
			"-drive", "if=pflash,unit=1,format=raw,file="+filepath.Join(dir, "vars.fd"))
		if m.Arch == ARM64 {
			args = append(args, "-machine", "virt")
		} else {
			args = append(args, "-machine", "q35", "-vga", "std")
		}
		card += ",romfile="
		if m.OnlyIPv4 {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
		}
		if m.HTTPBoot {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
		}
	default:
		args = append(args, "-machine", "pc,graphics=off", "-vga", "std")
	}
	return append(args, "-device", card)
}

// program is the QEMU that emulates the machine's processor.
func (m Machine) program() string {
	if m.Arch == ARM64 {
		return qemuARM
	}
	return qemu
}

// flash returns the firmware's code and its empty variables.
func (m Machine) flash() (code, vars string) {
	if m.Arch == ARM64 {
		return aavmfCode, aavmfVars
	}
	switch {
	case m.Secure && m.Microsoft:
		return ovmfCode, ovmfMicrosoftVars
	case m.Secure:
		return ovmfCode, ovmfSecureVars
	}
	return ovmfCode, ovmfVars
}

// PowerOn builds a machine, connects it to the lab's network and switches it
// on. It has power until it powers itself off, Kill, or the end of ctx.
func (l *Lab) PowerOn(ctx context.Context, m Machine) (*Running, error) {
	if m.Firmware != BIOS && m.Firmware != UEFI {
		return nil, fmt.Errorf("%q is no firmware of the lab's", m.Firmware)
	}
	if m.Arch != AMD64 && (m.Arch != ARM64 || m.Firmware != UEFI) {
		return nil, fmt.Errorf("the lab builds no %s machine with %s", m.Arch, m.Firmware)
	}
	if m.Name == "" || m.MAC.IsZero() || m.UUID.IsZero() {
		return nil, errors.New("a lab machine needs a name, a MAC and a UUID")
	}
	tap, err := l.Network.AddTap(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Dir, tap)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if m.Firmware == UEFI {
		_, empty := m.flash()
		vars, err := os.ReadFile(empty)
		if err != nil {
			return nil, err
		}
		// A fresh copy each time: no boot entry survives.
		if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
			return nil, err
		}
	}
	keys, typed, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer keys.Close()
	r := &Running{Machine: m, started: time.Now(), keys: typed}
	r.Console = newConsole(r.started)
	r.process, err = Start(ctx, Command{
		Namespace: l.Network.LAN, Path: m.program(), Args: m.arguments(dir, tap), Stdin: keys, Output: r.Console,
	})
	if err != nil {
		return nil, errors.Join(err, typed.Close())
	}
	l.machines = append(l.machines, r)
	r.logs.Go(func() {
		<-r.process.Done()
		r.Console.close()
	})
	if r.monitor, err = r.connect(ctx, filepath.Join(dir, "qmp")); err != nil {
		r.Kill()
		return nil, err
	}
	return r, nil
}

// connect waits for QEMU to open its monitor.
func (r *Running) connect(ctx context.Context, path string) (*monitor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("QEMU did not open its monitor in 30 s"))
	defer cancel()
	for {
		m, err := dialMonitor(ctx, path)
		if err == nil {
			return m, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.process.Done():
			return nil, fmt.Errorf("QEMU ended: %w: %s", r.process.Wait(), r.Console.Tail(5))
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

// Wait waits until the machine has powered itself off.
func (r *Running) Wait(ctx context.Context) error {
	select {
	case <-r.process.Done():
		return r.process.Wait()
	case <-ctx.Done():
		return fmt.Errorf("%s has not powered off: %w; its console's last lines:\n%s", r.Machine.Name, context.Cause(ctx), r.Console.Tail(15))
	}
}

// Kill pulls the plug.
func (r *Running) Kill() {
	r.process.Kill()
	r.logs.Wait()
	if r.monitor != nil {
		_ = r.monitor.close() // its peer is dead
	}
	_ = r.keys.Close()
}

// Screenshot writes the machine's screen as a PNG.
func (r *Running) Screenshot(path string) error { return r.monitor.screenshot(path) }

// Type sends text to the serial port, which both kinds of firmware read as a
// keyboard.
func (r *Running) Type(text string) error {
	if _, err := io.WriteString(r.keys, text); err != nil {
		return fmt.Errorf("typing on %s: %w", r.Machine.Name, err)
	}
	return nil
}

// Shell stops a BIOS machine's ROM, which is an iPXE, at its prompt and gives
// it an address. Only IPv4 is configured: where no router answers, the IPv6
// half would take 16 s.
func (r *Running) Shell(ctx context.Context) error {
	if _, err := r.Console.WaitFor(ctx, `Features:`); err != nil {
		return fmt.Errorf("reaching the ROM's shell: %w", err)
	}
	if err := r.Type("\x02"); err != nil { // Ctrl-B, within the two seconds that the ROM waits
		return err
	}
	if _, err := r.Console.WaitFor(ctx, prompt); err != nil {
		return fmt.Errorf("reaching the ROM's shell: %w", err)
	}
	return r.Command(ctx, "ifconf -c dhcp net0")
}

// prompt is what an iPXE's shell begins a line with.
const prompt = `^iPXE> `

// Command types a line into the shell and waits for the next prompt.
func (r *Running) Command(ctx context.Context, line string) error {
	if err := r.Enter(ctx, line); err != nil {
		return err
	}
	if _, err := r.Console.WaitFor(ctx, prompt); err != nil {
		return fmt.Errorf("after %q in iPXE's shell: %w", line, err)
	}
	return nil
}

// Enter types a line, piece by piece, and waits for each piece's echo: a BIOS
// keyboard buffer holds 15 keys and drops the next. The echo may wrap at the
// screen's edge.
func (r *Running) Enter(ctx context.Context, line string) error {
	for piece := range slices.Chunk([]byte(line), 8) {
		if err := r.Type(string(piece)); err != nil {
			return err
		}
		var echo []string
		for _, b := range piece {
			echo = append(echo, regexp.QuoteMeta(string(b)))
		}
		if _, err := r.Console.WaitFor(ctx, strings.Join(echo, `\s*`)); err != nil {
			return fmt.Errorf("typing %q into iPXE's shell: %w", line, err)
		}
	}
	return r.Type("\r")
}

// ChainLoader makes a BIOS machine fetch its loader over TFTP. The ROM of
// QEMU's cards is an iPXE already, and is given a script instead of a loader;
// real cards' ROMs are not. So the ROM is stopped at its shell and told to
// chain by hand. It returns when the loader speaks.
func (r *Running) ChainLoader(ctx context.Context) error {
	if err := r.Shell(ctx); err != nil {
		return err
	}
	file := r.Machine.MAC.Hex12() + "/undionly.kpxe"
	if err := r.Enter(ctx, "chain tftp://${next-server}/"+file); err != nil {
		return err
	}
	m, err := r.Console.WaitFor(ctx, `iPXE initialising devices|`+prompt)
	if err != nil {
		return fmt.Errorf("chaining %s: %w", file, err)
	}
	if m.Groups[0] == "iPXE> " {
		return fmt.Errorf("the ROM could not chain %s:\n%s", file, r.Console.Tail(5))
	}
	return nil
}
