package iscsi_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
)

func (b *bench) url(lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", b.Addr(), target, lun)
}

// The libiscsi tools find the target, list its LUNs and read what they are.
func TestPeerLibiscsiTools(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(64 << 20)}})
	out := must(t, "iscsi-ls", "-s", "-i", string(alice), "iscsi://"+b.Addr().String())
	if !strings.Contains(out, string(target)) || !strings.Contains(out, "Lun:2") || strings.Contains(out, "Lun:0") {
		t.Errorf("iscsi-ls says\n%s", out)
	}
	if out = must(t, "iscsi-inq", "-i", string(alice), b.url(2)); !strings.Contains(out, "DIRECT_ACCESS") {
		t.Errorf("iscsi-inq says\n%s", out)
	}
	if out = must(t, "iscsi-readcapacity16", "-i", string(alice), b.url(2)); !strings.Contains(out, "Total size:67108864") {
		t.Errorf("iscsi-readcapacity16 says\n%s", out)
	}
	out, err := run(t, "iscsi-inq", "-i", string(alice), b.url(0))
	t.Logf("an unmapped LUN: %v\n%s", err, out)
}

// iscsi-swp protects a disk from every initiator and frees it, and iscsi-perf
// reads it, many commands at a time.
func TestPeerLibiscsiToolsAtWork(t *testing.T) {
	b := start(t)
	v := newMemory(8 << 20)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: v}})
	i := b.login(t, alice, Linux(1))
	for _, c := range []struct{ swp, key string }{{"on", "07/27/02"}, {"off", ""}} {
		must(t, "iscsi-swp", "-i", string(alice), "-s", c.swp, b.url(2))
		i.Must(t, Ready(2))
		if r, err := i.Do(Write10(2, 0, make([]byte, 512))); err != nil || r.Key() != c.key {
			t.Errorf("with protection %s a write says %v %s, want %s", c.swp, err, r.Key(), c.key)
		}
	}
	for _, order := range []string{"--", "-r"} {
		if out := must(t, "iscsi-perf", "-i", string(alice), "-m", "64", "-b", "16", "-t", "1", order, b.url(2)); !strings.Contains(out, "finished.") {
			t.Errorf("iscsi-perf says\n%s", out)
		}
	}
	eventually(t, func() bool { return len(b.journal.all(store.EventISCSIClosed)) == 4 }, "four tools are gone")
	for n, e := range b.journal.all(store.EventISCSIClosed) {
		if read := e.Detail.Bytes; n >= 2 && read < 1<<20 {
			t.Errorf("iscsi-perf has read %d bytes", read)
		}
	}
}

// A stranger's discovery lists nothing, and its login is refused.
func TestPeerStranger(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	out := must(t, "iscsi-ls", "-i", string(bob), "iscsi://"+b.Addr().String())
	if strings.Contains(out, string(target)) {
		t.Errorf("a stranger is told of the target:\n%s", out)
	}
	if out, err := run(t, "iscsi-inq", "-i", string(bob), b.url(2)); err == nil {
		t.Errorf("a stranger may log in:\n%s", out)
	}
	e := b.journal.wait(t, store.EventISCSIRefused, 1)[0]
	if e.Detail.Status != "0202" || e.Detail.Initiator != string(bob) || !strings.Contains(e.Detail.Reason, "no machine") {
		t.Errorf("event %+v", e.Detail)
	}
}

