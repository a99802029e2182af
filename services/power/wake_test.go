package power

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"lunboot/store"
)

const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

// alone runs the calling test again in a network namespace of its own, and
// reports whether this is that run.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	cmd := exec.Command("unshare", "-n", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
}

func TestTheMagicPacketIsOnTheMachinesWireAndOnNoOther(t *testing.T) {
	if !alone(t) {
		return
	}
	ears := map[string]*packet.Conn{}
	for i, name := range []string{"lab", "office"} {
		ip(t, "link", "add", name, "type", "veth", "peer", "name", name+"-far")
		ip(t, "addr", "add", "10.7"+string(rune('0'+i))+".0.1/24", "dev", name)
		ip(t, "link", "set", name, "up")
		ip(t, "link", "set", name+"-far", "up")
		far, err := net.InterfaceByName(name + "-far")
		if err != nil {
			t.Fatal(err)
		}
		const ethIPv4 = 0x0800
		if ears[name], err = packet.Listen(far, packet.Raw, ethIPv4, nil); err != nil {
			t.Fatal(err)
		}
		defer ears[name].Close()
	}
	a, b := store.MAC{0x52, 0x54, 0, 0x77, 0, 1}, store.MAC{0x52, 0x54, 0, 0x77, 0, 2}
	sent, err := Wake(t.Context(), []store.MAC{a, b}, []Place{{Interface: "none"}, {Interface: "lab"}})
	if err != nil || len(sent) != 1 || sent[0].String() != "lab" {
		t.Fatalf("sent to %v, %v", sent, err)
	}
	for _, mac := range []store.MAC{a, b} {
		frame := make([]byte, 2048)
		if err := ears["lab"].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := ears["lab"].ReadFrom(frame)
		if err != nil {
			t.Fatal(err)
		}
		frame = frame[:n]
		// Ethernet broadcast, IPv4 limited broadcast, UDP to port 9, then the
		// packet alone.
		if n != 14+20+8+102 || !bytes.Equal(frame[:6], bytes.Repeat([]byte{0xff}, 6)) || !bytes.Equal(frame[30:34], []byte{255, 255, 255, 255}) || frame[23] != 17 || frame[36] != 0 || frame[37] != 9 {
			t.Errorf("the frame is %x", frame)
		}
		if want := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat(mac[:], 16)...); !bytes.Equal(frame[42:], want) {
			t.Errorf("the packet is %x", frame[42:])
		}
	}
	if err := ears["office"].SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := ears["office"].ReadFrom(make([]byte, 2048)); err == nil {
		t.Errorf("%d bytes went to another network", n)
	}
	if _, err := Wake(t.Context(), []store.MAC{a}, []Place{{Interface: "none"}}); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("an interface that is not there: %v", err)
	}
	if _, err := Wake(t.Context(), []store.MAC{a}, nil); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("nowhere to send to: %v", err)
	}
	// Behind a router, by the directed broadcast of its network.
	if _, err := Wake(t.Context(), []store.MAC{a}, []Place{{Prefix: netip.MustParsePrefix("10.71.0.0/24")}}); err != nil {
		t.Fatal(err)
	}
	if err := ears["office"].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 2048)
	if n, _, err := ears["office"].ReadFrom(frame); err != nil || !bytes.Equal(frame[30:34], []byte{10, 71, 0, 255}) || !bytes.Equal(frame[42:n], Packet(a)) {
		t.Errorf("behind a router: %x, %v", frame[:n], err)
	}
}

func TestTheBroadcastAddressOfANetwork(t *testing.T) {
	for prefix, want := range map[string]string{"10.1.2.0/24": "10.1.2.255", "10.1.2.77/20": "10.1.15.255", "192.168.0.4/30": "192.168.0.7", "0.0.0.0/0": "255.255.255.255"} {
		if got, err := directed(netip.MustParsePrefix(prefix)); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v", prefix, got, err)
		}
	}
	for _, prefix := range []string{"10.0.0.1/32", "10.0.0.0/31", "fd00::/64"} {
		if got, err := directed(netip.MustParsePrefix(prefix)); err == nil {
			t.Errorf("%s: %s", prefix, got)
		}
	}
}
