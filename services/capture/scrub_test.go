package capture

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const secret = "9bQ7rT2kX5mW8zLp"

func login(target bool, flags byte, pairs ...string) []byte {
	op := byte(opLoginRequest | immediateBit)
	if target {
		op = opLoginResponse
	}
	return pdu(op, flags, []byte(strings.Join(pairs, "\x00")+"\x00"))
}

func TestALoginIsKeptWithoutItsSecrets(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 3260)
	k.send(false, login(false, 0, "InitiatorName=iqn.2026-11.lunboot:lab-12", "AuthMethod=CHAP,None"))
	k.send(true, login(true, 0, "CHAP_A=5", "CHAP_I=7", "CHAP_C=0x"+secret))
	k.send(false, login(false, 0x87, "CHAP_N=lab-12", "CHAP_R=0x"+secret, "X-lunboot="+secret))
	k.send(false, pdu(0x01, 0x81, nil))
	k.send(true, append(pdu(0x25, 0x01, bytes.Repeat([]byte(secret), 32)), pdu(0x21, 0x80, []byte("\x00\x12\x70\x00\x05 sense data"))...))
	all := w.text()
	assert.NotContains(t, all, secret)
	assert.NotContains(t, all, secret[1:])
	for _, want := range []string{"InitiatorName=iqn.2026-11.lunboot:lab-12\x00", "AuthMethod=CHAP,None\x00", "CHAP_I=7\x00CHAP_C=xxxxxxxxxxxxxxxxxx\x00", "CHAP_N=lab-12\x00CHAP_R=xx", " sense data"} {
		assert.Contains(t, all, want)
	}
	frames := w.kept()
	require.Len(t, frames, 7)
	assert.Equal(t, byte(0x01), frames[5][54], "the command's opcode")
	assert.Equal(t, byte(0x25), frames[6][54], "the data's header")
}

func TestASecretIsCutHoweverItIsSplit(t *testing.T) {
	stream := append(pdu(opLoginRequest|immediateBit, continueBit, []byte("CHAP_N=lab-12\x00CHAP_R="+secret[:5])),
		pdu(opLoginRequest|immediateBit, 0x87, []byte(secret[5:]+"\x00TargetName=iqn.x:y\x00"))...)
	for size := 1; size < len(stream); size++ {
		w := newWire(t)
		k := w.dial(1000, 3260)
		for at := 0; at < len(stream); at += size {
			k.send(false, stream[at:min(at+size, len(stream))])
		}
		var got []byte
		for _, f := range w.kept()[2:] {
			got = append(got, f[54:]...)
		}
		text := string(got)
		for i := 0; i+4 <= len(secret); i++ {
			require.NotContains(t, text, secret[i:i+4], "in pieces of %d", size)
		}
		require.Contains(t, text, "TargetName=iqn.x:y", "in pieces of %d", size)
		require.Contains(t, text, "CHAP_N=lab-12\x00CHAP_R=xxxxx", "in pieces of %d", size)
	}
}

func TestDigestsDoNotLoseTheWay(t *testing.T) {
	for _, c := range []struct{ header, data string }{{"None", "None"}, {"CRC32C", "None"}, {"None", "CRC32C"}, {"CRC32C", "CRC32C"}} {
		w := newWire(t)
		k := w.dial(1000, 3260)
		k.send(false, login(false, 0x87, "HeaderDigest=CRC32C,None", "DataDigest=CRC32C,None"))
		k.send(true, login(true, 0x87, "HeaderDigest="+c.header, "DataDigest="+c.data))
		framed := func(op byte, data string) []byte {
			b := pdu(op, 0x80, []byte(data))
			var out []byte
			out = append(out, b[:bhsLen]...)
			if c.header == "CRC32C" {
				out = append(out, "\x03hd\x03"...)
			}
			out = append(out, b[bhsLen:]...)
			if c.data == "CRC32C" && data != "" {
				out = append(out, "\x01dd\x01"...)
			}
			return out
		}
		k.send(false, append(framed(0x05, secret), framed(0x01, "")...))
		k.send(false, framed(0x04, "SendTargets=All\x00"))
		assert.Contains(t, w.text(), "SendTargets=All", "%+v", c)
		assert.NotContains(t, w.text(), secret, "%+v", c)
	}
}

func TestAConnectionThatIsOutOfOrderIsFollowedWithoutGuessing(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 3260)
	first, second, third := login(false, 0, "InitiatorName=iqn.a:b"), login(false, 0, "CHAP_R="+secret), login(false, 0x87, "TargetName=iqn.c:d")
	at := k.seq[0]
	k.take(k.segment(false, 1000, 3260, at+uint32(len(first)), second, "")) // too early
	k.take(k.segment(false, 1000, 3260, at, first, ""))
	k.take(k.segment(false, 1000, 3260, at, append(append([]byte(nil), first...), second...), "")) // again
	k.take(k.segment(false, 1000, 3260, at+uint32(len(first)+len(second)), third, ""))
	assert.NotContains(t, w.text(), secret)
	assert.Contains(t, w.text(), "InitiatorName=iqn.a:b")
	assert.Contains(t, w.text(), "TargetName=iqn.c:d")

	// A connection whose beginning was not seen has no text at all.
	w = newWire(t)
	w.take(w.segment(false, 1000, 3260, 5, login(false, 0, "InitiatorName=iqn.a:b"), ""))
	assert.NotContains(t, w.text(), "Initiator")
	assert.Len(t, w.kept(), 1)
}