// QEMU writes, reads back and converts, with CHAP and with digests.
func TestPeerQEMU(t *testing.T) {
	need(t, "qemu-io")
	need(t, "qemu-img")
	for _, digest := range []string{"none", "crc32c"} {
		for _, chap := range []bool{false, true} {
			t.Run(fmt.Sprintf("digest %s chap %v", digest, chap), func(t *testing.T) {
				b := start(t)
				v := newMemory(32 << 20)
				b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: v}})
				host := fmt.Sprintf("driver=iscsi,transport=tcp,portal=%s,target=%s,lun=2,initiator-name=%s,header-digest=%s", b.Addr(), target, alice, digest)
				if chap {
					b.catalog.change(func() {
						b.catalog.access[alice] = iscsi.Access{Auth: store.AuthCHAP, CHAP: store.Credential{User: "alice", Secret: "alicealicealice1"}}
					})
					host += ",user=alice,password-secret=s"
				}
				opts := []string{"--object", "secret,id=s,data=alicealicealice1", "--image-opts", host}
				io := append([]string{"-c", "write -P 0x5a 1M 3M", "-c", "write -P 0xa5 512 1k", "-c", "flush", "-c", "read -P 0x5a 1M 3M", "-c", "read -P 0xa5 512 1k", "-c", "read -P 0 4M 4M"}, opts...)
				out := must(t, "qemu-io", io...)
				if strings.Contains(out, "failed") {
					t.Fatal(out)
				}
				if v.b[1<<20] != 0x5a || v.b[(4<<20)-1] != 0x5a || v.b[512] != 0xa5 || v.b[4<<20] != 0 {
					t.Error("the bytes are not where they belong")
				}
				if v.syncs.Load() == 0 {
					t.Error("flush did not reach the volume")
				}
				image := filepath.Join(t.TempDir(), "image")
				want := make([]byte, 32<<20)
				rand.New(rand.NewSource(1)).Read(want)
				if err := os.WriteFile(image, want, 0o600); err != nil {
					t.Fatal(err)
				}
				must(t, "qemu-img", append([]string{"convert", "-n", "-f", "raw", "--object", "secret,id=s,data=alicealicealice1", "--target-image-opts", image}, host)...)
				if !bytes.Equal(want, v.b) {
					t.Error("qemu-img convert to the volume wrote other bytes")
				}
				back := filepath.Join(t.TempDir(), "back")
				must(t, "qemu-img", "convert", "-O", "raw", "--object", "secret,id=s,data=alicealicealice1", "--image-opts", host, back)
				if got, _ := os.ReadFile(back); !bytes.Equal(want, got) {
					t.Error("qemu-img convert from the volume read other bytes")
				}
			})
		}
	}
}

// The tools prove themselves, and have the target prove itself, with CHAP.
func TestPeerCHAP(t *testing.T) {
	need(t, "iscsi-inq")
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	b.catalog.change(func() {
		b.catalog.access[alice] = iscsi.Access{Auth: store.AuthMutual,
			CHAP:    store.Credential{User: "alice", Secret: "alicealicealice1"},
			Reverse: store.Credential{User: "target", Secret: "targettargettar1"}}
	})
	try := func(user, secret, query string) (string, error) {
		return run(t, "iscsi-inq", "-i", string(alice), fmt.Sprintf("iscsi://%s%%%s@%s/%s/2%s", user, secret, b.Addr(), target, query))
	}
	if out, err := try("alice", "alicealicealice1", "?target_user=target&target_password=targettargettar1"); err != nil {
		t.Errorf("mutual CHAP: %v\n%s", err, out)
	}
	if e := b.journal.wait(t, store.EventISCSILogin, 1)[0]; e.Detail.Auth != "mutual CHAP with MD5" && !strings.HasPrefix(e.Detail.Auth, "mutual CHAP with SHA") {
		t.Errorf("the login says %q", e.Detail.Auth)
	}
	for n, c := range []struct{ secret, query, reason string }{
		{"alicealicealice1", "", "mutual CHAP is required"},
		{"alicealicealice2", "?target_user=target&target_password=targettargettar1", "another CHAP secret"},
	} {
		if out, err := try("alice", c.secret, c.query); err == nil {
			t.Errorf("it came in where %s\n%s", c.reason, out)
		}
		e := b.journal.wait(t, store.EventISCSIRefused, n+1)
		if d := e[n].Detail; d.Status != "0201" || !strings.Contains(d.Reason, c.reason) || strings.Contains(d.Reason, "alicealice") {
			t.Errorf("the event says %s %q", d.Status, d.Reason)
		}
	}
	// The initiator refuses a target that has another secret.
	if out, err := try("alice", "alicealicealice1", "?target_user=target&target_password=targettargettar2"); err == nil {
		t.Errorf("the initiator took a false target\n%s", out)
	}
}
