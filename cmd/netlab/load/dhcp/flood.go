package dhcp

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Flood sends DISCOVERs, each with a MAC that was never seen, at a rate a second
// until ctx ends, and takes no notice of what comes back. It returns how many it
// sent.
func Flood(ctx context.Context, server, relay netip.AddrPort, rate int) (sent int, err error) {
	fd, err := listen(relay)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	// Answers fill the socket and are dropped by the kernel.
	p := packet(Load{Server: server, Relay: relay, PXE: true}, discoverType)
	to := socketAddress(server)
	const piece = 5 * time.Millisecond
	tick := time.NewTicker(piece)
	defer tick.Stop()
	for start := time.Now(); ; {
		for due := int(time.Since(start).Seconds() * float64(rate)); sent < due; sent++ {
			stamp(p, uint32(sent), MAC(floodFrom+sent))
			if err := send(fd, p, to); err != nil {
				return sent, err
			}
		}
		select {
		case <-ctx.Done():
			return sent, nil
		case <-tick.C:
		}
	}
}

// floodFrom is the first client number of a flood, above those of every load.
const floodFrom = 1 << 24
