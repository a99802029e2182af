package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lunboot/store"
)

// fields returns the fields that an error is about.
func fields(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []string
		for _, e := range joined.Unwrap() {
			out = append(out, fields(e)...)
		}
		return out
	}
	var e *store.Error
	if errors.As(err, &e) {
		return []string{e.Field}
	}
	return nil
}

func goodMachine() store.Machine {
	return store.Machine{Name: "lab-01", MACs: []store.MAC{{0, 7, 0xe9, 0xf, 0xea, 0xf5}}, Initiator: "iqn.2026-11.lab:lab-01", Auth: store.AuthMutual, Profile: "san",
		CHAP: store.Credential{User: "lab-01", Secret: "0123456789ab"}, Reverse: store.Credential{User: "appliance", Secret: "ba9876543210"}}
}

func TestMachineRules(t *testing.T) {
	for name, c := range map[string]struct {
		field  string // empty: accepted
		change func(*store.Machine)
	}{
		"as it is":         {"", func(*store.Machine) {}},
		"63 characters":    {"", func(m *store.Machine) { m.Name = strings.Repeat("a", 63) }},
		"64 characters":    {"name", func(m *store.Machine) { m.Name = strings.Repeat("a", 64) }},
		"no name":          {"name", func(m *store.Machine) { m.Name = "" }},
		"capitals":         {"name", func(m *store.Machine) { m.Name = "Lab" }},
		"a dot":            {"name", func(m *store.Machine) { m.Name = "lab.example" }},
		"a hyphen first":   {"name", func(m *store.Machine) { m.Name = "-lab" }},
		"a hyphen last":    {"name", func(m *store.Machine) { m.Name = "lab-" }},
		"a hyphen alone":   {"name", func(m *store.Machine) { m.Name = "-" }},
		"an umlaut":        {"name", func(m *store.Machine) { m.Name = "büro" }},
		"no MAC":           {"mac", func(m *store.Machine) { m.MACs = nil }},
		"an empty MAC":     {"mac", func(m *store.Machine) { m.MACs = append(m.MACs, store.MAC{}) }},
		"one MAC twice":    {"mac", func(m *store.Machine) { m.MACs = append(m.MACs, m.MACs[0]) }},
		"a bad initiator":  {"initiator", func(m *store.Machine) { m.Initiator = "lab" }},
		"no way to log in": {"auth", func(m *store.Machine) { m.Auth = "" }},
		"no secrets needed": {"", func(m *store.Machine) {
			m.Auth, m.CHAP, m.Reverse = store.AuthNone, store.Credential{}, store.Credential{}
		}},
		"one way":                  {"", func(m *store.Machine) { m.Auth, m.Reverse = store.AuthCHAP, store.Credential{} }},
		"mutual without reverse":   {"reverse_user", func(m *store.Machine) { m.Reverse = store.Credential{} }},
		"no CHAP user":             {"chap_user", func(m *store.Machine) { m.CHAP.User = "" }},
		"an odd CHAP user":         {"chap_user", func(m *store.Machine) { m.CHAP.User = "a b" }},
		"11 bytes":                 {"chap_secret", func(m *store.Machine) { m.CHAP.Secret = "0123456789a" }},
		"64 bytes":                 {"", func(m *store.Machine) { m.CHAP.Secret = strings.Repeat("x", 64) }},
		"65 bytes":                 {"chap_secret", func(m *store.Machine) { m.CHAP.Secret = strings.Repeat("x", 65) }},
		"a secret that begins -":   {"chap_secret", func(m *store.Machine) { m.CHAP.Secret = "-123456789ab" }},
		"a user that begins -":     {"chap_user", func(m *store.Machine) { m.CHAP.User = "-lab-01" }},
		"a secret with a $":        {"chap_secret", func(m *store.Machine) { m.CHAP.Secret = "0123456789$b" }},
		"one secret for both":      {"reverse_secret", func(m *store.Machine) { m.Reverse.Secret = m.CHAP.Secret }},
		"no profile":               {"profile", func(m *store.Machine) { m.Profile = "" }},
		"a reserved address":       {"", func(m *store.Machine) { m.Address = netip.MustParseAddr("192.168.40.7") }},
		"an IPv6 address":          {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("2001:db8::7") }},
		"the loopback":             {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("127.0.0.1") }},
		"a multicast address":      {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("224.0.0.1") }},
		"no address at all":        {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("0.0.0.0") }},
		"everybody's address":      {"address", func(m *store.Machine) { m.Address = netip.MustParseAddr("255.255.255.255") }},
		"AMI's default UUID":       {"uuid", func(m *store.Machine) { m.UUID = store.UUID{3, 0, 2, 0, 4, 0, 5, 0, 0, 6, 0, 7, 0, 8, 0, 9} }},
		"quirks":                   {"", func(m *store.Machine) { m.Quirks = []store.Quirk{store.QuirkNoProxyOffer, store.QuirkNoOption43} }},
		"an invented quirk":        {"quirks", func(m *store.Machine) { m.Quirks = []store.Quirk{"no-lunch"} }},
		"one quirk twice":          {"quirks", func(m *store.Machine) { m.Quirks = []store.Quirk{store.QuirkOption43, store.QuirkOption43} }},
		"a quirk and its opposite": {"quirks", func(m *store.Machine) { m.Quirks = []store.Quirk{store.QuirkOption43, store.QuirkNoOption43} }},
		"notes in lines":           {"", func(m *store.Machine) { m.Notes = "one\r\n\ttwo" }},
		"an escape in the notes":   {"notes", func(m *store.Machine) { m.Notes = "\x1b[31m" }},
		"notes that are no text":   {"notes", func(m *store.Machine) { m.Notes = "\xff" }},
		"notes without end":        {"notes", func(m *store.Machine) { m.Notes = strings.Repeat("x", 4097) }},
		"a long serial number":     {"serial", func(m *store.Machine) { m.Serial = strings.Repeat("x", 129) }},
		"a long asset tag":         {"asset_tag", func(m *store.Machine) { m.AssetTag = strings.Repeat("x", 129) }},
		"tags":                     {"", func(m *store.Machine) { m.Tags = []string{"rack 1", "büro"} }},
		"an empty tag":             {"tags", func(m *store.Machine) { m.Tags = []string{""} }},
		"a comma in a tag":         {"tags", func(m *store.Machine) { m.Tags = []string{"a,b"} }},
		"a long tag":               {"tags", func(m *store.Machine) { m.Tags = []string{strings.Repeat("x", 65)} }},
		"more tags than a screen":  {"tags", func(m *store.Machine) { m.Tags = make([]string, 33) }},
	} {
		m := goodMachine()
		c.change(&m)
		check(t, name, m.Validate(), c.field)
	}
}

