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

func TestWhoeverStartedAHolderStopsIt(t *testing.T) {
	for name, c := range map[string]struct {
		holder  Holder
		cgroup  string
		cmdline []string
		want    string
	}{
		"a unit":            {Holder{Name: "in.tftpd", PID: 7}, "0::/system.slice/tftpd-hpa.service\n", nil, "systemctl disable --now tftpd-hpa"},
		"a user's program":  {Holder{Name: "python3", PID: 7}, "0::/user.slice/user-0.slice/user@0.service/app.slice/run.scope\n", nil, "kill 7"},
		"no systemd":        {Holder{Name: "dnsmasq", PID: 7}, "0::/\n", nil, "kill 7"},
		"the resolver":      {Holder{Name: "systemd-resolve", PID: 7}, "0::/system.slice/systemd-resolved.service\n", nil, "systemctl disable --now systemd-resolved"},
		"a libvirt network": {Holder{Name: "dnsmasq", PID: 7}, "0::/system.slice/libvirtd.service\n", []string{"/usr/sbin/dnsmasq", "--conf-file=/var/lib/libvirt/dnsmasq/default.conf"}, "virsh net-destroy default && virsh net-autostart default --disable"},
		"a container":       {Holder{Name: "docker-proxy", PID: 7}, "0::/system.slice/docker.service\n", nil, "docker stop $(docker ps -q --filter publish=69)"},
		"a socket unit":     {Holder{Name: "systemd", PID: 1}, "0::/init.scope\n", nil, "systemctl list-sockets | grep ':69', then systemctl disable --now NAME.socket"},
		"lxc":               {Holder{Name: "dnsmasq", PID: 7}, "0::/system.slice/lxc-net.service\n", []string{"dnsmasq", "--pid-file=/run/lxc/dnsmasq.pid"}, "systemctl disable --now lxc-net"},
	} {
		if got := stopCommand(c.holder, c.cgroup, c.cmdline, 69); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAHeldPortIsNeverCalledFree(t *testing.T) {
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := udp.LocalAddr().(*net.UDPAddr).Port
	h, held := HolderOf("udp", port)
	if !held || h.PID != os.Getpid() || h.Stop == "" {
		t.Errorf("held %v by %+v", held, h)
	}
	udp.Close()
	if h, held := HolderOf("udp", port); held {
		t.Errorf("a free port is held by %v", h)
	}
	if s := (Holder{}).String(); s != "another program" {
		t.Errorf("who cannot be named is %q", s)
	}
}
