package store_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lunboot/store"
)

// flip changes the case of some letters of s.
func flip(t *rapid.T, s string) string {
	mask := rapid.SliceOfN(rapid.Bool(), len(s), len(s)).Draw(t, "case")
	b := []byte(s)
	for i, up := range mask {
		if up {
			b[i] = strings.ToUpper(s[i : i+1])[0]
		}
	}
	return string(b)
}

func drawMAC(t *rapid.T) store.MAC {
	m := store.MAC(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
	m[0] &^= 1
	if m.IsZero() {
		m[5] = 1
	}
	return m
}

func TestMACReadsEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMAC(t)
		h := m.Hex12()
		colons := m.String()
		for _, s := range []string{
			colons, h, strings.ReplaceAll(colons, ":", "-"), h[0:4] + "." + h[4:8] + "." + h[8:12],
		} {
			s = flip(t, s)
			got, err := store.ParseMAC(s)
			if err != nil || got != m {
				t.Fatalf("%q: %v, %v; want %v", s, got, err, m)
			}
		}
		if copied, ok := store.MACFrom(m[:]); !ok || copied != m {
			t.Fatalf("copied: %v, %v", copied, ok)
		}
		roundTrip(t, m)
	})
}

// roundTrip sends v through JSON.
func roundTrip[T comparable](t *rapid.T, v T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got T
	if err := json.Unmarshal(b, &got); err != nil || got != v {
		t.Fatalf("through JSON %s: %v, %v; want %v", b, got, err, v)
	}
}

func TestMACRefusesWhatIsNone(t *testing.T) {
	for _, s := range []string{
		"", "0", "00:07:e9:0f:ea", "00:07:e9:0f:ea:f5:01", "00:07:e9:0f:ea:fg", "00:07-e9:0f:ea:f5", "00.07.e9.0f.ea.f5",
		"0007:e90f:eaf5", "0007.e90f-eaf5", "0007e90feaf", "0007e90feaf55", " 00:07:e9:0f:ea:f5", "00:07:e9:0f:ea:f5\n", "000:7:e9:0f:ea:f5",
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "ÿÿÿÿÿÿ",
	} {
		m, err := store.ParseMAC(s)
		if store.KindOf(err) != store.KindInvalid || !m.IsZero() {
			t.Errorf("%q: %v, %v", s, m, err)
		}
	}
	if _, ok := store.MACFrom([]byte{1, 2, 3}); ok {
		t.Error("three bytes are a MAC")
	}
	var zero store.MAC
	if b, err := json.Marshal(zero); err != nil || string(b) != `""` {
		t.Errorf("the zero MAC as JSON: %s, %v", b, err)
	}
	got := store.MAC{2}
	if err := json.Unmarshal([]byte(`""`), &got); err != nil || !got.IsZero() {
		t.Errorf("the empty text as MAC: %v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`"x"`), &got); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a bad MAC in JSON: %v", err)
	}
}

func TestUUIDReadsEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := store.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		bare := hex.EncodeToString(u[:])
		for _, s := range []string{u.String(), bare, "{" + u.String() + "}"} {
			s = flip(t, s)
			if got, err := store.ParseUUID(s); err != nil || got != u {
				t.Fatalf("%q: %v, %v; want %v", s, got, err, u)
			}
		}
		// The wire order is its own inverse.
		w, ok := store.UUIDFromWire(u[:])
		back, ok2 := store.UUIDFromWire(w[:])
		if !ok || !ok2 || back != u {
			t.Fatalf("to the wire and back: %v, want %v", back, u)
		}
		if !u.IsZero() {
			roundTrip(t, u)
		}
	})
}

func TestUUIDFromWireSwapsTheFirstThreeFields(t *testing.T) {
	// Option 97 of QEMU with -uuid 4c4c4544-0034-4810-8051-b4c04f564a32.
	wire, err := hex.DecodeString("44454c4c340010488051b4c04f564a32")
	if err != nil {
		t.Fatal(err)
	}
	u, ok := store.UUIDFromWire(wire)
	if !ok || u.String() != "4c4c4544-0034-4810-8051-b4c04f564a32" {
		t.Errorf("%v, %v", u, ok)
	}
	if _, ok := store.UUIDFromWire(wire[:15]); ok {
		t.Error("15 bytes are a UUID")
	}
}

