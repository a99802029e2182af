package tftp

import (
	"strings"
	"testing"
)

func TestRequestsAreReadAsMachinesSendThem(t *testing.T) {
	for packet, want := range map[string]request{
		// iPXE, and UEFI when it asks for the size and when it fetches.
		"\x00\x01undionly.kpxe\x00octet\x00blksize\x001432\x00tsize\x000\x00":                               {name: "undionly.kpxe", blksize: 1432, size: true},
		"\x00\x01525400770007/snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00": {name: "525400770007/snponly.efi", blksize: 1468, size: true},
		"\x00\x01525400770007/snponly.efi\x00octet\x00blksize\x001468\x00windowsize\x004\x00":               {name: "525400770007/snponly.efi", blksize: 1468},
		// tftp-hpa, a ROM of the year 2000, and what RFC 2347 allows.
		"\x00\x01undionly.kpxe\x00netascii\x00":                           {name: "undionly.kpxe", text: true},
		"\x00\x01undionly.kpxe\x00OCTET\x00BlkSize\x001024\x00TSIZE\x000": {name: "undionly.kpxe", blksize: 1024, size: true},
		"\x00\x02x\x00octet\x00":                                          {name: "x", write: true},
		// What makes no sense is passed over.
		"\x00\x01x\x00octet\x00blksize\x007\x00":                        {name: "x"},
		"\x00\x01x\x00octet\x00blksize\x0065465\x00":                    {name: "x"},
		"\x00\x01x\x00octet\x00blksize\x00-1\x00":                       {name: "x"},
		"\x00\x01x\x00octet\x00blksize\x0099999999999999999999\x00":     {name: "x"},
		"\x00\x01x\x00octet\x00blksize\x00":                             {name: "x"},
		"\x00\x01x\x00octet\x00utimeout\x009\x00blksize\x00512\x00\x00": {name: "x", blksize: 512},
	} {
		if got, err := parseRequest([]byte(packet)); err != nil || got != want {
			t.Errorf("%q is %+v, %v", packet, got, err)
		}
	}
	for _, packet := range []string{"", "\x00", "\x00\x01", "\x00\x01x", "\x00\x01x\x00", "\x00\x01x\x00octet", "\x00\x03\x00\x01data", "\x00\x09x\x00octet\x00", "\x01\x01x\x00octet\x00",
		"\x00\x01" + strings.Repeat("a", maxName+1) + "\x00octet\x00"} {
		if got, err := parseRequest([]byte(packet)); err == nil {
			t.Errorf("%q is %+v", packet, got)
		}
	}
}

func TestTheLibraryIsGivenWhatIsGranted(t *testing.T) {
	r, err := parseRequest([]byte("\x00\x01a\nb\x00Octet\x00WINDOWSIZE\x004\x00BLKSIZE\x001468\x00TSIZE\x0012\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(r.packet(1024)); got != "\x00\x01a?b\x00octet\x00blksize\x001024\x00tsize\x000\x00" {
		t.Errorf("it is given %q", got)
	}
	if got := string(request{name: "x", text: true, blksize: 100}.packet(512)); got != "\x00\x01x\x00netascii\x00" {
		t.Errorf("it is given %q", got)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x00\x01525400770007/snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00"))
	f.Add([]byte("\x00\x02x\x00netascii"))
	f.Add([]byte("\x00\x02x\x00octet\x00"))
	f.Add([]byte("\x00\x01x\x00octet\x00blksize\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if len(r.name) > maxName || r.blksize != 0 && (r.blksize < minBlksize || r.blksize > maxBlksize) {
			t.Fatalf("%q is %+v", b, r)
		}
		granted := r.grant(1500, 0)
		if granted < defaultBlksize || granted > 1500-overhead {
			t.Fatalf("%+v is granted %d", r, granted)
		}
		if r.write {
			return // nothing is handed on
		}
		// The library's own buffer is that long, and what it is given says the same.
		p := r.packet(granted)
		again, err := parseRequest(p)
		if len(p) > 516 || err != nil || again.write || again.text != r.text || again.size != r.size || r.blksize >= defaultBlksize && again.blksize != granted {
			t.Fatalf("%q is handed on as %q: %+v, %v", b, p, again, err)
		}
	})
}