// check fails the test unless err is about this field alone, or nil when field
// is empty.
func check(t *testing.T, name string, err error, field string) {
	t.Helper()
	if field == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	if got := fields(err); len(got) != 1 || got[0] != field || store.KindOf(err) != store.KindInvalid {
		t.Errorf("%s: about %q, want %q: %v", name, got, field, err)
	}
}

func TestMachineRulesNameEveryFault(t *testing.T) {
	m := store.Machine{Auth: store.AuthMutual}
	got := strings.Join(fields(m.Validate()), " ")
	for _, want := range []string{"name", "mac", "initiator", "chap_user", "reverse_user", "profile"} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing about %s: %s", want, got)
		}
	}
}

func TestVolumeRules(t *testing.T) {
	for name, c := range map[string]struct {
		field  string
		change func(*store.Volume)
	}{
		"as it is":        {"", func(*store.Volume) {}},
		"one block":       {"", func(v *store.Volume) { v.Size = 512 }},
		"the largest":     {"", func(v *store.Volume) { v.Size = store.MaxVolumeSize }},
		"too large":       {"size", func(v *store.Volume) { v.Size = store.MaxVolumeSize + 512 }},
		"empty":           {"size", func(v *store.Volume) { v.Size = 0 }},
		"negative":        {"size", func(v *store.Volume) { v.Size = -512 }},
		"half a block":    {"size", func(v *store.Volume) { v.Size = 4096 + 512; v.BlockSize = 4096 }},
		"an odd block":    {"block_size", func(v *store.Volume) { v.BlockSize = 1024 }},
		"no block":        {"block_size", func(v *store.Volume) { v.BlockSize = 0 }},
		"a dotted name":   {"", func(v *store.Volume) { v.Name = "debian-12.5" }},
		"a path":          {"name", func(v *store.Volume) { v.Name = "a/b" }},
		"dots":            {"name", func(v *store.Volume) { v.Name = ".." }},
		"no kind":         {"kind", func(v *store.Volume) { v.Kind = "" }},
		"-1 per cent":     {"progress", func(v *store.Volume) { v.Progress = -1 }},
		"101 per cent":    {"progress", func(v *store.Volume) { v.Progress = 101 }},
		"a block device":  {"", func(v *store.Volume) { v.Kind = store.VolumeDevice }},
		"a clone of 4 Ki": {"", func(v *store.Volume) { v.Kind, v.BlockSize = store.VolumeClone, 4096 }},
	} {
		v := store.Volume{Name: "vol", Kind: store.VolumeRaw, Size: 8 << 30, BlockSize: 512}
		c.change(&v)
		check(t, name, v.Validate(), c.field)
	}
	if v := (store.Volume{Size: 8 << 30, BlockSize: 4096}); v.Blocks() != 2<<20 {
		t.Errorf("%d blocks", v.Blocks())
	}
	if v := (store.Volume{Size: 8 << 30}); v.Blocks() != 0 {
		t.Errorf("%d blocks of no size", v.Blocks())
	}
	check(t, "LUN 16383", (&store.Mapping{LUN: 16383}).Validate(), "")
	check(t, "LUN 16384", (&store.Mapping{LUN: 16384}).Validate(), "lun")
}