func TestUUIDRefusesWhatIsNone(t *testing.T) {
	good := "4c4c4544-0034-4810-8051-b4c04f564a32"
	for _, s := range []string{"", "{}", good[:35], good + "0", "{" + good, good + "}", strings.Replace(good, "-", ":", 1), strings.Replace(good, "4c", "4g", 1), strings.Repeat("0", 34)} {
		if u, err := store.ParseUUID(s); store.KindOf(err) != store.KindInvalid || !u.IsZero() {
			t.Errorf("%q: %v, %v", s, u, err)
		}
	}
}

func TestPlaceholderUUIDsNameNobody(t *testing.T) {
	for s, want := range map[string]bool{
		"00000000-0000-0000-0000-000000000000": true,
		"ffffffff-ffff-ffff-ffff-ffffffffffff": true,
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": true,
		"03000200-0400-0500-0006-000700080009": true,
		"03000200-0400-0500-0006-00070008000a": false,
		"4c4c4544-0034-4810-8051-b4c04f564a32": false,
		"ffffffff-ffff-ffff-ffff-fffffffffffe": false,
	} {
		u, err := store.ParseUUID(s)
		if err != nil || u.IsPlaceholder() != want {
			t.Errorf("%s: %v, %v", s, u.IsPlaceholder(), err)
		}
	}
	a, b := store.NewUUID(), store.NewUUID()
	if a == b || a.IsPlaceholder() || a[6]>>4 != 4 || a[8]>>6 != 2 {
		t.Errorf("new UUIDs %v and %v", a, b)
	}
}

func TestIQNFoldsItsCase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s string
		switch rapid.SampledFrom([]string{"iqn", "eui", "naa16", "naa32"}).Draw(t, "form") {
		case "iqn":
			s = fmt.Sprintf("iqn.%04d-%02d.%s", rapid.IntRange(0, 9999).Draw(t, "year"), rapid.IntRange(1, 12).Draw(t, "month"),
				rapid.StringMatching(`[a-z0-9.-]{1,40}(:[a-z0-9.:é-]{0,100})?`).Draw(t, "name"))
		case "eui":
			s = "eui." + rapid.StringMatching(`[0-9a-f]{16}`).Draw(t, "id")
		case "naa16":
			s = "naa." + rapid.StringMatching(`[0-9a-f]{16}`).Draw(t, "id")
		case "naa32":
			s = "naa." + rapid.StringMatching(`[0-9a-f]{32}`).Draw(t, "id")
		}
		got, err := store.ParseIQN(strings.ToUpper(s))
		if err != nil || string(got) != s {
			t.Fatalf("%q: %q, %v", s, got, err)
		}
		again, err := store.ParseIQN(string(got))
		if err != nil || again != got {
			t.Fatalf("read twice: %q, %v", again, err)
		}
	})
}

func TestIQNRefusesWhatIsNone(t *testing.T) {
	for _, s := range []string{
		"", "iqn.", "iqn.2026-11", "iqn.2026-11.", "iqn.2026-13.lab", "iqn.2026-00.lab", "iqn.26-11.lab:x", "iqn.2026-11:lab", "iqn.2026-11.:x",
		"iqn.2026-11.lab:a b", "iqn.2026-11.lab:a_b", "iqn.2026-11.lab:a/b", "iqn.2026-11.lab:a\x00", "iqn.2026-11.lab:\xff", "iqn.2026-11.lab:a\u00a0b", "iqn.2026-11.lab:a\u2028",
		"iqn.2026-11.lab:" + strings.Repeat("a", 208), "eui.0123456789abcde", "eui.0123456789abcdeg", "naa.0123", "naa.0123456789abcdef0", "nqn.2014-08.org", "lab-01",
	} {
		if q, err := store.ParseIQN(s); store.KindOf(err) != store.KindInvalid || q != "" {
			t.Errorf("%q: %q, %v", s, q, err)
		}
	}
	longest := "iqn.2026-11.lab:" + strings.Repeat("a", 207)
	if _, err := store.ParseIQN(longest); err != nil || len(longest) != 223 {
		t.Errorf("%d bytes: %v", len(longest), err)
	}
}

