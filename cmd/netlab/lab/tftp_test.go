package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/services/boot"
	"lunboot/store"
)

// fetcher gets loaders over TFTP as UEFI asks for them: curl, in a namespace.
type fetcher struct {
	*bench
	namespace string
	loader    []byte
}

func (b *bench) fetcher(namespace string) *fetcher {
	b.t.Helper()
	loader, err := os.ReadFile("/usr/lib/ipxe/" + string(boot.SNPOnly))
	b.must(err)
	return &fetcher{b, namespace, loader}
}

// fetch reports whether the loader came within the time, and that it is right.
func (f *fetcher) fetch(mac store.MAC, within time.Duration) bool {
	f.t.Helper()
	to := filepath.Join(f.Dir, "fetched")
	_, err := lab.Run(f.ctx, lab.Command{Namespace: f.namespace, Path: "curl", Args: []string{"-s", "-S", "--max-time", fmt.Sprint(within.Seconds()),
		"--tftp-blksize", "1468", "-o", to, "tftp://" + lab.ServerAddr.String() + "/" + boot.LoaderPath(mac, boot.SNPOnly)}})
	if err != nil {
		f.t.Log(err)
		return false
	}
	got, err := os.ReadFile(to)
	f.must(err)
	if !bytes.Equal(got, f.loader) {
		f.t.Errorf("%d bytes came, and they are not the loader's", len(got))
	}
	return true
}

// events waits for so many events of a kind.
func (f *fetcher) events(kind store.EventKind, n int) (found []store.Event) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 90*time.Second)
	defer cancel()
	for ; len(found) < n; time.Sleep(100 * time.Millisecond) {
		lines, err := f.appliance.CLI(ctx, "--json", "event", "list")
		f.must(err)
		found = nil
		for line := range strings.Lines(lines) {
			var e store.Event
			f.must(json.Unmarshal([]byte(line), &e))
			if e.Kind == kind {
				found = append(found, e)
			}
		}
	}
	return found
}

func (b *bench) shell(namespace, script string) {
	b.t.Helper()
	_, err := lab.Run(b.ctx, lab.Command{Namespace: namespace, Path: "/bin/sh", Args: []string{"-euc", script}})
	b.must(err)
}

// A link on the way swallows full-size frames and says nothing: the machine that
// asks again is given smaller blocks, and at its next boot at once.
func TestALoaderReachesAMachineBehindALinkThatSwallowsFullFrames(t *testing.T) {
	b := start(t, 2*time.Minute)
	f := b.fetcher(b.Network.LAN)
	b.shell(b.Network.LAN, "ip addr add 10.77.0.200/24 dev br0\nip link set lan0 mtu 1100")
	mac := lab.MAC(70)
	if f.fetch(mac, 2*time.Second) {
		t.Fatal("full-size frames pass: there is nothing to see here")
	}
	if !f.fetch(mac, 20*time.Second) {
		t.Fatal("asked again, it is still given blocks that are too large")
	}
	if abort := f.events(store.EventTFTPAbort, 1)[0]; abort.MAC != mac || abort.Detail.Blksize != 1468 || !strings.Contains(abort.Detail.Reason, "blocks of 1024 bytes") {
		t.Errorf("the event is %+v", abort)
	}
	begun := time.Now()
	if !f.fetch(mac, 20*time.Second) || time.Since(begun) > 5*time.Second {
		t.Errorf("the next boot took %s", time.Since(begun))
	}
	for _, e := range f.events(store.EventTFTPStart, 2) {
		if e.Detail.Blksize != 1024 {
			t.Errorf("a transfer began with %+v", e.Detail)
		}
	}
}

// A router on the way that says what it can carry is believed.
func TestBlocksFitTheNarrowestLinkThatARouterTellsOf(t *testing.T) {
	b := start(t, 2*time.Minute)
	far, err := lab.NewNamespace(b.ctx)
	b.must(err)
	t.Cleanup(func() { b.must(far.Close()) })
	f := b.fetcher(far.Name)
	b.shell(b.Network.LAN, "ip addr add 10.77.0.200/24 dev br0\nip link add up0 mtu 1300 type veth peer name far0 netns "+far.Name+"\nip addr add 10.78.0.1/24 dev up0\nip link set up0 up\necho 1 >/proc/sys/net/ipv4/ip_forward")
	b.shell(far.Name, "ip link set far0 mtu 1300\nip addr add 10.78.0.2/24 dev far0\nip link set far0 up\nip route add default via 10.78.0.1")
	b.shell(b.Network.Server, "ip route add 10.78.0.0/24 via 10.77.0.200")
	for range 2 {
		if !f.fetch(lab.MAC(71), 20*time.Second) {
			t.Fatal("the loader did not come")
		}
	}
	starts := f.events(store.EventTFTPStart, 2)
	sizes := map[int]int{}
	for _, e := range starts {
		sizes[e.Detail.Blksize]++
	}
	// The first is what was asked for, in fragments as soon as the router has
	// spoken; the second fits: 1300 bytes less IP, UDP and TFTP headers.
	if sizes[1468] != 1 || sizes[1300-20-8-4] != 1 {
		t.Errorf("the blocks had %v", sizes)
	}
}

// UEFI takes what it is given at its next power-on: it asks for 1468 bytes again,
// and is granted 1024.
func TestUEFIGetsItsLoaderThroughANarrowLinkAtItsNextPowerOn(t *testing.T) {
	b := start(t, linuxLimit)
	f := b.fetcher(b.Network.LAN)
	b.shell(b.Network.LAN, "ip link set lan0 mtu 1100")
	m := b.machine("narrow", lab.UEFI, 72)
	for _, last := range []store.EventKind{store.EventTFTPAbort, store.EventTFTPSent} {
		r, err := b.PowerOn(b.ctx, m)
		b.must(err)
		e := f.events(last, 1)[0]
		want := 1468
		if last == store.EventTFTPSent {
			want = 1024
		}
		if e.MAC != m.MAC || e.Detail.Blksize != want {
			t.Errorf("it ends with %+v", e)
		}
		r.Kill()
	}
}
