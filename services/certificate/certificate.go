// Package certificate has what the admin side shows of itself under TLS: a
// certificate that an operator brings, read again when it was renewed, or one
// that the appliance makes for itself and keeps.
//
// A self-made one proves nothing to who sees it first. It keeps listeners out,
// and whoever has compared its fingerprint once knows the appliance again.
package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"lunboot/store"
)

// Times of certificates.
const (
	// selfMade is how long a certificate of our own is good: people who know its
	// fingerprint should not have to learn another.
	selfMade = 10 * 365 * 24 * time.Hour
	// lookAgain is how often a brought certificate's files are looked at.
	lookAgain = 10 * time.Second
)

// Source is a certificate with its key.
type Source struct {
	cert, key string // files; empty for one of our own, which never changes
	log       *slog.Logger
	now       func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	changed [2]time.Time // of the files, as current was read
	looked  time.Time
}

// FromFiles reads a certificate chain and its key, both PEM. When the files
// change, the new ones are used for new connections; files that cannot be used
// leave the former in place, and the log says so.
func FromFiles(cert, key string, log *slog.Logger, now func() time.Time) (*Source, error) {
	s := &Source{cert: cert, key: key, log: log, now: now}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Source) read() error {
	times, err := s.times()
	if err != nil {
		return fmt.Errorf("the certificate cannot be read: %w", err)
	}
	c, err := tls.LoadX509KeyPair(s.cert, s.key)
	if err != nil {
		return fmt.Errorf("the certificate %s and the key %s do not go together: %w", s.cert, s.key, err)
	}
	s.current, s.changed, s.looked = &c, times, s.now()
	return nil
}

func (s *Source) times() (out [2]time.Time, err error) {
	for i, name := range []string{s.cert, s.key} {
		st, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = st.ModTime()
	}
	return out, nil
}

// SelfMade returns the certificate that is kept in file, and makes it when there
// is none yet, for the names and addresses given. The file has mode 0600: the key
// is in it. One that has run out, or that cannot be read as one, is made anew.
func SelfMade(file string, names []string, addrs []netip.Addr, log *slog.Logger, now func() time.Time) (*Source, error) {
	s := &Source{log: log, now: now}
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("the appliance's own certificate cannot be read: %w", err)
	default:
		if c, err := tls.X509KeyPair(b, b); err == nil && now().Before(c.Leaf.NotAfter) {
			s.current = &c
			return s, nil
		}
		log.Warn("the appliance makes itself a new certificate: the one that it had is damaged or has run out, and its fingerprint changes", "file", file)
	}
	if b, err = make509(names, addrs, now()); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	if err := keep(file, b); err != nil {
		return nil, fmt.Errorf("keep the appliance's own certificate: %w", err)
	}
	s.current = &c
	return s, nil
}

// make509 makes a key and a certificate that is its own issuer (RFC 5280 §4.2.1.6
// for names), as PEM.
func make509(names []string, addrs []netip.Addr, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "lunboot", Organization: []string{"made by the appliance itself"}},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(selfMade), // clocks differ
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
		DNSNames: names,
	}
	for _, a := range addrs {
		t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// keep writes a file whole and durable, for its owner alone.
func keep(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err = os.Rename(f.Name(), file); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	folder, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Config is what a listener needs: TLS 1.2 and later, with this certificate.
func (s *Source) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.get(), nil }}
}

func (s *Source) get() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert == "" {
		return s.current
	}
	if now := s.now(); now.Sub(s.looked) >= lookAgain || now.Before(s.looked) {
		s.looked = now
		times, err := s.times()
		if err == nil && times != s.changed {
			err = s.read()
		}
		if err != nil {
			s.log.Warn("the certificate was not read again, and the former goes on", "file", s.cert, "error", err)
		}
	}
	return s.current
}

// SelfMade reports whether the appliance made the certificate.
func (s *Source) SelfMade() bool { return s.cert == "" }

// Fingerprint is the SHA-256 of the certificate, in hexadecimal pairs with colons.
func (s *Source) Fingerprint() string { return Fingerprint(s.get().Leaf.Raw) }

// Ends is when the certificate runs out.
func (s *Source) Ends() time.Time { return s.get().Leaf.NotAfter }

// Fingerprint is the SHA-256 of a certificate's DER bytes, as browsers show it.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = strings.ToUpper(hex.EncodeToString([]byte{b}))
	}
	return strings.Join(pairs, ":")
}

// ParseFingerprint reads a SHA-256 fingerprint, with or without colons.
func ParseFingerprint(s string) (sum [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(s))
	if err != nil || len(b) != len(sum) {
		return sum, store.Invalid("fingerprint", "%q is not a SHA-256 fingerprint: 64 hexadecimal digits", s)
	}
	return [sha256.Size]byte(b), nil
}
