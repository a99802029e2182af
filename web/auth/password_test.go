package auth

import (
	"strings"
	"testing"

	"lunboot/store"
)

func TestPasswordRoundTrip(t *testing.T) {
	for _, pw := range []string{"pässwörd", strings.Repeat("x", maxPassword), "a\x00b\x00c\x00d\x00"} {
		one, err := HashPassword(pw)
		if err != nil {
			t.Fatalf("%.20q: %v", pw, err)
		}
		two, err := HashPassword(pw)
		if err != nil || one == two {
			t.Errorf("%.20q hashes to the same text twice: no salt (%v)", pw, err)
		}
		if !strings.HasPrefix(one, "$argon2id$v=19$m=19456,t=2,p=1$") {
			t.Errorf("the hash is %q", one)
		}
		if !CheckPassword(one, pw) || !CheckPassword(two, pw) {
			t.Errorf("%.20q does not fit its own hash", pw)
		}
		for _, wrong := range []string{"", pw[1:]} {
			if CheckPassword(one, wrong) {
				t.Errorf("%.20q fits the hash of %.20q", wrong, pw)
			}
		}
	}
}

func TestPasswordBounds(t *testing.T) {
	for _, pw := range []string{"", "1234567", strings.Repeat("x", maxPassword+1)} {
		if _, err := HashPassword(pw); store.KindOf(err) != store.KindInvalid {
			t.Errorf("a password of %d bytes: %v", len(pw), err)
		}
	}
}

// TestMalformedHashesFitNothing keeps a damaged or planted row from letting
// anybody in, or from taking the machine's memory.
func TestMalformedHashesFitNothing(t *testing.T) {
	const pw = "correct horse"
	good, err := HashPassword(pw)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, "$")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, "$")
	}
	for name, phc := range map[string]string{
		"empty": "", "plain text": pw, "dollars": "$$$$$", "too few parts": strings.Join(parts[:5], "$"), "too many parts": good + "$",
		"words before": with(0, "x"), "argon2i": with(1, "argon2i"), "bcrypt": "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"no version": with(2, ""), "old version": with(2, "v=16"), "version with a tail": with(2, "v=19 "), "version twice": with(2, "v=19,v=19"),
		"no cost": with(3, ""), "cost with a tail": with(3, "m=19456,t=2,p=1,x"), "signed cost": with(3, "m=+19456,t=2,p=1"),
		"other order": with(3, "t=2,m=19456,p=1"), "no passes": with(3, "m=19456,t=0,p=1"), "no threads": with(3, "m=19456,t=2,p=0"),
		"too many threads": with(3, "m=19456,t=2,p=200"), "threads that wrap": with(3, "m=19456,t=2,p=257"), "too much memory": with(3, "m=4194304,t=2,p=1"),
		"no memory": with(3, "m=0,t=2,p=1"), "too many passes": with(3, "m=19456,t=1000000,p=1"),
		"no salt": with(4, ""), "short salt": with(4, "AAAA"), "salt no base64": with(4, "!!!!"), "padded salt": with(4, parts[4]+"=="),
		"no key": with(5, ""), "short key": with(5, parts[5][:4]), "key no base64": with(5, "****"), "key with a line end": with(5, parts[5]+"\n"),
		"huge key": with(5, strings.Repeat("A", 1<<16)),
	} {
		if CheckPassword(phc, pw) || CheckPassword(phc, "") {
			t.Errorf("%s: %q lets somebody in", name, phc)
		}
	}
	if !CheckPassword(good, pw) {
		t.Error("the good one no longer fits")
	}
}

func TestTheDecoyCostsAsMuchAsARealHash(t *testing.T) {
	real, err := HashPassword("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Split(real, "$"), strings.Split(decoy, "$"); len(b) != 6 || a[3] != b[3] || len(a[4]) != len(b[4]) || len(a[5]) != len(b[5]) {
		t.Errorf("%s and %s differ in cost: a stranger's clock tells users apart", real, decoy)
	}
	if CheckPassword(decoy, "") || CheckPassword(decoy, "correct horse") {
		t.Error("a password fits the decoy")
	}
}

func FuzzCheckPassword(f *testing.F) {
	f.Add(decoy, "x")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "x")
	f.Fuzz(func(t *testing.T, phc, pw string) { CheckPassword(phc, pw) }) // must not panic
}
