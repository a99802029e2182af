package httpboot

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"lunboot/store"
)

// installing has the machine a install Debian, with answers that hold a password.
func installing(l *lab) {
	l.media = []store.Media{{Name: "mini.iso", Kind: store.MediaISO, Contents: store.MediaContents{OS: store.MediaDebian, Kernel: "linux", Initrds: []string{"initrd.gz"}}}}
	l.profiles["deb"] = store.Profile{Name: "deb", Kind: store.ProfileInstall, Fields: map[string]string{"media": "mini.iso"}, Text: "name {{hostname}}\npassword {{password}}\ndone {{done_url}}\n"}
	l.profiles["bench"] = store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "deb\nlocal"}}
	l.machines[0].Profile = "deb"
	l.owners[netip.MustParseAddr("127.0.0.1")] = macA
}

func TestAnInstallerGetsItsAnswersAndReports(t *testing.T) {
	l := newLab(t, installing)
	text := l.get(query("a", uuidA, macA))
	base := "/files/answer/a/deb/42-" + labKey + "/preseed.cfg"
	contains(t, text, "sanhook --drive 0x80 iscsi:127.0.0.1::3260:2:", "/files/mini.iso/linux BOOTIF", "url="+l.srv.URL+base)
	if len(l.armed) != 1 {
		t.Error("the boot of the volume is not armed")
	}
	l.said()
	res, body := l.do("GET", base, "User-Agent", "debian-installer")
	want := "name a\npassword " + l.machines[0].CHAP.Secret + "\ndone " + l.srv.URL + "/report?attempt=42&done=1&key=" + labKey + "\n"
	if res.StatusCode != 200 || body != want || res.Header.Get("Cache-Control") != "no-store" || res.ContentLength != int64(len(want)) {
		t.Errorf("the answers are %s %q, want %q", res.Status, body, want)
	}
	e := l.saidOne(store.EventFileSent)
	if e.Attempt != 42 || e.Machine != 1 || strings.Contains(e.Detail.URL, labKey) {
		t.Errorf("the event is %+v", e)
	}
	// Without an attempt there is nothing to report by.
	if res, body := l.do("GET", "/files/answer/a/deb/0/preseed.cfg"); res.StatusCode != 200 || !strings.Contains(body, "attempt=0&done=1&key=\n") {
		t.Errorf("without an attempt: %s %q", res.Status, body)
	}
	if res, _ := l.do("HEAD", base); res.StatusCode != 200 || res.ContentLength != int64(len(want)) {
		t.Errorf("HEAD: %s", res.Status)
	}
	l.said()
	for _, path := range []string{"/files/answer/a/deb/42-wrong/ks.cfg", "/files/answer/a/san/0/preseed.cfg", "/files/answer/b/deb/0/preseed.cfg", "/files/answer/none/deb/0/preseed.cfg", "/files/answer/a/none/0/preseed.cfg",
		"/files/answer/a/deb/x/preseed.cfg", "/files/answer/a/deb/-1/preseed.cfg", "/files/answer/a/deb/0/", "/files/answer/a/deb/0", "/files/answer/", "/files/answer", "/files/answer/a/deb/0/../../../x"} {
		if res, body := l.do("GET", path); res.StatusCode != 404 || strings.Contains(body, "password Forward") {
			t.Errorf("%s answers %s %q", path, res.Status, body)
		}
	}
	l.machines[1].Profile = "bench"
	l.owners[netip.MustParseAddr("127.0.0.1")] = macB
	if res, body := l.do("GET", "/files/answer/b/deb/0/preseed.cfg"); res.StatusCode != 200 || !strings.HasPrefix(body, "name b\n") {
		t.Errorf("what its menu offers: %s %q", res.Status, body)
	}
}

func TestAnswersGoToTheMachinesOwnAddressOnly(t *testing.T) {
	l := newLab(t, installing, func(l *lab) { l.owners = map[netip.Addr]store.MAC{netip.MustParseAddr("127.0.0.1"): macB} })
	for _, ticket := range []string{"0", "42-" + labKey} {
		res, body := l.do("GET", "/files/answer/a/deb/"+ticket+"/preseed.cfg", "User-Agent", "Wget")
		if res.StatusCode != 403 || strings.Contains(body, "password Forward") {
			t.Errorf("somebody else is answered %s %q", res.Status, body)
		}
		if e := l.saidOne(store.EventScriptWithheld); e.Machine != 1 || strings.Contains(e.Detail.URL, labKey) {
			t.Errorf("the event is %+v", e)
		}
	}
	if res, body := l.do("GET", "/files/answer/a/deb/0/preseed.cfg"); res.StatusCode != 403 || !strings.HasPrefix(body, "#!ipxe\n") {
		t.Errorf("an iPXE is answered %s %q", res.Status, body)
	}
}

