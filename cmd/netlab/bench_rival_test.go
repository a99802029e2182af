package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/load/rounds"
)

// Two servers hold the same well-known port, and each row meets both in turn.
func TestRivalsMeetNobodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	binary, err := lab.BuildAppliance(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &benchCmd{Binary: binary, Rounds: 2}
	var rivals []*rival
	for k := range 2 {
		r, err := b.lunboot(filepath.Join(dir, fmt.Sprint(k)), "--dhcp", "off", "--boot", "127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		r.ready = func(ctx context.Context) error { return awaitPort(ctx, "127.0.0.1:80") }
		rivals = append(rivals, r)
	}
	stop, err := startRivals(t.Context(), rivals)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, side int) (rounds.Figures, error) {
		return rounds.Figures{1}, rivals[side].ns.Do(func() error {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", "127.0.0.1:80")
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := &world{ctx: t.Context(), out: out, err: out}
	table := &rounds.Table{Columns: []rounds.Column{{Name: "n", Format: "%.0f"}}, Sides: []string{"lunboot", "the other"},
		Rows: []*rounds.Row{{Name: "a connection", Do: dial, Goals: []rounds.Goal{{Of: "the other", Want: 2}}}}}
	below, err := b.compare(w, table)
	if err != nil || len(below) != 1 {
		t.Errorf("below are %q, %v", below, err)
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if said, _ := io.ReadAll(out); strings.Count(string(said), "\na connection") != 3 {
		t.Errorf("it prints\n%s", said)
	}
	ns := rivals[0].ns
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/run/netns/" + ns.Name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is left behind: %v", err)
	}
	if err := ns.Do(func() error { return nil }); err == nil {
		t.Error("a namespace that is gone can be entered")
	}
	for _, r := range rivals {
		select {
		case <-r.process.Done():
		case <-time.After(time.Second):
			t.Error("a rival still runs")
		}
	}
}

func TestALoadThatThereIsNotIsNamed(t *testing.T) {
	err := (&benchCmd{What: []string{"iscsi", "dhpc"}}).Run(&world{ctx: t.Context(), out: os.Stdout, err: os.Stderr})
	if err == nil || !strings.Contains(err.Error(), `no load "dhpc"`) || !strings.Contains(err.Error(), "iscsi") {
		t.Errorf("the error is %v", err)
	}
}
