package session

import (
	"net"
	"testing"
	"time"

	"lunboot/services/iscsi/pdu"
)

// A peer that sends a PDU in pieces waits for the ACK of each: it is asked for
// once for each piece that is missing, and never while nothing is due.
func TestOnlyTheRestOfAPDUIsAcknowledgedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		data   int
		pieces []int // bytes of each but the last
		acks   int
	}{
		{"whole", 512, nil, 0},
		{"without data", 0, nil, 0},
		{"header and data, as iPXE sends them", 512, []int{48}, 1},
		{"a long text", 8192, []int{48}, 1},
		{"in the middle of the header", 512, []int{20}, 1},
		{"in the middle of the data", 4096, []int{1000}, 1},
		{"in three pieces", 4096, []int{48, 2048}, 2},
		{"a rest that draws its ACKs by itself", 200 << 10, []int{48}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			conn := NewConn(server, NewShared())
			acks, asked := 0, make(chan struct{}, 16)
			real := conn.ack
			conn.ack = func(fd uintptr) { acks++; real(fd); asked <- struct{}{} }
			read := make(chan error, 1)
			go func() {
				err := conn.header(maxAHS, 256<<10)
				if err == nil {
					_, err = conn.dataInto(make([]byte, c.data), conn.h.DataSegmentLength())
				}
				read <- err
			}()
			var h pdu.Header
			(&pdu.DataOut{Final: true, TargetTransferTag: 1}).Encode(&h)
			h.SetDataSegmentLength(c.data)
			b := append(h[:], make([]byte, c.data)...)
			for _, n := range c.pieces {
				if _, err := client.Write(b[:n]); err != nil {
					t.Fatal(err)
				}
				b = b[n:]
				if c.acks == 0 {
					continue
				}
				select { // the piece is read, and its ACK under way
				case <-asked:
				case <-time.After(5 * time.Second):
					t.Fatal("the ACK was not asked for")
				}
			}
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err != nil {
				t.Fatal(err)
			}
			// A last long write may arrive in pieces too; only more than is
			// due would be wrong there.
			if acks != c.acks && (c.data <= quickAckBelow || acks > c.data/quickAckBelow+1) {
				t.Errorf("TCP_QUICKACK was set %d times, want %d", acks, c.acks)
			}
		})
	}
}