func TestAConnectionThatLostTooMuchStaysLost(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 3260)
	hole := login(false, 0, "InitiatorName=iqn.a:b")
	at := k.seq[0] + uint32(len(hole))
	for range maxHeldSegments + 1 { // more than is held back until the hole is filled
		b := pdu(0, 0x80, nil)
		k.take(k.segment(false, 1000, 3260, at, b, ""))
		at += uint32(len(b))
	}
	k.send(false, hole)
	k.take(k.segment(false, 1000, 3260, at, login(false, 0, "TargetName=iqn.c:d"), ""))
	assert.NotContains(t, w.text(), "iqn.")
	assert.Len(t, w.kept(), 2+maxHeldSegments+3, "the packets themselves are there")
}

// Thousands of connections that all leave a hole do not add up.
func TestWhatIsHeldBackIsBoundedOverAllConnections(t *testing.T) {
	w := newWire(t)
	early := make([]byte, 60000)
	var all []*talk
	for i := range 2 * maxHeldInAll / len(early) {
		k := w.dial(uint16(1000+i), 3260)
		all = append(all, k)
		k.take(k.segment(false, k.its, 3260, k.seq[0]+1, early, ""))
		sum := 0
		for _, c := range w.rec.conns {
			for _, d := range c.halves {
				sum += d.bytes
			}
		}
		require.Equal(t, sum, w.rec.held.bytes)
		require.LessOrEqual(t, sum, maxHeldInAll)
	}
	assert.Greater(t, w.rec.held.bytes, maxHeldInAll-len(early))
	for _, k := range all {
		k.take(k.segment(false, k.its, 3260, k.seq[0], nil, "R"))
	}
	assert.Zero(t, w.rec.held.bytes, "what has ended holds nothing")
	k := w.dial(999, 3260)
	first, second := login(false, 0, "InitiatorName=iqn.a:b"), login(false, 0x87, "TargetName=iqn.c:d")
	k.take(k.segment(false, 999, 3260, k.seq[0]+uint32(len(first)), second, ""))
	k.send(false, first)
	assert.Zero(t, w.rec.held.bytes)
}

func TestWhatDoesNotBeginWithALoginIsNoISCSI(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 3260)
	k.send(false, append([]byte{0x01, 0x80}, []byte(secret+secret+secret+secret)...))
	assert.NotContains(t, w.text(), secret[:4])
}

