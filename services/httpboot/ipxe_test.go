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

// qemu boots a machine whose network card carries Debian's iPXE, with QEMU's
// own user network, where 10.0.2.2 is this host's loopback. It returns the
// console so far.
func qemu(t *testing.T, mac store.MAC, uuid store.UUID, url string) func() string {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("qemu-system-x86_64 is not installed")
		}
		t.Skip("qemu-system-x86_64 is not installed")
	}
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	cmd := exec.CommandContext(ctx, path, "-nodefaults", "-no-user-config", "-m", "128", "-accel", "tcg,thread=single",
		"-display", "none", "-no-reboot", "-machine", "pc,graphics=off", "-vga", "std", "-serial", "stdio", "-uuid", uuid.String(),
		"-netdev", "user,id=n0,bootfile="+url, "-device", "virtio-net-pci,netdev=n0,bootindex=1,mac="+mac.String())
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
	url := strings.Replace(l.srv.URL, "127.0.0.1", "10.0.2.2", 1) + "/boot.ipxe"
	console := qemu(t, macA, uuidA, url)

	waitFor(t, "waiting screen", console, func(s string) bool {
		return strings.Contains(s, "Its MAC address is "+macA.String()) && strings.Contains(s, "Asking again every 5 seconds")
	})
	asked := func() int64 {
		u, _ := l.UnknownMachine(context.Background(), macA)
		return u.Count
	}
	waitFor(t, "third request of the waiting machine", console, func(string) bool { return asked() >= 3 })
	u, _ := l.UnknownMachine(context.Background(), macA)
	if u.UUID != uuidA || u.Firmware != "BIOS" || u.Arch != "x86" || !strings.Contains(u.Vendor, "QEMU") {
		t.Errorf("the unknown machine is %+v", u)
	}

	l.mu.Lock()
	l.machines = append(l.machines, labMachine(1, "a", macA, uuidA))
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
	if report == nil || report.Detail.Step != "sanboot" || report.Detail.Code != "0f0a6039" || report.Attempt != 42 {
		t.Fatalf("the report is %+v, want iPXE's code for a connection that was reset", report)
	}
	waitFor(t, "second try after the explanation", console, func(string) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.begun >= 2
	})
}
