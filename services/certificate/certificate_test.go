package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

var quiet = slog.New(slog.DiscardHandler)

// shown is what a client sees of a source.
func shown(t *testing.T, s *Source, verify *x509.CertPool, name string) (*x509.Certificate, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.Config())
	require.NoError(t, err)
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", l.Addr().String(), &tls.Config{ServerName: name, RootCAs: verify, InsecureSkipVerify: verify == nil})
	if err == nil {
		defer c.Close()
	}
	<-served
	if err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func TestTheOwnCertificateIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.pem")
	names, addrs := []string{"lunboot.lab"}, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00::1")}
	now := time.Now
	s, err := SelfMade(file, names, addrs, quiet, now)
	require.NoError(t, err)
	assert.True(t, s.SelfMade())
	st, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "the key is in it")

	c, err := shown(t, s, nil, "")
	require.NoError(t, err)
	assert.Equal(t, s.Fingerprint(), Fingerprint(c.Raw))
	assert.NoError(t, c.VerifyHostname("lunboot.lab"))
	assert.NoError(t, c.VerifyHostname("192.0.2.1"))
	assert.NoError(t, c.VerifyHostname("fd00::1"))
	assert.Error(t, c.VerifyHostname("other.lab"))
	// Who has put it among those that are trusted needs no exception.
	pool := x509.NewCertPool()
	pool.AddCert(c)
	_, err = shown(t, s, pool, "lunboot.lab")
	assert.NoError(t, err)

	again, err := SelfMade(file, nil, nil, quiet, now)
	require.NoError(t, err)
	assert.Equal(t, s.Fingerprint(), again.Fingerprint(), "after a restart it is the same")
	late := func() time.Time { return time.Now().Add(selfMade + 48*time.Hour) }
	renewed, err := SelfMade(file, names, addrs, quiet, late)
	require.NoError(t, err)
	assert.NotEqual(t, s.Fingerprint(), renewed.Fingerprint(), "one that has run out is made anew")
	assert.True(t, renewed.Ends().After(late()))

	require.NoError(t, os.WriteFile(file, []byte("half of"), 0o600))
	mended, err := SelfMade(file, names, addrs, quiet, now)
	require.NoError(t, err)
	assert.NotEqual(t, s.Fingerprint(), mended.Fingerprint())
	_, err = SelfMade(filepath.Join(t.TempDir(), "no", "folder.pem"), names, addrs, quiet, now)
	assert.Error(t, err)
}

// pair writes a certificate and its key as an operator has them.
func pair(t *testing.T, dir string, at time.Time) (cert, key string) {
	t.Helper()
	b, err := make509([]string{"lunboot.example.org"}, nil, time.Now())
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, rest := pem.Decode(b)
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(first), 0o600))
	require.NoError(t, os.WriteFile(key, rest, 0o600))
	require.NoError(t, os.Chtimes(cert, at, at))
	require.NoError(t, os.Chtimes(key, at, at))
	return cert, key
}

func TestARenewedCertificateIsShownWithoutARestart(t *testing.T) {
	dir, clock := t.TempDir(), time.Now()
	cert, key := pair(t, dir, clock.Add(-time.Hour))
	var log bytes.Buffer
	s, err := FromFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return clock })
	require.NoError(t, err)
	assert.False(t, s.SelfMade())
	first := s.Fingerprint()

	pair(t, dir, clock.Add(-time.Minute))
	assert.Equal(t, first, s.Fingerprint(), "the files are looked at every few seconds, not at each connection")
	clock = clock.Add(lookAgain)
	second := s.Fingerprint()
	assert.NotEqual(t, first, second)
	c, err := shown(t, s, nil, "")
	require.NoError(t, err)
	assert.Equal(t, second, Fingerprint(c.Raw))

	require.NoError(t, os.WriteFile(key, []byte("not a key"), 0o600))
	clock = clock.Add(lookAgain)
	assert.Equal(t, second, s.Fingerprint(), "what cannot be used changes nothing")
	assert.Contains(t, log.String(), "the former goes on")
	require.NoError(t, os.Remove(cert))
	clock = clock.Add(lookAgain)
	assert.Equal(t, second, s.Fingerprint())

	_, err = FromFiles(cert, key, quiet, time.Now)
	assert.ErrorContains(t, err, "cannot be read")
	other, _ := pair(t, t.TempDir(), clock)
	_, wrong := pair(t, t.TempDir(), clock)
	_, err = FromFiles(other, wrong, quiet, time.Now)
	assert.ErrorContains(t, err, "do not go together")
}

func TestFingerprintsAreReadAsTheyAreShown(t *testing.T) {
	fp := Fingerprint([]byte("x"))
	assert.Len(t, strings.Split(fp, ":"), 32)
	a, err := ParseFingerprint(fp)
	require.NoError(t, err)
	b, err := ParseFingerprint(strings.ToLower(strings.ReplaceAll(fp, ":", "")))
	require.NoError(t, err)
	assert.Equal(t, a, b)
	for _, bad := range []string{"", "AB:CD", strings.Repeat("zz", 32), fp + ":00"} {
		_, err := ParseFingerprint(bad)
		assert.Equal(t, store.KindInvalid, store.KindOf(err), bad)
	}
}
