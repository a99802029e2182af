package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lunboot/services"
	"lunboot/services/doctor"
	"lunboot/store"
	"lunboot/store/volume"
	"lunboot/web/probe"
)

func TestWhoWatchesFromOutsideNeedsNoLogin(t *testing.T) {
	a := started(t, dataDir(t))
	for _, path := range []string{probe.HealthPath, probe.ReadyPath} {
		resp, err := http.Get("http://" + a.Admin + path)
		for end := time.Now().Add(20 * time.Second); err == nil && resp.StatusCode != http.StatusOK && time.Now().Before(end); {
			resp.Body.Close() // parts that begin beside the pages may not have begun
			time.Sleep(10 * time.Millisecond)
			resp, err = http.Get("http://" + a.Admin + path)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if path == probe.HealthPath {
			continue
		}
		var answer probe.Answer
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, p := range answer.Parts {
			names[p.Name] = p.Ready
		}
		for _, name := range []string{"iSCSI", "boot HTTP", "TFTP", "inventory", "volumes"} {
			if !names[name] {
				t.Errorf("%s is not named as ready: %+v", name, answer)
			}
		}
	}
	// The boot network learns nothing of it.
	resp, err := http.Get("http://" + a.Boot + probe.ReadyPath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Errorf("the boot port answers %s with %s", probe.ReadyPath, resp.Status)
	}
}

// Where DHCP was chosen and is not answered, no machine boots: whatever watches the
// appliance is told, and so is everybody who looks at a page.
func TestAnInterfaceThatIsChosenAndDoesNotServeIsNotReady(t *testing.T) {
	a, ctx := quiet(t), t.Context()
	a.super = services.NewSupervisor(a.log, time.Now, services.Options{})
	var err error
	a.pool, err = volume.OpenPool(t.TempDir(), a.log)
	require.NoError(t, err)
	defer a.pool.Close()
	part := func(name string) (ready, known bool) {
		for _, p := range a.parts(ctx)(ctx) {
			if p.Name == name {
				return p.Ready, true
			}
		}
		return false, false
	}
	_, known := part("DHCP on eth9")
	require.False(t, known, "nobody chose it")
	prefix, rng := netip.MustParsePrefix("10.77.0.0/24"), store.Range{From: netip.MustParseAddr("10.77.0.100"), To: netip.MustParseAddr("10.77.0.110")}
	_, err = a.network.put(ctx, "admin", store.Subnet{Interface: "eth9", Prefix: prefix, Mode: store.DHCPFull, Range: rng, LeaseTime: defaultLease})
	require.NoError(t, err)
	a.network.rival = func(context.Context, string) error { return fmt.Errorf("%w, on eth9: 10.77.0.2", errOtherServer) }
	a.network.askForRivals(ctx)
	ready, known := part("DHCP on eth9")
	require.True(t, known)
	require.False(t, ready)
	h := a.running(ctx)
	require.Len(t, h, 1)
	require.Contains(t, h[0].Reason, "10.77.0.2", "why")
	a.network.rival = func(context.Context, string) error { return nil }
	a.network.askForRivals(ctx)
	a.network.askForRivals(ctx)
	a.network.servers[key(store.Subnet{Interface: "eth9", Prefix: prefix})] = &dhcpServer{}
	if ready, _ := part("DHCP on eth9"); !ready {
		t.Error("it serves, and is not ready")
	}
}

// The foot of the pages counts what the page Settings counts.
func TestTheFootFollowsTheDoctor(t *testing.T) {
	a := started(t, dataDir(t))
	ask := entered(t, a)
	_, out, _ := cliIn(a.dir, "--json", "doctor")
	var findings []doctor.Finding
	require.NoError(t, json.Unmarshal([]byte(out), &findings))
	faults := 0
	for _, f := range findings {
		if f.State == doctor.Fault {
			faults++
		}
	}
	want := "All services running"
	if faults == 1 {
		want = "1 thing is wrong"
	} else if faults > 1 {
		want = fmt.Sprintf("%d things are wrong", faults)
	}
	_, page := ask("/machines", nil)
	require.Contains(t, page, `</span>`+want)
	_, page = ask("/settings", nil)
	require.Equal(t, faults > 0, strings.Contains(page, "wrong</h2>"))
}

// HEAD is GET without a body, and whoever looks at the doctor reads no names of the
// code.
func TestWatchersMayAskByHead(t *testing.T) {
	a := started(t, dataDir(t))
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]int{probe.HealthPath: http.StatusOK, probe.ReadyPath: http.StatusOK, "/login": http.StatusSeeOther, "/machines": http.StatusSeeOther, "/nosuch": http.StatusNotFound} {
		head, err := c.Head("http://" + a.Admin + path)
		require.NoError(t, err)
		head.Body.Close()
		get, err := c.Get("http://" + a.Admin + path)
		require.NoError(t, err)
		get.Body.Close()
		if head.StatusCode != get.StatusCode || head.StatusCode == http.StatusMethodNotAllowed {
			t.Errorf("HEAD %s is answered %d, GET %d (%d)", path, head.StatusCode, get.StatusCode, want)
		}
	}
	out := a.must(t, "--json", "doctor")
	for _, name := range []string{`"merger"`, `"throughput"`, `"socket"`, `"journal keeper"`} {
		require.NotContains(t, out, name)
	}
	require.Contains(t, out, "off (--dhcp off)")
	require.Contains(t, out, "only this machine reaches the pages")
}

// Passwords in the clear are no sign of health where others can read them.
func TestPlainHTTPOffLoopbackIsAdvice(t *testing.T) {
	a := started(t, dataDir(t), "--admin", "0.0.0.0:0")
	_, out, _ := cliIn(a.dir, "doctor")
	require.Regexp(t, `(?m)^!!\s+admin HTTPS\s+off; passwords cross the network in the clear`, out)
}

// Whoever looked first and went away leaves no false alarm to those after.
func TestTheFootIsFoundOutToItsEnd(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	f, looks := new(foot), 0
	look := func(ctx context.Context) []string {
		looks++
		if _, ends := ctx.Deadline(); ctx.Err() != nil || !ends {
			return []string{"inventory"}
		}
		return nil
	}
	for _, ctx := range []context.Context{gone, t.Context()} {
		if text := f.says(ctx, look); text != "" || looks != 1 {
			t.Errorf("after %d looks it says %q", looks, text)
		}
	}
}
