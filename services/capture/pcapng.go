package capture

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"lunboot/store"
)

// Query names the packets of one boot.
type Query struct {
	MACs     []store.MAC
	Addrs    []netip.Addr // for machines behind a router
	From, To time.Time    // To zero: until now
	About    string       // a line for the file's comment
}

// cut tells the reader of a file what is not in it.
const cut = "Left out on purpose: the data of volumes, files and HTTP bodies; CHAP_C and CHAP_R; keys of reports, " +
	"passwords in DHCP options and URLs, HTTP headers and query fields that are not known to be harmless (zeros or the letter x stand for them, " +
	"so checksums of such packets are wrong). Of a TCP connection the first 256 KiB are followed, then only its end; of a TFTP transfer the first 32 blocks, " +
	"what was repeated, and the last. Of each machine the newest 512 KiB are kept, in memory, until the appliance is restarted. " +
	"Large packets that the network card cuts up or joins are shown as the appliance's system saw them."

// File returns the packets as a pcapng file. When nothing was kept, the error
// says why.
func (s *Server) File(q Query) ([]byte, error) {
	packets, links := s.rec.find(q)
	if len(packets) == 0 {
		st := s.State()
		if st.Reason != "" {
			return nil, &store.Error{Kind: store.KindUnavailable, Op: "download a capture", Msg: "packets of boots are not recorded: " + st.Reason}
		}
		return nil, &store.Error{Kind: store.KindNotFound, Op: "download a capture", Msg: fmt.Sprintf(
			"no packets of this boot are kept: only the newest of each machine are, in memory, and since %s, when the appliance was started", st.Since.Format("2006-01-02 15:04:05"))}
	}
	var out bytes.Buffer
	comment := q.About + "\n" + cut
	face := func(name string) pcapgo.NgInterface {
		return pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, OS: "linux", SnapLength: 0}
	}
	w, err := pcapgo.NewNgWriterInterface(&out, face(links[0]), pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "lunboot", OS: "linux", Comment: comment}})
	for _, name := range links[1:] {
		if err == nil {
			_, err = w.AddInterface(face(name))
		}
	}
	for _, p := range packets {
		if err != nil {
			break
		}
		b := p.frame()
		err = w.WritePacket(gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(b), Length: p.length, InterfaceIndex: p.link}, b)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("write a capture: %w", err)
	}
	return out.Bytes(), nil
}

// Has reports whether any packet is kept.
func (s *Server) Has(q Query) bool {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	return s.rec.each(q, func(packet) bool { return false })
}

// find returns the packets of a boot in the order of time, and the names of the
// interfaces.
func (r *recorder) find(q Query) ([]packet, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []packet
	r.each(q, func(p packet) bool { out = append(out, p); return true })
	slices.SortStableFunc(out, func(a, b packet) int { return a.at.Compare(b.at) })
	return out, slices.Clone(r.links)
}

// each gives fn the packets of a boot, machine by machine, until fn has enough,
// and reports whether there was one; mu is held.
func (r *recorder) each(q Query, fn func(packet) bool) (any bool) {
	var all []who
	for _, m := range q.MACs {
		all = append(all, who{mac: m})
	}
	for _, a := range q.Addrs {
		all = append(all, who{addr: a})
	}
	for i, w := range all {
		m := r.rings.byWho[w]
		if m == nil || slices.Contains(all[:i], w) {
			continue
		}
		for _, p := range m.packets {
			if p.at.Before(q.From) || !q.To.IsZero() && !p.at.Before(q.To) {
				continue
			}
			any = true
			if !fn(p) {
				return any
			}
		}
	}
	return any
}
