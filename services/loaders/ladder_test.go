package loaders

import (
	"log/slog"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
	"lunboot/store/sqlite"
)

func TestWhatTheLadderLearntSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	set, err := Load("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *Ladder {
		l, err := NewLadder(t.Context(), set, db)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	pc := boot.HardwareOf(store.MAC{0, 7, 0xe9, 1, 2, 3}, "UEFI", "x86-64", "PXEClient:Arch:00007:UNDI:003016")
	twin := pc
	twin.MAC[5]++
	l := fresh()
	if p := l.Next(pc, ""); p.Loader != boot.SNPOnly {
		t.Fatalf("at first it is given %+v", p)
	}
	if err := l.Learn(t.Context(), pc, boot.SNPOnly, boot.Silent, time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Ladder{"at once": l, "after a restart": fresh()} {
		for _, h := range []boot.Hardware{pc, twin} {
			if p := l.Next(h, ""); p.Loader != boot.IPXEEFI {
				t.Errorf("%s %s is given %+v", name, h.MAC, p)
			}
			if p := l.Next(h, "snponly.efi"); p.Loader != boot.SNPOnly || !p.Own {
				t.Errorf("%s its own choice gives %+v", name, p)
			}
		}
	}
	trials, err := db.LoaderTrials(t.Context())
	if err != nil || len(trials) != 2 {
		t.Errorf("the inventory holds %+v, %v", trials, err)
	}

	for _, i := range l.Manifest() {
		if i.Silent != map[boot.Loader]int{boot.SNPOnly: 1}[i.Name] || i.Worked != 0 {
			t.Errorf("%s: worked on %d, silent on %d", i.Name, i.Worked, i.Silent)
		}
	}

	// Another file under the same name has not failed yet.
	if err := set.Keep(t.Context(), t.TempDir(), db, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	set.mustAdd(t, boot.LoaderUpload{Name: "snponly.efi"}, pe(peX8664, peEFIApplication, "iPXE, mended"))
	if p := l.Next(pc, ""); p.Loader != boot.SNPOnly {
		t.Errorf("after an upload it is given %+v", p)
	}
	if err := set.Remove(t.Context(), "tester", "snponly.efi"); err != nil {
		t.Fatal(err)
	}
	if p := l.Next(pc, ""); p.Loader != boot.IPXEEFI {
		t.Errorf("with the old file again it is given %+v", p)
	}
	if err := l.Learn(t.Context(), pc, "gone.efi", boot.Silent, time.Now()); err != nil {
		t.Errorf("a loader that was taken back: %v", err)
	}
}
