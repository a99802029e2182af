package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	raw "github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// card is a packet socket. It is read by system calls of our own, which know
// when the kernel saw a packet: on a busy host we read it later, and the time
// between two packets is what a capture is looked at for.
type card struct {
	conn *raw.Conn
	fd   syscall.RawConn

	mu      sync.Mutex
	dropped int64 // the kernel forgets its count when it is read
}

// readBuffer is what the kernel may hold for us, in bytes.
const readBuffer = 4 << 20

// etherTypeAll is ETH_P_ALL (if_ether.h): only such a socket hears what we
// send.
const etherTypeAll = 3

func openCard(l Link, filter []bpf.Instruction) (Tap, error) {
	ifi, err := net.InterfaceByIndex(l.Index)
	if err != nil {
		return nil, err
	}
	assembled, err := assemble(filter)
	if err != nil {
		return nil, err
	}
	conn, err := raw.Listen(ifi, raw.Raw, etherTypeAll, &raw.Config{Filter: assembled})
	if err != nil {
		return nil, err
	}
	c := &card{conn: conn}
	if c.fd, err = conn.SyscallConn(); err == nil {
		controlErr := c.fd.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1), unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
			// The kernel may give less. What a full buffer drops is counted.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer)
		})
		if err == nil {
			err = controlErr
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("set up a packet socket: %w", err)
	}
	return c, nil
}

// assemble makes what the kernel takes. Frames that are tagged for a VLAN are left to
// the tag's own interface: the kernel has taken the tag out, and here they look as if
// they were ours. A tag of number 0 names no VLAN and only a priority (IEEE 802.1Q
// §6.9), and its frame is heard like one without.
func assemble(filter []bpf.Instruction) ([]bpf.RawInstruction, error) {
	head := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: vlanNumber, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	return bpf.Assemble(append(head, filter...))
}

// vlanNumber are the bits of a tag that name the VLAN.
const vlanNumber = 0x0fff

// Read waits for a frame.
func (c *card) Read(b []byte) (n int, seen Seen, err error) {
	var oob [128]byte
	var oobn int
	waitErr := c.fd.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), b, oob[:], unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = waitErr
	}
	if err != nil {
		return 0, seen, err
	}
	return n, told(oob[:oobn]), nil
}

// told reads what the kernel says of a packet: its time (socket(7), SO_TIMESTAMPNS),
// without which it is now, and the tag that was taken out (packet(7), PACKET_AUXDATA).
func told(oob []byte) (seen Seen) {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		all = nil
	}
	for _, m := range all {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16:
			seen.At = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= auxLen:
			seen.Tag = tagOf(binary.NativeEndian.Uint32(m.Data), binary.NativeEndian.Uint16(m.Data[auxTCI:]), binary.NativeEndian.Uint16(m.Data[auxTPID:]))
		}
	}
	if seen.At.IsZero() {
		seen.At = time.Now()
	}
	return seen
}

// Places in struct tpacket_auxdata, and its length (if_packet.h).
const (
	auxTCI  = 16
	auxTPID = 18
	auxLen  = 20
)

// tagOf makes a tag as it was on the wire. A kernel before 3.14 does not say the kind,
// and knew one.
func tagOf(status uint32, tci, tpid uint16) (tag [tagLen]byte) {
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return tag
	}
	if status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
		tpid = etherTypeVLAN
	}
	binary.BigEndian.PutUint16(tag[:], tpid)
	binary.BigEndian.PutUint16(tag[2:], tci)
	return tag
}

// Filter replaces the filter at once.
func (c *card) Filter(filter []bpf.Instruction) error {
	assembled, err := assemble(filter)
	if err != nil {
		return err
	}
	return c.conn.SetBPF(assembled)
}

// Dropped counts what the socket had no room for.
func (c *card) Dropped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st, err := c.conn.Stats(); err == nil {
		c.dropped += int64(st.Drops)
	}
	return c.dropped
}

// Close ends a Read that waits.
func (c *card) Close() error { return c.conn.Close() }