func TestHTTPIsKeptWithoutBodiesAndKeys(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 80)
	k.send(false, []byte("GET /boot.ipxe?mac=52:54:00:12:34:56&uuid=u1 HTTP/1.1\r\nHost: 192.168.40.1\r\nUser-Agent: iPXE/1.21\r\nAuthorization: Basic "+secret+"\r\nCookie: "+secret+"\r\n\r\n"))
	k.send(true, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 31\r\nX-Other: "+secret+"\r\n\r\nset password "+secret+"\n\n"))
	k.send(false, []byte("GET /report?attempt=7&key="+secret+"&step=login&k%65y="+secret+"&"+secret+" HTTP/1.1\r\nHost: a\r\n\r\n"))
	k.send(true, []byte("HTTP/1.1 204 No Content\r\n\r\n"))
	k.send(false, []byte("POST /report HTTP/1.1\r\nContent-Length: 20\r\n\r\nkey="+secret))
	k.send(true, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n"+secret+"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"))
	k.send(false, []byte("HEAD /files/a HTTP/1.1\r\n\r\n"))
	k = w.dial(1001, 80)
	k.send(false, []byte("GET /files/answer/lab-03/deb/17-"+secret+"/preseed.cfg HTTP/1.1\r\n\r\n"))
	k.send(false, []byte("GET /files//answer/lab-03/deb/17-"+secret+"/user-data HTTP/1.1\r\n\r\n"))
	k.send(false, []byte("GET /files/%61nswer/lab-03/deb/17-"+secret+"/meta-data HTTP/1.1\r\n\r\n"))
	k.send(false, []byte("GET /files/disc.iso/answer/17-x HTTP/1.1\r\n\r\n"))
	all := w.text()
	for i := 0; i+6 <= len(secret); i++ {
		assert.NotContains(t, all, secret[i:i+6])
	}
	for _, want := range []string{
		"GET /boot.ipxe?mac=52:54:00:12:34:56&uuid=u1 HTTP/1.1\r\n", "User-Agent: iPXE/1.21\r\nAuthorization: xxxxx xxxx", "HTTP/1.1 200 OK\r\nContent-Type: text/plain",
		"/report?attempt=7&key=xxxxxxxxxxxxxxxx&step=login&kxxxx=", "HTTP/1.1 204 No Content\r\n", "POST /report HTTP/1.1\r\nContent-Length: 20\r\n", "HEAD /files/a HTTP/1.1",
		"GET /files/answer/lab-03/deb/17xxxxxxxxxxxxxxxxx/preseed.cfg HTTP/1.1\r\n", "/deb/17xxxxxxxxxxxxxxxxx/user-data HTTP/1.1\r\n", "GET /files/disc.iso/answer/17-x HTTP/1.1\r\n",
	} {
		assert.Contains(t, all, want)
	}
}

func TestPasswordsInDHCPAreCut(t *testing.T) {
	b := make([]byte, bootpLen)
	b[0], b[atHType], b[atHLen] = 2, 1, 6
	copy(b[atCHAddr:], itsMAC[:])
	copy(b[atFile:], "http://me:"+secret+"@host/boot.ipxe")
	b = append(b, 0x63, 0x82, 0x53, 0x63, 53, 1, 5, 12, 6)
	b = append(b, "lab-12"...)
	for _, code := range []byte{optAuth, optUsername, optPassword, optReverse, optReversePW} {
		b = append(append(b, code, 16), secret...)
	}
	inner := append([]byte{optPassword, 16}, secret...)
	b = append(append(b, optIPXE, byte(len(inner))), inner...)
	b = append(append(b, optIPXE, 16), secret...)
	b = append(append(b, optEnd), secret...)
	for cut := range 20 { // the last option may be broken
		w := newWire(t)
		w.take(w.udp(true, 68, 67, b[:len(b)-cut]))
		all := w.text()
		require.NotContains(t, all, secret[:8])
		require.Contains(t, all, "lab-12")
		require.Contains(t, all, "@host/boot.ipxe")
		require.Len(t, w.kept(), 1)
	}
}

// Whatever machine and appliance say, in whatever pieces and order, what is no
// header and stands under no name that may be kept is not kept.
func TestNoSecretSurvives(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWire(t)
		k := w.dial(1000, rapid.SampledFrom([]uint16{80, 3260}).Draw(r, "port"))
		var streams [2][]byte
		for range rapid.IntRange(1, 6).Draw(r, "messages") {
			way := rapid.IntRange(0, 1).Draw(r, "way")
			streams[way] = append(streams[way], message(r, k.our == 80, way == 1)...)
		}
		seq := k.seq
		type piece struct {
			way, at, end int
		}
		var pieces []piece
		for way, s := range streams {
			for at := 0; at < len(s); {
				end := min(len(s), at+rapid.IntRange(1, 70).Draw(r, "size"))
				pieces = append(pieces, piece{way, at, end})
				at = end
			}
		}
		if rapid.Bool().Draw(r, "shuffled") {
			pieces = rapid.Permutation(pieces).Draw(r, "order")
		}
		for _, p := range pieces {
			if rapid.IntRange(0, 30).Draw(r, "fate") == 0 {
				continue // never seen
			}
			k.take(k.segment(p.way == 1, k.its, k.our, seq[p.way]+uint32(p.at), streams[p.way][p.at:p.end], ""))
		}
		all := w.text()
		for i := 0; i+8 <= len(secret); i++ {
			if strings.Contains(all, secret[i:i+8]) {
				r.Fatalf("%q of the secret is kept in %q", secret[i:i+8], all)
			}
		}
	})
}

// message is one PDU or HTTP message with a secret somewhere.
func message(r *rapid.T, http, out bool) []byte {
	noise := rapid.StringMatching(`[a-zA-Z=&;: ]{0,12}`).Draw(r, "noise")
	if http {
		s := map[bool]string{
			false: fmt.Sprintf("GET /boot.ipxe?mac=a&%skey=%s HTTP/1.1\r\nHost: b\r\nX%s: %s\r\n\r\n", strings.ReplaceAll(noise, " ", ""), secret, strings.NewReplacer(":", "", " ", "").Replace(noise), secret),
			true:  fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(noise+secret), noise, secret),
		}
		return []byte(s[out])
	}
	switch rapid.IntRange(0, 3).Draw(r, "kind") {
	case 0:
		return login(out, 0, "CHAP_N=me", "CHAP_R="+secret, "CHAP_C="+secret, "TargetName=t")
	case 1:
		return login(out, 0x40, noise+secret, secret+"="+noise)
	case 2:
		op := byte(0x05)
		if out {
			op = 0x25
		}
		return pdu(op, 0x80, []byte(noise+secret+"CHAP_N="+secret))
	}
	op := byte(opTextRequest)
	if out {
		op = opTextResponse
	}
	return pdu(op, 0x80, []byte("SendTargets=All\x00"+noise+"_"+secret+"\x00"))
}
