package attempts

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// ladder notes what it is taught, and answers that ipxe.efi is next.
type ladder struct {
	mu  sync.Mutex
	all []string
}

func (l *ladder) Learn(_ context.Context, h boot.Hardware, what boot.Loader, v boot.Verdict, _ time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf("%s %s on %s", what, v, h.UNDI))
	return nil
}

func (l *ladder) Next(boot.Hardware, string) boot.Pick {
	return boot.Pick{Loader: boot.IPXEEFI, Why: "it comes after snponly.efi"}
}

func (l *ladder) Unsigned(boot.Loader) bool { return true }

func (l *ladder) taught() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, ", ")
}

func (b *bench) sendLoader() {
	firmware := store.Detail{PXE: true, Firmware: "UEFI", Arch: "x86-64", Class: "PXEClient:Arch:00007:UNDI:003016"}
	b.see(store.EventDHCPDiscover, firmware)
	named := firmware
	named.Loader = "snponly.efi"
	b.see(store.EventDHCPAck, named)
	b.see(store.EventTFTPSent, store.Detail{File: "snponly.efi", Loader: "snponly.efi", Bytes: 9, Total: 9})
}

func TestTheRunnerTeachesTheLadderBeforeItExplains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.stop()
		l := &ladder{}
		b.start()
		b.stop()
		b.Runner.Ladder = l
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Runner.Serve(ctx) }()
		b.sendLoader()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := l.taught(); got != "snponly.efi silent on 003016" {
			t.Errorf("it is taught %q", got)
		}
		a, _ := b.Latest(7, theMAC)
		if len(a.Diagnoses) == 0 || !strings.Contains(fmt.Sprint(a.Diagnoses[0].Fixes), "it is given ipxe.efi then") {
			t.Errorf("the diagnoses are %+v", a.Diagnoses)
		}
		b.script(t)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := l.taught(); got != "snponly.efi silent on 003016, snponly.efi worked on 003016" {
			t.Errorf("after its script it is taught %q", got)
		}
		cancel()
		<-done
	})
}

func TestASilenceOverARestartOfTheApplianceTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.sendLoader()
		time.Sleep(10 * time.Second)
		b.kill()
		b.start()
		b.stop()
		l := &ladder{}
		b.Runner = New(b.tape, b.cache, b.inv, b.log, time.Now)
		b.Runner.Ladder = l
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Runner.Serve(ctx) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if a, _ := b.Latest(7, theMAC); a.Outcome != store.OutcomeFailed {
			t.Errorf("the boot is %s", a.Outcome)
		}
		if got := l.taught(); got != "" {
			t.Errorf("it is taught %q", got)
		}
		cancel()
		<-done
	})
}