func TestLUNInURI(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 2: "2", 9: "9", 10: "A", 255: "FF", 256: "4100", 300: "412C", 16383: "7FFF"} {
		l, err := store.NewLUN(n)
		if err != nil || l.URI() != want {
			t.Errorf("LUN %d: %q, %v; want %q", n, l.URI(), err, want)
		}
	}
}

func TestLUNRoundTrips(t *testing.T) {
	uris, wires := map[string]bool{}, map[[8]byte]bool{}
	for n := range int64(store.MaxLUN) + 1 {
		l, err := store.ParseLUN(fmt.Sprint(n))
		if err != nil || int64(l) != n {
			t.Fatalf("%d: %d, %v", n, l, err)
		}
		w := l.Wire()
		var back int64
		switch w[0] >> 6 { // SAM-5 §4.7.7: the address method
		case 0:
			if back = int64(w[1]); w[0] != 0 || n > 255 {
				t.Fatalf("%d: % x is not peripheral device addressing", n, w)
			}
		case 1:
			if back = int64(w[0]&0x3f)<<8 | int64(w[1]); n < 256 {
				t.Fatalf("%d: % x uses flat space addressing", n, w)
			}
		}
		if back != n || w[2] != 0 || w[7] != 0 {
			t.Fatalf("%d on the wire is % x", n, w)
		}
		uris[l.URI()], wires[w] = true, true
	}
	if len(uris) != 16384 || len(wires) != 16384 {
		t.Errorf("%d URIs and %d wire forms for 16384 LUNs", len(uris), len(wires))
	}
	for _, s := range []string{"", "-1", "16384", "65536", "4294967296", "0x2", "A", " 1", "1 ", "1.0", "+1", "99999999999999999999"} {
		if l, err := store.ParseLUN(s); store.KindOf(err) != store.KindInvalid || l != 0 {
			t.Errorf("%q: %d, %v", s, l, err)
		}
	}
	for _, n := range []int64{-1, 16384, 1 << 40} {
		if _, err := store.NewLUN(n); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// fuzzID checks what every reader of an identifier promises: what it accepts
// prints as something that it reads as the same again, and it never panics.
func fuzzID[T comparable](f *testing.F, parse func(string) (T, error), print func(T) string, seeds ...string) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parse(s)
		if err != nil {
			if store.KindOf(err) != store.KindInvalid {
				t.Fatalf("%q: kind %s", s, store.KindOf(err))
			}
			return
		}
		again, err := parse(print(v))
		if err != nil || again != v {
			t.Fatalf("%q prints as %q, which reads as %v, %v", s, print(v), again, err)
		}
	})
}

func FuzzParseMAC(f *testing.F) {
	fuzzID(f, store.ParseMAC, store.MAC.String, "00:07:e9:0f:ea:f5", "00-07-E9-0F-EA-F5", "0007.e90f.eaf5", "0007e90feaf5")
}

func FuzzParseUUID(f *testing.F) {
	fuzzID(f, store.ParseUUID, store.UUID.String, "4c4c4544-0034-4810-8051-b4c04f564a32", "{4C4C4544003448108051B4C04F564A32}")
}

func FuzzParseIQN(f *testing.F) {
	fuzzID(f, store.ParseIQN, func(q store.IQN) string { return string(q) }, "iqn.2026-11.lab:x", "IQN.2026-11.LAB", "eui.0123456789ABCDEF", "naa.0123456789abcdef", "iqn.2026-11.lab:İK")
}
