package capture

import (
	"encoding/binary"
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
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
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

// assemble makes what the kernel takes. Frames with a VLAN tag are left to the
// tag's own interface: the kernel has taken the tag out, and here they look as
// if they were ours.
func assemble(filter []bpf.Instruction) ([]bpf.RawInstruction, error) {
	head := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	return bpf.Assemble(append(head, filter...))
}

// Read waits for a frame.
func (c *card) Read(b []byte) (n int, at time.Time, err error) {
	var oob [64]byte
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
		return 0, at, err
	}
	return n, stamp(oob[:oobn]), nil
}

// stamp reads the kernel's time of a packet (socket(7), SO_TIMESTAMPNS); without
// one it is now.
func stamp(oob []byte) time.Time {
	all, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range all {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now()
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
