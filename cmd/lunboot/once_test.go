package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

type onceInventory struct {
	once   string
	chosen time.Time
	used   int
}

func (o *onceInventory) Machine(_ context.Context, id store.MachineID) (store.Machine, error) {
	if id != 7 {
		return store.Machine{}, store.NotFound("machine", "id")
	}
	return store.Machine{ID: 7, Name: "lab-07", OnceProfile: o.once}, nil
}

func (o *onceInventory) Profile(_ context.Context, name string) (store.Profile, error) {
	for _, p := range []store.Profile{{Name: "rescue", Kind: store.ProfileKernel}, {Name: "san", Kind: store.ProfileSAN}, {Name: "deb", Kind: store.ProfileInstall}, {Name: "local", Kind: store.ProfileLocal}, {Name: "own", Kind: store.ProfileCustom},
		{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "rescue\ndeb\nlocal"}}} {
		if p.Name == name {
			return p, nil
		}
	}
	return store.Profile{}, store.NotFound("profile", name)
}

func (o *onceInventory) ConsumeOnce(_ context.Context, _ store.MachineID, profile string, chosen time.Time) (bool, error) {
	if profile != o.once || o.chosen.After(chosen) {
		return false, nil
	}
	o.used++
	return true, nil
}

func TestAOneShotProfileGoesWhenItsBootHasProvenItself(t *testing.T) {
	given := time.Unix(1_800_000_000, 0)
	ended := func(profile string, outcome store.Outcome, login store.StageState) store.Attempt {
		return store.Attempt{ID: 1, Machine: 7, Outcome: outcome, Owned: true, Stages: []store.Stage{
			{Name: store.StageScript, State: store.StageDone, Ended: given, Detail: "Profile " + profile + ", matched by MAC"}, {Name: store.StageLogin, State: login}}}
	}
	up := func(profile string) store.Attempt { return ended(profile, store.OutcomeUp, store.StageSkipped) }
	silent := func(profile string) store.Attempt {
		return ended(profile, store.OutcomeUpUnconfirmed, store.StageSkipped)
	}
	forged := func(t store.Attempt) store.Attempt {
		t.Owned = false
		return t
	}
	other := up("rescue")
	other.Machine = 8
	for what, c := range map[string]struct {
		once string
		t    store.Attempt
		used int
	}{
		"its boot is up":                          {"rescue", up("rescue"), 1},
		"another profile's boot is up":            {"rescue", up("san"), 0},
		"its boot failed":                         {"rescue", ended("rescue", store.OutcomeFailed, store.StageSkipped), 0},
		"its boot runs":                           {"rescue", ended("rescue", store.OutcomeRunning, store.StageSkipped), 0},
		"its own disk, and silence":               {"local", silent("local"), 1},
		"its own disk, and its system asks":       {"local", up("local"), 1},
		"its own disk failed, or it came back":    {"local", ended("local", store.OutcomeFailed, store.StageSkipped), 0},
		"its kernel, and silence":                 {"rescue", silent("rescue"), 1},
		"a script of its own, and silence":        {"own", silent("own"), 1},
		"a script of its own that boots a SAN":    {"own", ended("own", store.OutcomeUpUnconfirmed, store.StageDone), 0},
		"its own disk from a menu, and silence":   {"bench", silent("local"), 1},
		"its volume, and it may be up":            {"san", ended("san", store.OutcomeUpUnconfirmed, store.StageDone), 0},
		"its volume, by what it logged in with":   {"san", forged(ended("san", store.OutcomeUp, store.StageDone)), 1},
		"an installer, and silence":               {"deb", silent("deb"), 0},
		"somebody else asked, and silence":        {"local", forged(silent("local")), 0},
		"somebody else asked, and says up":        {"rescue", forged(up("rescue")), 0},
		"its installer is up, and not done":       {"deb", up("deb"), 0},
		"what its menu offers is up":              {"bench", up("rescue"), 1},
		"an installer of its menu is up":          {"bench", up("deb"), 0},
		"what its menu does not offer":            {"bench", up("san"), 0},
		"it was chosen since, for the next boot":  {"bench", ended("rescue", store.OutcomeUp, store.StageDone), 0},
		"it is up at last, and chosen anew since": {"local", up("local"), 0},
		"there is none":                           {"", up("rescue"), 0},
		"the machine is gone":                     {"rescue", other, 0},
		"the profile of the boot is gone":         {"rescue", up("gone"), 0},
		"nothing is known of the boot's profile":  {"rescue", store.Attempt{Machine: 7, Outcome: store.OutcomeUp, Owned: true}, 0},
	} {
		rows := &onceInventory{once: c.once, chosen: given}
		if strings.Contains(what, "since") {
			rows.chosen = given.Add(1)
		}
		k := newOnceKeeper(rows, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		k.ended(c.t)
		over := k.over
		k.over = nil // else Serve may take them once more before it sees that ctx ended
		for _, boot := range over {
			if err := k.settle(ctx, boot); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		cancel()
		if err := k.Serve(ctx); err != nil {
			t.Error(err)
		}
		if rows.used != c.used {
			t.Errorf("%s: used up %d times", what, rows.used)
		}
	}
}

// A machine is installed by hand, over its own initiator, with the boot code that the
// real tools write: what stands on its volume when it comes back says whether it is
// given its installer again.
func TestAnInstallationByHandIsSeenOnItsVolume(t *testing.T) {
	a := started(t, dataDir(t), "--script-guard", "off")
	files := t.TempDir()
	for _, name := range []string{"linux", "initrd.gz"} {
		require.NoError(t, os.WriteFile(filepath.Join(files, name), []byte("the bytes of "+name), 0o644))
		a.must(t, "media", "add", filepath.Join(files, name))
	}
	for _, verb := range []string{
		"profile set setup --kind install --field system=debian --field kernel=linux --field initrd=initrd.gz",
		"machine add lab1 --mac 02:00:00:00:00:01 --iqn iqn.2026-11.test:lab1 --auth none",
		"volume create lab1 --size 64M", "mapping add lab1 lab1 --lun 0 --boot", "machine boot lab1 --once setup",
	} {
		a.must(t, strings.Fields(verb)...)
	}
	ask := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Boot+"/boot.ipxe?mac=02:00:00:00:00:01&platform=pcbios", nil)
		require.NoError(t, err)
		req.Header.Set("User-Agent", "iPXE/1.21.1")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(body)
	}
	once := func() string {
		t.Helper()
		var m store.Machine
		require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "lab1")), &m))
		return m.OnceProfile
	}
	// installer is what its kernel does: it finds the volume that iPXE hooked, and writes.
	installer := func(writes map[uint32][]byte) {
		t.Helper()
		for _, isid := range []pdu.ISID{iscsitest.IPXE(1), iscsitest.Linux(1)} {
			i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: a.Target, ISID: isid})
			i.Must(t, iscsitest.Ready(0))
			i.Must(t, iscsitest.Read10(0, 0, 8))
			if isid == iscsitest.Linux(1) {
				for at, b := range writes {
					i.Must(t, iscsitest.Write10(0, at, b))
				}
			}
			i.Conn.Close()
		}
	}
	// first is a first block: real boot code, and one Linux partition at 1 MiB.
	first := func(code string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("../../store/volume/preflight/testdata", code))
		require.NoError(t, err)
		block := append(bytes.Clone(b), make([]byte, 512-len(b))...)
		copy(block[446:], "\x80\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x00\x01\x00")
		copy(block[510:], "\x55\xaa")
		return block
	}
	const starts, sanboot = "/files/linux", "sanboot iscsi:"

	require.Contains(t, ask(), starts)
	installer(map[uint32][]byte{0: first("libparted.bin")})
	require.Contains(t, ask(), starts, "it was interrupted: the volume is partitioned, and has no boot loader")
	require.Equal(t, "setup", once())
	installer(map[uint32][]byte{0: first("grub.bin"), 1: bytes.Repeat([]byte("core of GRUB    "), 32)})
	require.Contains(t, a.must(t, "machine", "explain", "02:00:00:00:00:01"), "has done its work")
	require.Equal(t, "setup", once(), "a dry run changes nothing")
	require.Contains(t, ask(), sanboot)
	require.Empty(t, once())
	require.Contains(t, ask(), sanboot)
	require.Contains(t, a.must(t, "--json", "event", "list"), "volume lab1 holds another boot loader")
}
