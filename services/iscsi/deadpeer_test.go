package iscsi_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
)

// deadPeerEnv tells the child process of TestDeadPeerIsGoneWithinAMinute its
// part.
const deadPeerEnv = "LUNBOOT_TEST_DEAD_PEER"

// An iPXE that is switched off says nothing and answers nothing: TCP has to
// find out. The two ends stand in network namespaces of their own, and the wire
// between them is cut.
func TestDeadPeerIsGoneWithinAMinute(t *testing.T) {
	switch os.Getenv(deadPeerEnv) {
	case "target":
		deadPeerTarget(t)
		return
	case "initiator":
		deadPeerInitiator(t)
		return
	}
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("takes most of a minute")
	}
	ip := need(t, "ip")
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to make network namespaces")
		}
		t.Skip("needs root to make network namespaces")
	}
	id := strconv.Itoa(os.Getpid())
	a, b := "lbdead-a"+id, "lbdead-b"+id
	do := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{a, b} {
		do("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "del", ns).Run() })
	}
	do("link", "add", "lbd"+id, "netns", a, "type", "veth", "peer", "name", "lbd"+id, "netns", b)
	for n, ns := range []string{a, b} {
		do("-n", ns, "address", "add", "192.0.2."+strconv.Itoa(n+1)+"/24", "dev", "lbd"+id)
		do("-n", ns, "link", "set", "lbd"+id, "up")
	}
	child := func(ns, part string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
		t.Cleanup(cancel)
		c := exec.CommandContext(ctx, ip, "netns", "exec", ns, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), deadPeerEnv+"="+part)
		return c
	}
	var said strings.Builder
	target := child(a, "target")
	target.Stdout, target.Stderr = &said, &said
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	initiator := child(b, "initiator")
	out, err := initiator.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := initiator.Start(); err != nil {
		t.Fatal(err)
	}
	// It says when it is logged in; then the wire is cut on its side.
	buf := make([]byte, 4096)
	for said := ""; !strings.Contains(said, "logged in"); {
		n, err := out.Read(buf)
		if said += string(buf[:n]); err != nil {
			t.Fatalf("the initiator: %v\n%s", err, said)
		}
	}
	do("-n", b, "link", "set", "lbd"+id, "down")
	err = target.Wait()
	_ = initiator.Process.Kill() // its connection leads nowhere
	_ = initiator.Wait()
	if err != nil {
		t.Fatalf("the target: %v\n%s", err, said.String())
	}
	t.Log(said.String())
}

// deadPeerTarget waits for one session to come and to go.
func deadPeerTarget(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startOn(t, b, iscsi.Config{Listen: "192.0.2.1:3260"})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	for deadline := time.Now().Add(20 * time.Second); b.sessions(alice) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody logged in")
		}
	}
	at := time.Now()
	for b.sessions(alice) > 0 {
		if time.Since(at) > 60*time.Second {
			t.Fatal("the session is still there after a minute")
		}
		time.Sleep(50 * time.Millisecond)
	}
	e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]
	t.Logf("gone after %s: %s", time.Since(at).Round(time.Second), e.Detail.Reason)
	if e.Detail.Cause != store.CauseSilent || e.Detail.Reason != "the initiator stopped answering" {
		t.Errorf("the reason is %q", e.Detail.Reason)
	}
}

// deadPeerInitiator logs in as an iPXE and falls silent.
func deadPeerInitiator(t *testing.T) {
	var i *Initiator
	eventually(t, func() bool {
		var err error
		i, err = Dial(netip.MustParseAddrPort("192.0.2.1:3260"), Options{Name: string(alice), Target: string(target), ISID: IPXE(1)})
		return err == nil
	}, "login")
	i.Must(t, Read10(0, 0, 1))
	_, _ = os.Stdout.WriteString("logged in\n")
	time.Sleep(90 * time.Second)
}
