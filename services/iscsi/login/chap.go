package login

import (
	"crypto/md5"  // RFC 1994: the one algorithm that every initiator has
	"crypto/sha1" // RFC 7143 §12.1.3 and the IANA PPP numbers: algorithm 6
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"

	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// authKey says whether a key is one of the security stage (RFC 7143 §12.1).
// They have an order of their own and are not negotiated by the table.
func authKey(name string) bool {
	switch name {
	case "AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R":
		return true
	}
	return false
}

// algorithm is one CHAP algorithm (IANA, PPP authentication algorithms).
type algorithm struct {
	name string
	new  func() hash.Hash
}

var algorithms = map[int]algorithm{
	5: {"MD5", md5.New},
	6: {"SHA-1", sha1.New},
	7: {"SHA-256", sha256.New},
	8: {"SHA3-256", func() hash.Hash { return sha3.New256() }},
}

// maxBinary bounds a binary value of CHAP (RFC 7143 §12.1.3: up to 1024 bytes).
const maxBinary = 1024

// authState is how far the proof is.
type authState struct {
	done      bool
	chap      bool // the method is agreed
	algorithm *algorithm
	id        byte
	challenge []byte
}

// needNoAuth refuses an initiator that begins with the operational stage where
// it would have to prove itself.
func (m *Machine) needNoAuth(pairs []pdu.Pair) *Refusal {
	if m.access.Auth != store.AuthNone && !m.auth.done {
		return refuse(pdu.LoginAuthFailure, "the initiator %s began without authentication; %s is required", m.res.Initiator, required(m.access.Auth)).because(store.CauseAuthRequired)
	}
	if slices.ContainsFunc(pairs, func(p pdu.Pair) bool { return authKey(p.Key) }) {
		return refuse(pdu.LoginInitiatorError, "the initiator sent authentication keys after the security stage")
	}
	return nil
}

func required(a store.AuthMode) string {
	switch a {
	case store.AuthCHAP:
		return "CHAP"
	case store.AuthMutual:
		return "mutual CHAP"
	}
	return "no authentication"
}

// authenticate takes the authentication keys of one request.
func (m *Machine) authenticate(pairs []pdu.Pair) *Refusal {
	got := make(map[string]string)
	for _, p := range pairs {
		if !authKey(p.Key) {
			continue
		}
		if _, twice := got[p.Key]; twice {
			return refuse(pdu.LoginInitiatorError, "the initiator sent %s twice", p.Key)
		}
		got[p.Key] = p.Value
	}
	if methods, ok := got["AuthMethod"]; ok {
		if m.auth.chap || m.auth.done {
			return refuse(pdu.LoginInitiatorError, "the initiator offered AuthMethod twice")
		}
		if why := m.method(methods); why != nil {
			return why
		}
	}
	if a, ok := got["CHAP_A"]; ok {
		if why := m.challenge(a); why != nil {
			return why
		}
	}
	_, name := got["CHAP_N"]
	_, response := got["CHAP_R"]
	if name || response {
		return m.verify(got)
	}
	if got["CHAP_I"] != "" || got["CHAP_C"] != "" {
		return refuse(pdu.LoginInitiatorError, "the initiator sent a CHAP challenge without its own response")
	}
	if len(got) == 0 && !m.auth.chap && m.access.Auth == store.AuthNone {
		m.auth.done = true // AuthMethod's default is None (§12)
	}
	return nil
}

// method agrees on an authentication method (§12.1).
func (m *Machine) method(offered string) *Refusal {
	methods := strings.Split(offered, ",")
	want := "CHAP"
	if m.access.Auth == store.AuthNone {
		want = valueNone
	}
	if !slices.Contains(methods, want) {
		return refuse(pdu.LoginAuthFailure, "the initiator %s offered the authentication %.60q; %s is required", m.res.Initiator, offered, required(m.access.Auth)).because(store.CauseAuthRequired)
	}
	m.answer("AuthMethod", want)
	if want == valueNone {
		m.auth.done = true
	} else {
		m.auth.chap = true
	}
	return nil
}

// challenge picks an algorithm, the first of the initiator's that the target
// has, and sends the challenge.
func (m *Machine) challenge(offered string) *Refusal {
	if !m.auth.chap || m.auth.algorithm != nil {
		return refuse(pdu.LoginInitiatorError, "the initiator sent CHAP_A out of order")
	}
	for _, s := range strings.Split(offered, ",") {
		n, ok := parseNumber(s)
		a, known := algorithms[n]
		if !ok || !known {
			continue
		}
		m.auth.algorithm = &a
		// As long as the digest: RFC 7143 §12.1.3 asks for a challenge that no
		// one can exhaust.
		b := make([]byte, 1+a.new().Size())
		m.cfg.Random(b)
		m.auth.id, m.auth.challenge = b[0], b[1:]
		m.answer("CHAP_A", strconv.Itoa(n))
		m.answer("CHAP_I", strconv.Itoa(int(m.auth.id)))
		m.answer("CHAP_C", "0x"+hex.EncodeToString(m.auth.challenge))
		return nil
	}
	return refuse(pdu.LoginAuthFailure, "the initiator %s offered the CHAP algorithms %.40q; the target has 5 (MD5), 6 (SHA-1), 7 (SHA-256) and 8 (SHA3-256)", m.res.Initiator, offered)
}

// verify judges the initiator's response and, for mutual CHAP, gives the
// target's own (§12.1.3).
func (m *Machine) verify(got map[string]string) *Refusal {
	a := m.auth.algorithm
	if a == nil || m.auth.done {
		return refuse(pdu.LoginInitiatorError, "the initiator answered a challenge that was not sent")
	}
	response, err := decodeBinary(got["CHAP_R"])
	if err != nil {
		return refuse(pdu.LoginAuthFailure, "the initiator's CHAP response cannot be read: %v", err)
	}
	want := digestOf(a, m.auth.id, m.access.CHAP.Secret, m.auth.challenge)
	good := subtle.ConstantTimeCompare(response, want) == 1
	if name := got["CHAP_N"]; subtle.ConstantTimeCompare([]byte(name), []byte(m.access.CHAP.User)) != 1 {
		return refuse(pdu.LoginAuthFailure, "the initiator %s gave the CHAP user name %.128q; the one set for it is %q", m.res.Initiator, name, m.access.CHAP.User).because(store.CauseWrongSecret)
	}
	// An empty secret proves nothing, whatever the digest.
	if !good || m.access.CHAP.Secret == "" {
		return refuse(pdu.LoginAuthFailure, "the initiator %s has another CHAP secret than the one set for it", m.res.Initiator).because(store.CauseWrongSecret)
	}
	_, hasI := got["CHAP_I"]
	_, hasC := got["CHAP_C"]
	if !hasI && !hasC {
		if m.access.Auth == store.AuthMutual {
			return refuse(pdu.LoginAuthFailure, "the initiator %s offered one-way CHAP; mutual CHAP is required", m.res.Initiator).because(store.CauseAuthRequired)
		}
		m.auth.done = true
		m.res.Auth, m.res.Method = store.AuthCHAP, "CHAP with "+a.name
		return nil
	}
	return m.prove(a, got["CHAP_I"], got["CHAP_C"])
}

// prove answers the initiator's challenge.
func (m *Machine) prove(a *algorithm, idText, challengeText string) *Refusal {
	if m.access.Reverse.Secret == "" {
		return refuse(pdu.LoginAuthFailure, "the initiator %s wants mutual CHAP; no reverse secret is set for it", m.res.Initiator).because(store.CauseNoReverse)
	}
	// With one secret for both ways, a challenge could be answered by asking
	// it back on another connection (RFC 7143 §12.1.3).
	if subtle.ConstantTimeCompare([]byte(m.access.Reverse.Secret), []byte(m.access.CHAP.Secret)) == 1 {
		return refuse(pdu.LoginAuthFailure, "the CHAP secret and the reverse CHAP secret of %s are the same; they must differ", m.res.Initiator)
	}
	id, ok := parseNumber(idText)
	if !ok || id > 255 {
		return refuse(pdu.LoginAuthFailure, "the initiator's CHAP identifier is %.20q; it is a number up to 255", idText)
	}
	challenge, err := decodeBinary(challengeText)
	if err != nil || len(challenge) == 0 {
		return refuse(pdu.LoginAuthFailure, "the initiator's CHAP challenge cannot be read")
	}
	if subtle.ConstantTimeCompare(challenge, m.auth.challenge) == 1 {
		return refuse(pdu.LoginAuthFailure, "the initiator %s sent the target's own CHAP challenge back", m.res.Initiator)
	}
	m.answer("CHAP_N", m.access.Reverse.User)
	m.answer("CHAP_R", "0x"+hex.EncodeToString(digestOf(a, byte(id), m.access.Reverse.Secret, challenge)))
	m.auth.done = true
	m.res.Auth, m.res.Method = store.AuthMutual, "mutual CHAP with "+a.name
	return nil
}

// digestOf is the CHAP response (RFC 1994 §4.1).
func digestOf(a *algorithm, id byte, secret string, challenge []byte) []byte {
	h := a.new()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// decodeBinary reads a binary value: 0x hexadecimal or 0b base64 (RFC 7143
// §6.1). Hexadecimal of an odd length has a leading zero left out.
func decodeBinary(s string) ([]byte, error) {
	if len(s) > 2*maxBinary+3 {
		return nil, fmt.Errorf("it is longer than %d bytes", maxBinary)
	}
	if len(s) < 2 || s[0] != '0' {
		return nil, fmt.Errorf("it begins with neither 0x nor 0b")
	}
	switch s[1] {
	case 'x', 'X':
		digits := s[2:]
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		return hex.DecodeString(digits)
	case 'b', 'B':
		return base64.StdEncoding.DecodeString(s[2:])
	}
	return nil, fmt.Errorf("it begins with neither 0x nor 0b")
}
