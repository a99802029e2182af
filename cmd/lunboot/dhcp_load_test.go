package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/cmd/netlab/load"
	"lunboot/cmd/netlab/load/dhcp"
	"lunboot/store"
	"lunboot/web/metrics"
)

// giving are the flags of an appliance that gives addresses on loopback, at an
// address of its own, so that answers go back to their sender.
func giving(t *testing.T, rng string) (server netip.AddrPort, flags []string) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server = c.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	flags = append([]string{}, onLoopback...)
	return server, append(flags, "--dhcp", "full", "--interface", "lo", "--dhcp-range", rng, "--dhcp-listen", server.String())
}

// relay is an address on loopback that a relay agent might have.
var relay = netip.MustParseAddrPort("127.5.0.1:0")

// rowsOf reads two columns of a database of an appliance's, whether it runs or not.
func rowsOf(t *testing.T, dir, file, query string) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, file)+"?mode=ro&_query_only=on")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			t.Fatal(err)
		}
		out[k] = v
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// leasesOf lists the bound leases that are on file, by MAC.
func leasesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	return rowsOf(t, dir, "inventory.db", "SELECT mac, address FROM lease WHERE state = 'bound'")
}

// An ACK leaves after its lease is on disk: whatever was acknowledged before a
// kill -9 is there after it, and its client is given the same address again.
func TestLeasesSurviveKill9(t *testing.T) {
	dir := dataDir(t)
	server, flags := giving(t, "127.5.1.0-127.5.200.255")
	p := bear(t, dir, flags...)
	had := map[int]netip.Addr{}
	for round, wait := 0, 300*time.Millisecond; round < 3; {
		ctx, cancel := context.WithCancel(t.Context())
		end := time.AfterFunc(wait, func() {
			_ = p.cmd.Process.Signal(syscall.SIGKILL)
			<-p.done
			cancel()
		})
		r, err := dhcp.Run(ctx, dhcp.Load{Server: server, Relay: relay, Clients: 20000, Flight: 64, Timeout: 10 * time.Second})
		end.Stop()
		if err != nil || r.Failures() > 0 || wait > 20*time.Second {
			t.Fatalf("round %d: %d leases, %+v, %v", round, len(r.Leases), r, err)
		}
		if len(r.Leases) < 50 {
			wait *= 3 // others have the processor: what was given counts, and the kill comes again later
		} else {
			round++
		}
		_ = p.cmd.Wait()
		for client, a := range r.Leases {
			if before, ok := had[client]; ok && before != a {
				t.Errorf("client %d had %s and was given %s after a kill", client, before, a)
			}
			had[client] = a
		}
		p = bear(t, dir, flags...)
		file := leasesOf(t, dir)
		for client, a := range had {
			if on := file[store.MAC(dhcp.MAC(client)).String()]; on != a.String() {
				t.Fatalf("round %d: client %d was given %s, and on file is %q", round, client, a, on)
			}
		}
		t.Logf("%d acknowledged, %d on file", len(had), len(file))
	}
}

