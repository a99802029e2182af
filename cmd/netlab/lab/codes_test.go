package lab_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// codeTable is what services/boot/ipxeerr is tested against.
const codeTable = "../../../services/boot/ipxeerr/testdata/lab.txt"

// Each row of the table of codes is provoked in iPXE's own shell, on BIOS and on
// UEFI: what is printed there is what the decoder knows.
func TestTheCodesOfIPXEAreThoseOfTheTable(t *testing.T) {
	soaking(t)
	table, err := os.ReadFile(codeTable)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) >= 5 && f[0] != "#" {
			want[f[0]] = [2]string{f[1], f[2]}
		}
	}
	b := start(t, 3*linuxLimit)
	b.serveFailures()
	file := filepath.Join(b.Dir, "shell.ipxe")
	b.must(os.WriteFile(file, []byte("echo A-SHELL\nshell\n"), 0o600))
	b.cli("profile", "set", "shell", "--file", file)
	for i, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
		t.Run(string(firmware), func(t *testing.T) {
			b := &bench{b.Lab, b.appliance, b.ctx, t}
			c := b.sector("codes-"+strings.ToLower(string(firmware)), byte(245+i), area.PowerOff, "--profile", "shell")
			b.cli("volume", "create", c.Machine.Name+"-blank", "--size", "8M")
			b.cli("mapping", "add", c.Machine.Name, c.Machine.Name+"-blank", "--lun", "3", "--no-boot")
			c.Machine.Firmware, c.Machine.OnlyIPv4 = firmware, firmware == lab.UEFI
			r := b.powerOn(c)
			defer r.Kill()
			_, err := r.Console.WaitFor(b.ctx, `A-SHELL(?s:.*?)iPXE> `)
			b.must(err)
			provoked := map[string]bool{}
			for _, x := range b.provocations(c) {
				for _, line := range x.lines[:len(x.lines)-1] {
					b.must(r.Command(b.ctx, line))
				}
				b.must(r.Enter(b.ctx, x.lines[len(x.lines)-1]))
				m, err := r.Console.WaitFor(b.ctx, shownCode)
				b.must(err)
				got := strings.Join(strings.Fields(m.Groups[1]), "")
				t.Logf("%s: %s", x.name, got)
				_, err = r.Console.WaitFor(b.ctx, `iPXE> `)
				b.must(err)
				if got != want[x.name][i] {
					t.Errorf("%s: the screen shows %s, the table has %s", x.name, got, want[x.name][i])
				}
				provoked[x.name] = true
			}
			for name := range want {
				if !provoked[name] {
					t.Errorf("nothing provokes %s", name)
				}
			}
		})
	}
}

// shownCode is a code on the screen, whose line may end within it.
var shownCode = `i\s*p\s*x\s*e\s*\.\s*o\s*r\s*g\s*/((?:\s*[0-9a-f]){8})`

type provocation struct {
	name  string
	lines []string // of iPXE's shell; the last one fails
}

// provocations are short lines: a serial keyboard is slow. Each that spoils a
// setting is followed by one that mends it.
func (b *bench) provocations(c *lab.Client) []provocation {
	b.t.Helper()
	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", c.Machine.Name, "--secrets"))
	target := regexp.MustCompile(`target=(\S+)`).FindStringSubmatch(b.appliance.Log())[1]
	san := func(lun, target string) string { return "sanhook iscsi:10.77.0.1:::" + lun + ":" + target }
	web := func(path string) []string { return []string{"imgfetch http://10.77.0.1:8000/" + path} }
	return []provocation{
		{"lun-0", []string{san("0", target)}},
		{"other-target", []string{san("2", "iqn.2020-01.org.x:y")}},
		{"wrong-password", []string{"set password not-the-password", san("2", target)}},
		{"credential-mix", []string{"clear username", san("2", target)}},
		{"wrong-reverse", []string{"set username " + m.CHAP.User, "set password " + m.CHAP.Secret, "set reverse-password not-the-password", san("2", target)}},
		{"no-password", []string{"clear password", "clear username", "clear reverse-username", "clear reverse-password", san("2", target)}},
		{"other-initiator", []string{"set initiator-iqn iqn.2020-01.org.x:z", san("2", target)}},
		{"bad-root-path", []string{"sanhook iscsi:nonsense"}},
		{"port-closed", []string{"sanhook iscsi:10.77.0.1::9:2:iqn.2020-01.org.x:y"}},
		{"host-absent", []string{"sanhook iscsi:10.77.0.9:::2:iqn.2020-01.org.x:y"}},
		{"empty-volume", []string{"set initiator-iqn " + string(m.Initiator), "set username " + m.CHAP.User, "set password " + m.CHAP.Secret, "set reverse-username " + m.Reverse.User, "set reverse-password " + m.Reverse.Secret,
			"sanboot iscsi:10.77.0.1:::3:" + target}},
		{"http-404", web("nosuch")},
		{"http-401", web("401")},
		{"http-403", web("403")},
		{"http-500", web("500")},
		{"http-port-closed", []string{"imgfetch http://10.77.0.1:9/x"}},
		{"https", []string{"imgfetch https://10.77.0.1/x"}},
		{"tftp-missing", []string{"imgfetch tftp://10.77.0.1/nosuch"}},
		{"empty-file", []string{"chain http://10.77.0.1:8000/empty"}},
	}
}

// serveFailures answers over HTTP with the failures that a web server has.
func (b *bench) serveFailures() {
	b.t.Helper()
	var l net.Listener
	b.must(lab.Namespace{Name: b.Network.Server}.Do(func() (err error) {
		l, err = net.Listen("tcp4", "10.77.0.1:8000")
		return err
	}))
	mux := http.NewServeMux()
	for path, status := range map[string]int{"/401": 401, "/403": 403, "/500": 500, "/empty": 200, "/": 404} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	}
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends with Close
	}()
	b.t.Cleanup(func() { _ = srv.Close(); <-done })
}
