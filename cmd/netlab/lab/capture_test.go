package lab_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"lunboot/cmd/netlab/lab/area"
	"lunboot/services/boot"
	"lunboot/store"
)

// What a machine sent and got is downloaded after its boot, read by a decoder
// that is not ours, and says everything but the secrets.
func TestABootIsDownloadedAsACaptureWithoutItsSecrets(t *testing.T) {
	b := start(t, 2*sectorLimit)
	c := b.sector("recorded", 60, area.PowerOff)
	r := b.powerOn(c)
	_, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	// Another boot follows, and is another capture.
	r = b.powerOn(c)
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.Wait(b.ctx))
	raw := b.captured("1")
	t.Logf("%d bytes", len(raw))
	for _, attempt := range []string{"1", "2"} {
		if n := b.kinds(b.captured(attempt))["DHCP Discover"]; n != 1 {
			t.Errorf("the capture of boot %s has %d DISCOVERs", attempt, n)
		}
	}

	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", "recorded", "--secrets"))
	for _, secret := range []string{m.CHAP.Secret, m.Reverse.Secret} {
		if len(secret) < store.MinSecret {
			t.Fatalf("the machine logs in with the secret %q", secret)
		}
		if bytes.Contains(raw, []byte(secret)) || bytes.Contains(raw, []byte(hex.EncodeToString([]byte(secret)))) {
			t.Error("a secret of the machine is in the capture")
		}
	}

	seen := b.kinds(raw)
	t.Log(seen)
	for _, want := range []string{"DHCP Discover", "DHCP Offer", "DHCP Request", "DHCP Ack", "script asked for", "answer over HTTP", "login request", "InitiatorName=iqn.", "CHAP_C=", "CHAP_R=xxxx", "CHAP_N="} {
		if seen[want] == 0 {
			t.Errorf("the capture has no %s", want)
		}
	}
	if seen["READ(10)"]+seen["READ(16)"] == 0 {
		t.Error("the capture has no READ")
	}
	gaps := b.restGaps(raw)
	t.Logf("iPXE sent the rest of a login's PDU after %s", gaps)
	if len(gaps) < 3 {
		t.Errorf("iPXE sent only %d PDUs of its login in two segments", len(gaps))
	} else if slices.Sort(gaps); gaps[len(gaps)/2] > delayedACK/2 {
		t.Errorf("iPXE waited %s for the ACK of a PDU's header", gaps[len(gaps)/2])
	}
	if bytes.Contains(raw, c.Nonce[:]) || bytes.Contains(raw, []byte("set username")) || bytes.Contains(raw, []byte("sanboot iscsi:")) {
		t.Error("the volume's or the script's text is in the capture")
	}
}

// delayedACK is what Linux waits before it acknowledges a segment by itself.
const delayedACK = 40 * time.Millisecond

// restGaps is how long iPXE held back the data of each login PDU after its header:
// it sends them apart, and waits for the ACK of the first.
func (b *bench) restGaps(raw []byte) (gaps []time.Duration) {
	b.t.Helper()
	packets, err := pcapgo.NewNgReader(bytes.NewReader(raw), pcapgo.DefaultNgReaderOptions)
	b.must(err)
	var header time.Time
	for {
		data, info, err := packets.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return gaps
		}
		b.must(err)
		tcp, ok := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
		switch {
		case !ok || tcp.DstPort != 3260 || len(tcp.Payload) == 0:
		case len(tcp.Payload) == 48 && tcp.Payload[0]&0x3f == 0x03:
			header = info.Timestamp
		case !header.IsZero():
			gaps = append(gaps, info.Timestamp.Sub(header))
			header = time.Time{}
		}
	}
}

// captured downloads the capture of a boot.
func (b *bench) captured(attempt string) []byte {
	b.t.Helper()
	file := filepath.Join(b.Dir, "boot-"+attempt+".pcapng")
	b.cli("attempt", "capture", attempt, file)
	raw, err := os.ReadFile(file)
	b.must(err)
	return raw
}

// kinds counts what a decoder that is not ours finds in a capture.
func (b *bench) kinds(raw []byte) map[string]int {
	b.t.Helper()
	seen := map[string]int{}
	packets, err := pcapgo.NewNgReader(bytes.NewReader(raw), pcapgo.DefaultNgReaderOptions)
	b.must(err)
	for {
		data, _, err := packets.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		b.must(err)
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		if dhcp, ok := p.Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4); ok {
			for _, o := range dhcp.Options {
				if o.Type == layers.DHCPOptMessageType {
					seen["DHCP "+layers.DHCPMsgType(o.Data[0]).String()]++
				}
			}
			continue
		}
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok {
			continue
		}
		text := tcp.Payload
		switch {
		case tcp.DstPort == 80 && bytes.HasPrefix(text, []byte("GET "+boot.ScriptPath)):
			seen["script asked for"]++
		case tcp.SrcPort == 80 && bytes.HasPrefix(text, []byte("HTTP/1.1 200 OK\r\n")):
			seen["answer over HTTP"]++
		case tcp.DstPort == 3260 && len(text) >= 48 && text[0]&0x3f == 0x03:
			seen["login request"]++
		case tcp.DstPort == 3260 && len(text) >= 48 && text[0]&0x3f == 0x01 && text[32] == 0x28:
			seen["READ(10)"]++
		case tcp.DstPort == 3260 && len(text) >= 48 && text[0]&0x3f == 0x01 && text[32] == 0x88:
			seen["READ(16)"]++
		}
		for _, key := range []string{"InitiatorName=iqn.", "CHAP_R=xxxx", "CHAP_C=", "CHAP_N="} {
			if strings.Contains(string(text), key) {
				seen[key]++
			}
		}
	}
	return seen
}
