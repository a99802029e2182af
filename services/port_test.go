package services

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

func TestPortHolderNamesThisProcess(t *testing.T) {
	me := fmt.Sprintf("(pid %d)", os.Getpid())
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if got := PortHolder("udp4", udp.LocalAddr().(*net.UDPAddr).Port); !strings.Contains(got, me) {
		t.Errorf("the holder of our UDP port is %q, want this process %s", got, me)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := tcp.Addr().(*net.TCPAddr).Port
	if got := PortHolder("tcp", port); !strings.Contains(got, me) {
		t.Errorf("the holder of our TCP port is %q, want this process %s", got, me)
	}
	_, err = net.Listen("tcp", tcp.Addr().String())
	said := ListenError("boot HTTP", "tcp", tcp.Addr().String(), "--boot", err).Error()
	for _, want := range []string{"boot HTTP", me, "--boot", fmt.Sprint(port)} {
		if !strings.Contains(said, want) {
			t.Errorf("the error %q does not say %q", said, want)
		}
	}
	tcp.Close()
	if got := PortHolder("tcp", port); got != "" {
		t.Errorf("a free port has the holder %q", got)
	}
}

func TestListenErrorSaysTheWayOut(t *testing.T) {
	_, err := net.Listen("tcp", "192.0.2.1:0")
	if err == nil {
		t.Skip("this machine has the address 192.0.2.1")
	}
	if said := ListenError("boot HTTP", "tcp", "192.0.2.1:0", "--boot", err).Error(); !strings.Contains(said, "no interface has the address") || !strings.Contains(said, "--boot") {
		t.Errorf("%q", said)
	}
}