// Invented MACs, thousands a second, take no machine's address and no memory, and
// leave no story of their own: for three seconds, and in a soak for a minute at
// ten thousand a second.
func TestAFloodOfStrangersCostsTheMachinesNothing(t *testing.T) {
	length, rate := 3*time.Second, 2000
	if os.Getenv("LUNBOOT_SOAK") != "" {
		length, rate = time.Minute, 10000
	}
	dir := dataDir(t)
	server, flags := giving(t, "127.5.1.0-127.5.1.255")
	p := bear(t, dir, flags...)
	enroll := func(client int) {
		t.Helper()
		verb := fmt.Sprintf("machine add lab%d --mac %s --auth none", client, store.MAC(dhcp.MAC(client)))
		if code, _, errs := cliIn(dir, strings.Fields(verb)...); code != exitDone {
			t.Fatalf("%s: %s", verb, errs)
		}
	}
	// The race detector makes everything ten times slower, and the processors are
	// not ours alone: then the kernel drops a packet, and the client asks again.
	patience := time.Second
	if raceFactor > 1 {
		patience *= 3
	}
	boot := func(client int) (a netip.Addr) {
		t.Helper()
		begun := time.Now()
		for !a.IsValid() && time.Since(begun) < patience {
			r, err := dhcp.Run(t.Context(), dhcp.Load{Server: server, Relay: relay, Clients: 1, First: client, Flight: 1, Count: 1, Timeout: patience / 3, PXE: true})
			if err != nil || r.Naks+r.Wrong > 0 {
				t.Errorf("machine %d: %+v, %v", client, r, err)
			}
			a = r.Leases[client]
		}
		if took := time.Since(begun); took >= patience || !a.IsValid() {
			t.Errorf("machine %d was given the address %s after %s", client, a, took)
		}
		return a
	}
	enroll(1)
	enroll(2)
	first := boot(1)

	ctx, cancel := context.WithTimeout(t.Context(), length+time.Minute)
	defer cancel()
	begun, done := time.Now(), make(chan int)
	go func() {
		sent, err := dhcp.Flood(ctx, server, relay, rate)
		if err != nil {
			t.Error(err)
		}
		done <- sent
	}()
	// The heap that the next collection aims at follows what is alive, and not what
	// waits for that collection.
	memory := func() (resident, heap int64) {
		t.Helper()
		n, err := load.Resident(p.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return n, int64(numberOf(t, dir, "go_memstats_next_gc_bytes"))
	}
	// What is bounded is full once this many strangers came after the last that was
	// told of; how long that takes is the processors' matter.
	const crowd = 4096
	for untold := 0.0; untold < crowd; {
		if ctx.Err() != nil {
			t.Fatalf("of %v strangers nothing was told, and not of %d", untold, crowd)
		}
		time.Sleep(100 * time.Millisecond)
		untold = numberOf(t, dir, metrics.DHCPUntold.Name)
	}
	before, heapBefore := memory()
	end := time.After(length)
	for n := 0; ctx.Err() == nil; n++ {
		if a := boot(1); a != first {
			t.Errorf("the machine had %s and was given %s", first, a)
		}
		switch n {
		case 1:
			boot(2) // enrolled before, never seen
		case 2:
			enroll(3)
			boot(3)
		}
		select {
		case <-end:
			cancel()
		case <-time.After(length / 20):
		}
	}
	sent := <-done
	lasted := time.Since(begun)
	resident, heap := memory()
	grown, heap := resident-before, heap-heapBefore
	t.Logf("%d DISCOVERs; %d MiB more memory, %d MiB more heap", sent, grown>>20, heap>>20)
	if sent < rate*int(length/time.Second)/2 {
		t.Errorf("%d DISCOVERs are no flood", sent)
	}
	if heap > 24<<20 {
		t.Errorf("the heap grew by %d MiB", heap>>20)
	}
	// The race detector keeps shadows of every byte that was ever used, dead ones
	// too: its manual says five to ten times the memory.
	if most := int64(32 << 20); grown > most && (raceFactor == 1 || grown > 5*most) {
		t.Errorf("it grew by %d MiB", grown>>20)
	}
	if l := leasesOf(t, dir); len(l) != 3 {
		t.Errorf("leases on file: %v", l)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.done
	unknown := len(rowsOf(t, dir, "inventory.db", "SELECT mac, '' FROM unknown_machine"))
	if unknown == 0 || unknown > store.MaxUnknownMachines {
		t.Errorf("%d unknown machines are listed", unknown)
	}
	events := len(rowsOf(t, dir, "journal.db", "SELECT seq, '' FROM event"))
	// The strangers that are told of at once, two events each, and some a second.
	if most := 2*(4096+64*int(lasted/time.Second)) + 1000; events > most {
		t.Errorf("%d events for %d DISCOVERs, more than %d", events, sent, most)
	}
	t.Logf("%d events, %d unknown machines", events, unknown)
}
