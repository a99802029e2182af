package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"

	"lunboot/store"
)

// argon2id's cost: OWASP's second profile, 19 MiB and two passes, which a small
// box computes in about 50 ms.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
)

// MinPassword is the shortest password that is taken, in bytes.
const MinPassword = 8

// maxPassword bounds the work of hashing.
const maxPassword = 1024

// HashPassword makes a PHC string: $argon2id$v=19$m=…,t=…,p=…$salt$hash.
func HashPassword(password string) (string, error) {
	if len(password) < MinPassword {
		return "", store.Invalid("password", "the password has %d characters; at least %d are needed", len(password), MinPassword)
	}
	if len(password) > maxPassword {
		return "", store.Invalid("password", "the password is longer than %d bytes", maxPassword)
	}
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads, enc.EncodeToString(salt), enc.EncodeToString(key)), nil
}

// Bounds of a stored hash: what a damaged or planted row could ask of this
// machine, and how little of a key would still be one.
const (
	maxMemory  = 256 << 10 // KiB
	maxTime    = 16
	maxThreads = 16
	minKey     = 16
	maxKey     = 64
	minSalt    = 8
)

// CheckPassword compares in constant time. The costs come from the stored
// string, so that they can rise later.
func CheckPassword(phc, password string) bool {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || len(password) > maxPassword || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false
	}
	var memory, time uint32
	var threads uint8
	// Sscanf ignores what follows; printing the numbers again does not.
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", memory, time, threads) {
		return false
	}
	if threads == 0 || threads > maxThreads || memory < 8*uint32(threads) || memory > maxMemory || time == 0 || time > maxTime {
		return false
	}
	enc := base64.RawStdEncoding.Strict()
	salt, err1 := enc.DecodeString(parts[4])
	want, err2 := enc.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < minSalt || len(want) < minKey || len(want) > maxKey {
		return false
	}
	if enc.EncodeToString(salt) != parts[4] || enc.EncodeToString(want) != parts[5] { // the decoder skips line ends
		return false
	}
	got := argon2.IDKey([]byte(password), salt, time, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}

// decoy is a hash that no password has: checking against it costs a stranger's
// login as much time as a known user's.
const decoy = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
