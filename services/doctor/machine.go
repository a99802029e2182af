package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"lunboot/services"
	"lunboot/store"
)

// Capabilities that the appliance needs (capabilities(7), linux/capability.h).
const (
	capNetBindService = 10
	capNetRaw         = 13
)

// Rights checks that this process may do what the appliance needs to: hold
// ports below 1024 (low), and speak to machines that have no address yet (raw).
func (h Host) Rights(program string, low, raw bool) Check {
	return Check{Name: "rights", Run: func(context.Context) (string, error) {
		status, err := h.ReadFile("/proc/self/status")
		if err != nil {
			return "", unknown("", "our rights cannot be read: %v", err)
		}
		var effective uint64
		found := false
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
				effective, err = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
				found = err == nil
			}
		}
		if !found {
			return "", unknown("", "our rights cannot be read: /proc/self/status does not tell them")
		}
		var missing []string
		for _, c := range []struct {
			bit        uint
			needed     bool
			name, what string
		}{
			{capNetBindService, low && h.unprivileged() > 67, "CAP_NET_BIND_SERVICE", "ports below 1024"},
			{capNetRaw, raw, "CAP_NET_RAW", "answers to machines without an address"},
		} {
			if c.needed && effective&(1<<c.bit) == 0 {
				missing = append(missing, c.name+" ("+c.what+")")
			}
		}
		if len(missing) > 0 {
			return "", fault("setcap cap_net_bind_service,cap_net_raw+ep "+program,
				"this program lacks %s. Run it as root, by the unit deploy/lunboot.service, or give it to the program", strings.Join(missing, " and "))
		}
		return "what this program does is allowed", nil
	}}
}

// unprivileged is the lowest port that anybody may hold (ip(7)).
func (h Host) unprivileged() int {
	b, err := h.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 1024
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1024
	}
	return n
}

// Years outside of these are a clock that was never set.
const (
	firstYear = 2026
	lastYear  = 2100
)

// Clock checks the time: leases, events and certificates go by it.
func (h Host) Clock() Check {
	return Check{Name: "clock", Run: func(context.Context) (string, error) {
		now := h.Now()
		if y := now.Year(); y < firstYear || y > lastYear {
			return "", fault("timedatectl set-ntp true || date -s 'YYYY-MM-DD hh:mm'", "the clock says %s: leases would end at the wrong time, and machines refuse TLS. Set it", now.Format("2006-01-02"))
		}
		const follow = "systemctl enable --now systemd-timesyncd"
		ok, err := h.Synchronised()
		switch {
		case err != nil:
			return "", unknown("timedatectl", "it is %s; whether the clock follows another one cannot be read (%v). Look yourself", now.UTC().Format("2006-01-02 15:04 UTC"), err)
		case !ok:
			return "", advice(follow, "it is %s, and the clock follows no other: the times of events drift from those that people see. Let it follow one", now.UTC().Format("2006-01-02 15:04 UTC"))
		}
		return now.UTC().Format("2006-01-02 15:04 UTC") + ", synchronised", nil
	}}
}

// Space checks the room in the data folder. reserve is the file that keeps room
// for leases and mappings, and its size; a zero size checks none.
func (h Host) Space(dir, reserve string, size, low int64) Check {
	return Check{Name: "free space", Run: func(context.Context) (string, error) {
		free, err := h.Free(dir)
		if err != nil {
			return "", err
		}
		if free < low {
			return "", fault("df -h "+dir, "%s free in %s; volumes grow as machines write. Make room", store.Bytes(free), dir)
		}
		if size > 0 {
			if st, err := os.Stat(reserve); err != nil || st.Size() < size {
				return "", advice("df -h "+dir, "the %s that are kept for leases and mappings were given back, so the disk was full. It has %s now, and they are kept again with the next change; watch it", store.Bytes(size), store.Bytes(free))
			}
			return store.Bytes(free) + " free, and " + store.Bytes(size) + " kept for leases", nil
		}
		return store.Bytes(free) + " free", nil
	}}
}

// Loader is one network boot program that the appliance has.
type Loader struct {
	Name, Arch, Firmware, Version string
	Features                      []string
}

// Loaders checks that there is a loader for the machines of a lab. missing says
// which ones are not there and how to get them, empty for none.
func Loaders(have []Loader, missing string) Check {
	c := Check{Name: "loaders", Run: func(context.Context) (string, error) {
		if missing != "" {
			what, mend, _ := strings.Cut(missing, "`")
			mend, _, _ = strings.Cut(mend, "`")
			return "", fault(mend, "%s", strings.TrimSpace(what))
		}
		return fmt.Sprintf("%d loaders", len(have)), nil
	}}
	for _, l := range have {
		c.Then = append(c.Then, Check{Name: l.Name, Run: func(context.Context) (string, error) {
			parts := []string{strings.TrimSpace(l.Firmware + " " + l.Arch)}
			if l.Version != "" {
				parts = append(parts, "iPXE "+l.Version)
			}
			if len(l.Features) > 0 {
				parts = append(parts, strings.Join(l.Features, " "))
			}
			return strings.Join(parts, ", "), nil
		}})
	}
	return c
}

// Port checks that nobody else holds a port that the appliance is going to.
// holder finds who does; flag is the way to another port.
func Port(name, network string, port int, flag string, holder func(network string, port int) (services.Holder, bool)) Check {
	return Check{Name: name, Run: func(context.Context) (string, error) {
		if who, held := holder(network, port); held {
			if who.Name == "" {
				return "", fault(who.Stop, "port %d is held by a program that cannot be named from here; choose another with %s, or find it as root", port, flag)
			}
			return "", fault(who.Stop, "port %d is held by %s; choose another with %s, or stop it", port, who, flag)
		}
		return fmt.Sprintf("port %d is free", port), nil
	}}
}

// Kernel checks for what the appliance uses of the kernel and what may not be
// loaded.
func (h Host) Kernel() Check {
	return Check{Name: "kernel", Run: func(context.Context) (string, error) {
		if _, err := h.ReadFile("/proc/net/packet"); errors.Is(err, os.ErrNotExist) {
			return "", fault("modprobe af_packet", "the kernel has no packet sockets, by which machines without an address are answered. Load them")
		}
		if _, err := h.ReadFile("/proc/net/if_inet6"); errors.Is(err, os.ErrNotExist) {
			return "", advice("modprobe ipv6", "the kernel has no IPv6: iPXE waits 16 s at each stage for a router, and nobody tells it that there is none. Load it")
		}
		return "packet sockets and IPv6", nil
	}}
}
