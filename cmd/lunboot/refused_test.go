package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/sqlite"
)

// dump is everything that an operator's act could change.
func (a *testAppliance) dump(t *testing.T) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(a.dir, "lunboot.sock"))
	}}}
	get := func(path string) []byte {
		resp, err := c.Get("http://lunboot/api/v1" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v %s", path, resp.Status, err, b)
		}
		return b
	}
	var out strings.Builder
	for _, path := range []string{"/machines", "/unknown-machines?ignored=true", "/volumes", "/mappings", "/profiles", "/subnets", "/leases", "/tokens", "/jobs", "/audit?limit=1000"} {
		fmt.Fprintf(&out, "%s\n%s\n", path, get(path))
	}
	var machines struct{ Items []struct{ Name string } }
	if err := json.Unmarshal(get("/machines"), &machines); err != nil {
		t.Fatal(err)
	}
	for _, m := range machines.Items {
		fmt.Fprintf(&out, "%s\n", get("/machines/"+m.Name+"?secrets=true"))
	}
	files, err := os.ReadDir(filepath.Join(a.dir, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %d\n", f.Name(), st.Size())
	}
	return out.String()
}

// furnished is a data folder with a subnet and a lease, which only the network
// makes.
func furnished(t *testing.T) string {
	t.Helper()
	dir := dataDir(t)
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.PutSubnet(t.Context(), store.ActorSystem, store.Subnet{
		Interface: "lab0", Prefix: netip.MustParsePrefix("192.168.40.0/24"), Mode: store.DHCPOff, Router: netip.MustParseAddr("192.168.40.254"), LeaseTime: time.Hour,
		Range: store.Range{From: netip.MustParseAddr("192.168.40.100"), To: netip.MustParseAddr("192.168.40.199")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PutLease(t.Context(), store.Lease{
		Address: netip.MustParseAddr("192.168.40.101"), MAC: store.MAC{0, 0xc, 0x29, 0, 0, 0x77}, State: store.LeaseBound, Expires: time.Now().Add(time.Hour),
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBadInputSaysWhyAndChangesNothing(t *testing.T) {
	a := started(t, furnished(t))
	work := t.TempDir()
	empty, qcow, zipped := filepath.Join(work, "empty.img"), filepath.Join(work, "disk.img"), filepath.Join(work, "disk.gz")
	for name, text := range map[string]string{empty: "", qcow: "QFI\xfb\x00\x00\x00\x03", zipped: "\x1f\x8b\x08"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	huge := filepath.Join(work, "huge.img")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 8<<40); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"machine", "add", "m1", "--mac", "00:0c:29:00:00:01", "--uuid", "4c4c4544-0031-4210-8035-b7c04f4d3232", "--iqn", "iqn.2001-04.com.example:one", "--address", "192.168.40.10"},
		{"machine", "add", "m2", "--mac", "00:0c:29:00:00:02"},
		{"volume", "create", "v1", "--size", "8M"},
		{"volume", "create", "v2", "--size", "8M"},
		{"volume", "create", "v4k", "--size", "8M", "--block-size", "4096"},
		{"mapping", "add", "m1", "v1", "--lun", "3"},
		{"token", "create", "ci"},
	} {
		a.must(t, args...)
	}
	admin := strings.TrimSpace(a.must(t, "token", "create", "up", "--scope", "operate"))
	remote := []string{"--server", "http://" + a.Admin, "--token", admin}

	a.must(t, append(remote, "volume", "list")...) // a token's first use is noted
	before := a.dump(t)
	for _, c := range []struct {
		args string
		says string // a regular expression of the one sentence
	}{
		// Who a machine is.
		{"machine add m3 --mac 00-0C-29-00-00-01", `machine m1 has the MAC 00:0c:29:00:00:01 already`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --mac 000c29000005", `given twice`},
		{"machine add M1 --mac 00:0c:29:00:00:05", `m1`},
		{"machine add m3", `needs at least one MAC`},
		{"machine add m3 --mac 00:0c:29", `"00:0c:29" is not a MAC`},
		{"machine add m3 --mac 01:00:5e:00:00:01", `(?i)group|multicast|broadcast`},
		{"machine add bad_name --mac 00:0c:29:00:00:05", `bad_name`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --uuid 4C4C4544-0031-4210-8035-B7C04F4D3232", `m1`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --uuid ffffffff-ffff-ffff-ffff-ffffffffffff", `placeholder`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --uuid nonsense", `nonsense`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --iqn iqn.2001-04.com.example:one", `m1`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --iqn disk", `disk`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --profile nosuch", `nosuch`},
		{"machine set m2 --mac 00:0c:29:00:00:01", `machine m1`},
		{"machine set m2 --name m1", `m1`},
		{"machine set m2 --notes changed --name m1", `m1`}, // not the notes either
		{"machine set nobody --notes x", `there is no machine "nobody"`},
		{"machine enroll 00:0c:29:00:00:01", `enrolled already, as machine m1`},
		{"machine remove nobody", `there is no machine "nobody"`},

		// How it proves itself.
		{"machine add m3 --mac 00:0c:29:00:00:05 --chap-secret elevenbytes", `11 bytes; at least 12`},
		{"machine set m1 --reverse-secret short", `5 bytes; at least 12`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --chap-secret same-secret-1 --reverse-secret same-secret-1", `must differ`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --chap-secret ${secret}-twelve", `letters, digits`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --auth none --chap-secret twelve-bytes", `of no use with auth none`},
		{"machine add m3 --mac 00:0c:29:00:00:05 --auth kerberos", `kerberos.*none, chap or mutual`},

		// Which address it keeps.
		{"machine set m2 --address 192.168.41.10", `192\.168\.41\.10 lies in none of the appliance's subnets; the nearest is 192\.168\.40\.0/24`},
		{"machine set m2 --address 192.168.40.101", `192\.168\.40\.101 is leased to 00:0c:29:00:00:77`},
		{"machine set m2 --address 192.168.40.10", `m1`},
		{"machine set m2 --address 192.168.40.255", `network or broadcast`},
		{"machine set m2 --address 192.168.40.254", `router`},
		{"machine set m2 --address fe80::1", `IPv4`},
		{"machine set m2 --address 300.1.1.1", `"300\.1\.1\.1" is not an IPv4 address`},

		// What it boots from.
		{"mapping add m1 v2 --lun 3", `machine m1 has volume v1 as LUN 3 already`},
		{"mapping add m2 v2 --lun 16384", `16384.*16383`},
		{"mapping add m2 v2 --lun=-1", `-1`},
		{"mapping add m2 v1", `v1.*m1`},
		{"mapping add m1 v1", `m1 has volume v1 already, as LUN 3`},
		{"mapping add m2 v4k --boot", `512`},
		{"mapping add m1 v2 --boot", `m1.*boots|boot mapping`},
		{"mapping set m1 3 --lun 16384", `16384`},
		{"mapping set m1 4 --boot", `has no LUN 4; it has 3`},
		{"mapping remove m1 4", `has no LUN 4; it has 3`},
		{"mapping remove m1 16384", `16384`},

		// The volumes.
		{"volume create V1 --size 8M", `v1`},
		{"volume create x --size 0", `0 bytes: a volume has whole blocks`},
		{"volume create x --size 1000", `1000|block`},
		{"volume create x --size 99999999P", `99999999P|large|most`},
		{"volume create ../x --size 8M", `\.\./x`},
		{"volume remove v1", `v1 is mapped to machine m1 as LUN 3; unmap it first`},
		{"volume set v1 --name v2", `v2`},
		{"volume resize v1 4M", `grow|shrink|smaller`},
		{"volume import x " + work, `is a folder`},
		{"volume import x " + empty, `empty`},
		{"volume import x /dev/zero", `/dev/zero`},
		{"volume import x " + work + "/nosuch.img", `nosuch\.img`},
		{"volume import x " + qcow, `disk.img: .*header.*cut short`},
		{"volume import x " + zipped, `gzip`},
		{"volume import v2 " + zipped, `gzip|v2`},
		{"REMOTE volume import x " + huge, `8 TiB.*(free|imported)`},
		{"REMOTE volume import x " + empty, `not a file with an image in it`},
		{"REMOTE volume import x " + zipped, `gzip`},

		// The rest.
		{"profile remove san", `built in`},
		{"profile set a/b --kind local", `a/b`},
		{"token create ci", `there is a token "ci" already`},
		{"token remove 99", `99`},
		{"lease drop 192.168.40.102", `192\.168\.40\.102`},
		{"session drop nosuch", `nosuch`},
		{"job cancel 99", `99`},
	} {
		args := strings.Fields(c.args)
		if args[0] == "REMOTE" {
			args = append(append([]string{}, remote...), args[1:]...)
		}
		code, out, errs := cliIn(a.dir, args...)
		said := strings.TrimSpace(errs)
		if code != exitFailed || out != "" {
			t.Errorf("lunboot %s: ended with %d, said %q and %q", c.args, code, out, said)
		}
		if strings.Count(said, "\n") != 0 || !strings.HasPrefix(said, "lunboot: ") || !regexp.MustCompile(c.says).MatchString(said) {
			t.Errorf("lunboot %s: %q; want one sentence like %s", c.args, said, c.says)
		}
		if strings.Contains(said, "elevenbytes") || strings.Contains(said, "same-secret") {
			t.Errorf("lunboot %s: a secret in the answer: %q", c.args, said)
		}
		if after := a.dump(t); after != before {
			t.Errorf("lunboot %s: refused, and yet it changed something:\n%s", c.args, firstDifference(before, after))
			before = after
		}
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "was " + x[i] + "\nis  " + y[i]
		}
	}
	return fmt.Sprintf("%d lines, %d before", len(y), len(x))
}

// inOwnNamespaces runs the test again in a process with a network and a mount table of
// its own, where it is root and nobody else is disturbed. It returns true there.
func inOwnNamespaces(t *testing.T) bool {
	t.Helper()
	const mark = "LUNBOOT_TEST_ALONE"
	if os.Getenv(mark) == t.Name() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("namespaces: %v", err)
		}
		t.Skipf("this needs namespaces, which root may make: %v", err)
	}
	if err != nil {
		t.Errorf("%s", out)
	}
	return false
}

// wire makes a network interface with an address on it.
func wire(t *testing.T) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lab0"}, PeerName: "lab1"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.9.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func TestASecondDHCPServerOnThisMachineIsNamed(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	wire(t)
	dir := dataDir(t)
	_, pid := stranger(t, "udp4", "0.0.0.0:67")
	full := []string{"--dhcp", "full", "--interface", "lab0", "--dhcp-range", "10.9.0.100-10.9.0.110", "--dhcp-force"}
	refusedStart(t, dir, full, "UDP port 67", fmt.Sprintf("pid %d", pid))
	refusedStart(t, dir, []string{"--interface", "nosuch0"}, "nosuch0", "lab0")
}

func TestAnImportLargerThanTheFreeSpaceIsRefused(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	dir := dataDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	a := serve(t, dir)
	defer a.stop(t)
	image := filepath.Join(t.TempDir(), "image.img")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 200<<20); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the file system of %s makes no room ahead: %v", image, err)
		}
		t.Skipf("the file system of %s makes no room ahead: %v", image, err)
	}
	f.Close()
	before := a.dump(t)
	code, _, errs := cliIn(dir, "volume", "import", "big", image)
	if code != exitFailed || !regexp.MustCompile(`holds 200 MiB, and .* free for volumes; make room`).MatchString(errs) {
		t.Errorf("%d %s", code, errs)
	}
	if after := a.dump(t); after != before {
		t.Errorf("it changed something: %s", firstDifference(before, after))
	}
}

// The logger of a flag that cannot be read falls back, and never to nothing.
func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"hello"`, "text": "msg=hello"} {
		r, w := io.Pipe()
		c := serveCmd{LogFormat: format, LogLevel: "warn"}
		log := c.logger(w)
		if log.Enabled(t.Context(), slog.LevelInfo) {
			t.Errorf("%s: logs below its level", format)
		}
		go func() { log.Warn("hello"); w.Close() }()
		line, _ := bufio.NewReader(r).ReadString('\n')
		if !strings.Contains(line, want) {
			t.Errorf("%s: %q", format, line)
		}
	}
}