// A ticket speaks for its own machine, and for what its boot was given.
func TestATicketIsItsOwnMachinesOnly(t *testing.T) {
	l := newLab(t, installing, trustAll, func(l *lab) {
		p := l.profiles["deb"]
		p.Text = "{{platform}} {{mac}} {{done_url}}"
		l.profiles["deb"] = p
		p.Name = "newer"
		l.profiles["newer"] = p
	})
	second := store.MAC{0x52, 0x54, 0, 0, 0, 0x1a}
	l.machines[0].MACs = append(l.machines[0].MACs, second)
	l.get(strings.Replace(query("a", uuidA, second), "platform=pcbios", "platform=efi", 1))
	l.machines[0].Firmware = "BIOS" // another boot of it
	ticket := "42-" + labKey
	for path, want := range map[string]string{
		"/files/answer/a/deb/" + ticket + "/preseed.cfg":   "efi " + second.String() + " " + l.srv.URL + "/report?attempt=42&done=1&key=" + labKey,
		"/files/answer/a/deb/0/preseed.cfg":                "pcbios " + macA.String() + " " + l.srv.URL + "/report?attempt=0&done=1&key=",
		"/files/answer/a/deb/42-wrong/preseed.cfg":         "pcbios " + macA.String() + " " + l.srv.URL + "/report?attempt=0&done=1&key=",
		"/files/answer/a/newer/" + ticket + "/preseed.cfg": "",
		"/files/answer/b/deb/" + ticket + "/preseed.cfg":   "",
	} {
		l.said()
		res, body := l.do("GET", path, "User-Agent", "Wget")
		if want == "" {
			if res.StatusCode != 404 {
				t.Errorf("%s answers %s %q", path, res.Status, body)
			}
			continue
		}
		if body != want {
			t.Errorf("%s answers %s %q, want %q", path, res.Status, body, want)
		}
		if e := l.saidOne(store.EventFileSent); (e.Attempt == 42) != strings.Contains(path, ticket) {
			t.Errorf("%s: the event is of attempt %d", path, e.Attempt)
		}
	}
	l.machines[0].Profile = "local" // meanwhile
	if res, _ := l.do("GET", "/files/answer/a/deb/"+ticket+"/preseed.cfg"); res.StatusCode != 200 {
		t.Errorf("what the boot was given is answered %s", res.Status)
	}
}

func TestAKeyStandsInNoEventAndNoLog(t *testing.T) {
	var log bytes.Buffer
	l := newLab(t, installing, func(l *lab) { l.cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	l.get(query("a", uuidA, macA))
	l.owners = nil
	for _, path := range []string{"/a/deb/42-KEY/preseed.cfg", "/a/deb/42-KEY/none", "/a/none/42-KEY/preseed.cfg", "/a/deb/42-KEY", "/a/deb/x/42-KEY/preseed.cfg", "//a/deb/42-KEY/x.ipxe", "/a/d%65b/42%2dKEY/none"} {
		for _, method := range []string{"GET", "DELETE"} {
			l.do(method, "/files/answer"+strings.ReplaceAll(path, "KEY", labKey))
		}
	}
	if len(log.String()) == 0 || strings.Contains(log.String(), labKey) {
		t.Errorf("the log:\n%s", log.String())
	}
	for _, e := range l.said() {
		if e.Kind != store.EventScriptSent && strings.Contains(fmt.Sprintf("%+v", e), labKey) {
			t.Errorf("the event is %+v", e)
		}
	}
}

// Who says a machine's name from somewhere else takes no boot away from it: what
// such a boot comes to, silence above all, counts for nothing.
func TestAOneShotBootIsKnownToBeTheMachinesOwn(t *testing.T) {
	l := newLab(t, func(l *lab) { l.machines[0].OnceProfile = "local" })
	for mac, owned := range map[store.MAC]bool{macB: false, macA: true} {
		l.mu.Lock()
		l.owners[netip.MustParseAddr("127.0.0.1")] = mac
		l.mu.Unlock()
		contains(t, l.get(query("a", uuidA, macA)), "own disk")
		if e := l.saidOne(store.EventScriptSent); e.Detail.Owned != owned {
			t.Errorf("the address is %s's, and the event is %+v", mac, e)
		}
	}
	l.machines[0].OnceProfile, l.machines[0].Profile = "", "local"
	l.get(query("a", uuidA, macA))
	if e := l.saidOne(store.EventScriptSent); e.Detail.Owned {
		t.Errorf("nobody asked whose address it is, and the event is %+v", e)
	}
}