func TestSubnetRules(t *testing.T) {
	addr := netip.MustParseAddr
	for name, c := range map[string]struct {
		field  string
		change func(*store.Subnet)
	}{
		"as it is":               {"", func(*store.Subnet) {}},
		"no range":               {"", func(s *store.Subnet) { s.Range = store.Range{} }},
		"half a range":           {"range", func(s *store.Subnet) { s.Range.To = netip.Addr{} }},
		"a range outside":        {"range", func(s *store.Subnet) { s.Range.From = addr("192.168.39.1") }},
		"a range backwards":      {"range", func(s *store.Subnet) { s.Range.From, s.Range.To = s.Range.To, s.Range.From }},
		"no router":              {"", func(s *store.Subnet) { s.Router = netip.Addr{} }},
		"a router elsewhere":     {"router", func(s *store.Subnet) { s.Router = addr("192.168.41.1") }},
		"a name server anywhere": {"", func(s *store.Subnet) { s.DNS = []netip.Addr{addr("9.9.9.9")} }},
		"an IPv6 name server":    {"dns", func(s *store.Subnet) { s.DNS = []netip.Addr{addr("2620:fe::fe")} }},
		"no network":             {"prefix", func(s *store.Subnet) { s.Prefix = netip.Prefix{} }},
		"an IPv6 network":        {"prefix", func(s *store.Subnet) { s.Prefix = netip.MustParsePrefix("2001:db8::/64") }},
		"no mode":                {"mode", func(s *store.Subnet) { s.Mode = "" }},
		"a negative lease":       {"lease_time", func(s *store.Subnet) { s.LeaseTime = -1 }},
		"two years":              {"lease_time", func(s *store.Subnet) { s.LeaseTime = 2 * 365 * 24 * time.Hour }},
		"ten seconds":            {"lease_time", func(s *store.Subnet) { s.LeaseTime = 10 * time.Second }},
		"no time of its own":     {"", func(s *store.Subnet) { s.LeaseTime = 0 }},
		"millions of addresses": {"range", func(s *store.Subnet) {
			s.Prefix, s.Router = netip.MustParsePrefix("10.0.0.0/8"), netip.Addr{}
			s.Range = store.Range{From: addr("10.0.0.1"), To: addr("10.9.0.1")}
		}},
		"nine name servers":        {"dns", func(s *store.Subnet) { s.DNS = slices.Repeat([]netip.Addr{addr("9.9.9.9")}, 9) }},
		"a time server":            {"", func(s *store.Subnet) { s.NTP = []netip.Addr{addr("10.1.1.1")} }},
		"an IPv6 time server":      {"ntp", func(s *store.Subnet) { s.NTP = []netip.Addr{addr("2620:fe::fe")} }},
		"a search list":            {"", func(s *store.Subnet) { s.Domain, s.Search = "lab.example", []string{"lab.example", "_x.example"} }},
		"a search for nothing":     {"search", func(s *store.Subnet) { s.Search = []string{"lab.example", "-x.example"} }},
		"a search without end":     {"search", func(s *store.Subnet) { s.Search = slices.Repeat([]string{"a.example"}, 9) }},
		"a long label":             {"domain", func(s *store.Subnet) { s.Domain = strings.Repeat("a", 64) + ".example" }},
		"a domain with an end":     {"domain", func(s *store.Subnet) { s.Domain = "lab.example." }},
		"another next server":      {"", func(s *store.Subnet) { s.NextServer = addr("10.1.1.1") }},
		"everybody as next server": {"next_server", func(s *store.Subnet) { s.NextServer = addr("224.0.0.1") }},
		"an odd domain":            {"domain", func(s *store.Subnet) { s.Domain = "a\x00b" }},
	} {
		s := store.Subnet{Interface: "eth0", Prefix: netip.MustParsePrefix("192.168.40.0/24"), Mode: store.DHCPFull,
			Range: store.Range{From: addr("192.168.40.100"), To: addr("192.168.40.199")}, Router: addr("192.168.40.1"), LeaseTime: time.Hour}
		c.change(&s)
		check(t, name, s.Validate(), c.field)
	}
}

func TestRangeOfAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "addresses")
		lo, hi := netip.AddrFrom4([4]byte(b[:4])), netip.AddrFrom4([4]byte(b[4:]))
		if hi.Less(lo) {
			if _, err := store.ParseRange(lo.String() + "-" + hi.String()); err == nil {
				t.Fatalf("%v-%v was accepted", lo, hi)
			}
			lo, hi = hi, lo
		}
		r, err := store.ParseRange(lo.String() + "-" + hi.String())
		if err != nil || r.From != lo || r.To != hi || !r.Contains(lo) || !r.Contains(hi) {
			t.Fatalf("%v-%v: %v, %v", lo, hi, r, err)
		}
		if r.Contains(hi.Next()) || r.Contains(lo.Prev()) {
			t.Fatalf("%v holds its neighbours", r)
		}
		roundTrip(t, r)
	})
	for _, s := range []string{"", "-", "10.0.0.1", "10.0.0.1-", "-10.0.0.1", "10.0.0.1-10.0.0.300", "2001:db8::1-2001:db8::2", "10.0.0.1 - 10.0.0.2"} {
		if _, err := store.ParseRange(s); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", s, err)
		}
	}
	if (store.Range{}).Contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("no range holds an address")
	}
}

func TestProfileAndTokenRules(t *testing.T) {
	check(t, "a plain profile", (&store.Profile{Name: "p", Kind: store.ProfileSAN}).Validate(), "")
	check(t, "no kind", (&store.Profile{Name: "p"}).Validate(), "kind")
	check(t, "no name", (&store.Profile{Kind: store.ProfileSAN}).Validate(), "name")
	check(t, "no text", (&store.Profile{Name: "p", Kind: store.ProfileCustom}).Validate(), "text")
	check(t, "a text without end", (&store.Profile{Name: "p", Kind: store.ProfileCustom, Text: strings.Repeat("x", 65537)}).Validate(), "text")
	check(t, "a token", (&store.Token{Name: "ci runner", Hash: "h", Scope: "read"}).Validate(), "")
	check(t, "a token for nobody", (&store.Token{Hash: "h", Scope: "read"}).Validate(), "name")
	check(t, "a token for all", (&store.Token{Name: "x", Hash: "h", Scope: "all"}).Validate(), "scope")
}

