package httpboot

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/store"
)

// firmwares are the two worlds that iPXE lives in. The low byte of its error
// codes differs between them.
var firmwares = []struct {
	name, arch, refused string
	ended               string // what the firmware says when iPXE left without success
	auth                store.AuthMode
	args                []string
}{
	{"BIOS", "x86", "0f0a6039", "No bootable device", store.AuthMutual, []string{"-m", "128", "-machine", "pc,graphics=off"}},
	{"UEFI", "x86-64", "0f0a6095", "BdsDxe: failed to load", store.AuthNone, []string{"-m", "512", "-machine", "q35",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + ovmf + "CODE_4M.fd",
		"-drive", "if=pflash,unit=1,format=raw,snapshot=on,file=" + ovmf + "VARS_4M.fd"}},
}

const ovmf = "/usr/share/OVMF/OVMF_"

// qemu boots a machine whose network card carries Debian's iPXE, with QEMU's
// own user network, where 10.0.2.2 is this host's loopback. It returns the
// console so far.
func qemu(t *testing.T, mac store.MAC, uuid store.UUID, url string, args ...string) func() string {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("qemu-system-x86_64 is not installed")
		}
		t.Skip("qemu-system-x86_64 is not installed")
	}
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("it takes a minute")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	args = append(args, "-nodefaults", "-no-user-config", "-accel", "tcg,thread=single", "-display", "none", "-no-reboot", "-vga", "std", "-serial", "stdio",
		"-uuid", uuid.String(), "-netdev", "user,id=n0,bootfile="+url, "-device", "virtio-net-pci,netdev=n0,bootindex=1,mac="+mac.String())
	cmd := exec.CommandContext(ctx, path, args...)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	return out.String
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// escapes are the terminal sequences that SeaBIOS sends with each character.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]`)

func waitFor(t *testing.T, what string, console func() string, ok func(screen string) bool) {
	t.Helper()
	end := time.Now().Add(2 * time.Minute)
	for time.Now().Before(end) {
		if ok(escapes.ReplaceAllString(console(), "")) {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("no %s within two minutes; the console says\n%s", what, escapes.ReplaceAllString(console(), ""))
}

func TestARealIPXEWaitsIsEnrolledFailsAndIsToldWhy(t *testing.T) {
	for _, fw := range firmwares {
		t.Run(fw.name, func(t *testing.T) {
			closed, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port := closed.Addr().(*net.TCPAddr).Port
			closed.Close() // nobody listens: the login is refused by the kernel
			l := newLab(t, trustAll, func(l *lab) {
				l.cfg.Advertise = netip.MustParseAddr("10.0.2.2")
				l.cfg.ISCSIPort = func() uint16 { return uint16(port) }
				l.explain = func(store.AttemptID) (string, string, string, bool) {
					return "Machine a could not reach the target", "Nobody listens on the portal's port.", "Start the target.", true
				}
				l.cfg.Explainer = l
				l.machines = l.machines[1:]
			})
			console := qemu(t, macA, uuidA, strings.Replace(l.srv.URL, "127.0.0.1", "10.0.2.2", 1)+"/boot.ipxe", fw.args...)

			waitFor(t, "waiting screen", console, func(s string) bool {
				return strings.Contains(s, "Its MAC address is "+macA.String()) && strings.Contains(s, "Asking again every 5 seconds")
			})
			noted := func() store.UnknownMachine {
				u, _ := l.UnknownMachine(context.Background(), macA)
				return u
			}
			waitFor(t, "third request of the waiting machine", console, func(string) bool { return noted().Count >= 3 })
			if u := noted(); u.UUID != uuidA || u.Firmware != fw.name || u.Arch != fw.arch || !strings.Contains(u.Vendor, "QEMU") || u.NIC != "PCI 1af4:1000" || u.Chip != "virtio-net" {
				t.Errorf("the unknown machine is %+v", u)
			}

			a := labMachine(1, "a", macA, uuidA)
			a.Auth = fw.auth
			l.mu.Lock()
			l.machines = append(l.machines, a)
			l.mu.Unlock()
			waitFor(t, "explanation", console, func(s string) bool {
				return strings.Contains(s, fmt.Sprintf("a could not start from volume debian, LUN 2 at 10.0.2.2:%d", port)) &&
					strings.Contains(s, "What to do: Start the target.")
			})
			var report *store.Event
			for _, e := range l.said() {
				if e.Kind == store.EventReport {
					report = &e
				}
			}
			if report == nil || report.Detail.Step != "sanboot" || report.Detail.Code != fw.refused || report.Attempt != 42 {
				t.Fatalf("the report is %+v, want iPXE's code for a connection that was reset", report)
			}

			l.mu.Lock()
			l.machines[len(l.machines)-1].Profile = "local"
			l.mu.Unlock()
			waitFor(t, "end of iPXE", console, func(s string) bool {
				_, after, found := strings.Cut(s, "Starting a from its own disk.")
				return found && strings.Contains(after, fw.ended)
			})
		})
	}
}