func TestBytesReadAndPrint(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "512": 512, "512B": 512, "8G": 8 << 30, "8g": 8 << 30, "8 GiB": 8 << 30, "8GB": 8 << 30, " 8 gib ": 8 << 30, "1K": 1024, "3M": 3 << 20, "64T": 64 << 40,
		"4194304T": 1 << 62, "4611686018427387904": 1 << 62,
	} {
		if got, err := store.ParseBytes(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "G", "B", "-1", "+1", "1.5G", "8GG", "8 G B", "8I", "8iB", "8X", "0x10", "8G8", "4194305T", "4611686018427387905", "9999999999999999999999", "8\u00a0G\x00", "٣"} {
		if got, err := store.ParseBytes(s); store.KindOf(err) != store.KindInvalid || got != 0 {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 20: "1 MiB", 1<<20 - 1: "1 MiB", 8 << 30: "8 GiB", 64 << 40: "64 TiB", 1<<63 - 1: "8 EiB"} {
		if got := store.Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		// What prints without a fraction reads as the same size.
		n := rapid.Int64Range(0, 1023).Draw(t, "n") << (10 * rapid.IntRange(0, 4).Draw(t, "unit"))
		if got, err := store.ParseBytes(store.Bytes(n)); err != nil || got != n {
			t.Fatalf("%d prints as %q and reads as %d, %v", n, store.Bytes(n), got, err)
		}
		if got, err := store.ParseBytes(fmt.Sprint(n)); err != nil || got != n {
			t.Fatalf("%d reads as %d, %v", n, got, err)
		}
	})
}

func TestSecretsAreMadeForScriptsAndHiddenFromLogs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := store.NewSecret()
		if len(s) != 16 || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") != "" || seen[s] {
			t.Fatalf("secret %q", s)
		}
		seen[s] = true
	}
	m := goodMachine()
	for _, text := range []string{fmt.Sprintf("%v", m), fmt.Sprintf("%+v", m), fmt.Sprint(m.CHAP)} {
		if strings.Contains(text, m.CHAP.Secret) || strings.Contains(text, m.Reverse.Secret) {
			t.Errorf("printed: %s", text)
		}
	}
	b, err := json.Marshal(store.Attempt{Key: "the-key"})
	if err != nil || strings.Contains(string(b), "the-key") {
		t.Errorf("an attempt's key in JSON: %s, %v", b, err)
	}
	if b, err = json.Marshal(store.Token{Hash: "the-hash"}); err != nil || strings.Contains(string(b), "the-hash") {
		t.Errorf("a token's hash in JSON: %s, %v", b, err)
	}
}

func TestErrorsSayWhatWhichAndWhy(t *testing.T) {
	cause := errors.New("the cause")
	for want, e := range map[string]*store.Error{
		"map volume lab-01: it is in use: the cause": {Kind: store.KindInUse, Op: "map volume", Subject: "lab-01", Msg: "it is in use", Err: cause},
		"map volume: the cause":                      {Op: "map volume", Err: cause},
		"corrupt":                                    {Kind: store.KindCorrupt},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
	err := fmt.Errorf("at the edge: %w", store.NotFound("machine", "lab-01"))
	if !store.IsNotFound(err) || store.KindOf(nil) != store.KindUnknown || store.KindOf(cause) != store.KindInternal || store.IsNotFound(nil) {
		t.Errorf("kinds: %v, %v, %v", store.KindOf(err), store.KindOf(nil), store.KindOf(cause))
	}
	if !errors.Is(&store.Error{Err: cause}, cause) {
		t.Error("the cause is not found")
	}
	names := map[string]bool{}
	for k := store.KindUnknown; k <= store.KindInternal; k++ {
		names[k.String()] = true
	}
	if len(names) != 9 {
		t.Errorf("%d names for 9 kinds", len(names))
	}
	kinds := map[store.EventKind]bool{}
	for _, k := range store.EventKinds() {
		if kinds[k] {
			t.Errorf("%s is listed twice", k)
		}
		kinds[k] = true
	}
}
