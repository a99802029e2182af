package redfish

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"lunboot/services/power/fault"
	"lunboot/store"
)

// Bounds of what a BMC may send and take.
const (
	dialTime  = 5 * time.Second
	shakeTime = 10 * time.Second
	headTime  = 20 * time.Second
	maxHead   = 64 << 10
	maxBody   = 256 << 10 // of one answer: BMCs describe a system in some 30 KiB, and 1 MiB of the worst becomes 200 in the library
	maxLogin  = 16 << 20  // of all answers to one login, which may ask a hundred times whether a system is on
	maxAgain  = 3         // times that a BMC may say "later"
	maxLater  = 10 * time.Second
)

// newClient speaks HTTPS to one BMC and to nobody else, with no proxy between:
// what it carries is a password.
func newClient(to Target) *http.Client {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if to.BMC.Trust != store.BMCVerify {
		// The chain is not looked at: the one certificate is, or by the operator's
		// choice nothing.
		trust.InsecureSkipVerify = true
	}
	if to.BMC.Trust == store.BMCPinned {
		trust.VerifyConnection = func(s tls.ConnectionState) error { return pinned(to, s) }
	}
	return &http.Client{
		Transport: newPatient(to.BMC.HostPort(), &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTime}).DialContext,
			TLSClientConfig:        trust,
			TLSHandshakeTimeout:    shakeTime,
			ResponseHeaderTimeout:  headTime,
			MaxResponseHeaderBytes: maxHead,
			MaxConnsPerHost:        2,
			DisableCompression:     true, // what is read is what was sent: a little of it is not a lot
		}),
		// A redirect elsewhere would carry the session's token there.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != "https" || via[0].Method != http.MethodGet {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

// pinned refuses every certificate but the trusted one, before anything is sent.
func pinned(to Target, s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("tls: the BMC shows no certificate")
	}
	sum := sha256.Sum256(s.PeerCertificates[0].Raw)
	if shown := hex.EncodeToString(sum[:]); shown != to.BMC.Fingerprint {
		return &store.UntrustedBMC{Machine: to.Machine, Fingerprint: shown, Was: to.BMC.Fingerprint}
	}
	return nil
}

// patient waits when a BMC says for how long (RFC 9110 §10.2.3), bounds what it
// says otherwise, and goes nowhere else.
type patient struct {
	next *http.Transport
	at   string       // host and port of the BMC
	left atomic.Int64 // bytes that it may still send
}

func newPatient(at string, next *http.Transport) *patient {
	p := &patient{next: next, at: at}
	p.left.Store(maxLogin)
	return p
}

// CloseIdleConnections passes it on, as http.Client asks for it.
func (p *patient) CloseIdleConnections() { p.next.CloseIdleConnections() }

func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	// The library joins a BMC's links to its address as text, so that one such as
	// "@elsewhere/" leads away from it, with the password.
	if u := req.URL; u.Scheme != "https" || u.Host != p.at || u.User != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fault.New(fault.Answer, nil, "the BMC at %s names a place of its own that is elsewhere (%s), and nothing was sent there; newer firmware of the BMC may name the right one", p.at, fault.Words(u.Redacted()))
	}
	// The library asks for a connection of its own for each request; a BMC takes a
	// second or two for a handshake.
	req = req.Clone(req.Context())
	req.Close = false
	for try := 1; ; try++ {
		resp, err := p.next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		resp.Body = bounded{io.LimitReader(&counted{resp.Body, p}, maxBody), resp.Body}
		later, wants := retryAfter(resp)
		if !wants || try > maxAgain || req.Body != nil && req.GetBody == nil {
			return resp, nil
		}
		if deadline, ok := req.Context().Deadline(); ok && time.Until(deadline) <= later {
			return resp, nil // there is no time left to wait
		}
		resp.Body.Close()
		if err := sleep(req.Context(), later); err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, fmt.Errorf("send the request again: %w", err)
			}
		}
	}
}

// retryAfter is how long a BMC that is busy asks to wait.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	n, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0, false
	}
	later := time.Duration(n) * time.Second
	return later, later <= maxLater
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// counted is a body that is taken off what a BMC may send in one login.
type counted struct {
	body io.Reader
	of   *patient
}

func (c *counted) Read(b []byte) (int, error) {
	if c.of.left.Load() <= 0 {
		return 0, fault.New(fault.Answer, nil, "the BMC at %s sends more than the %d MiB that an order may take; look whether it is the BMC's address", c.of.at, maxLogin>>20)
	}
	n, err := c.body.Read(b)
	c.of.left.Add(-int64(n))
	return n, err
}

// bounded is a body of which no more is read than fits. What a reader left is read
// at its end, if it is little, so that the connection serves the next request.
type bounded struct {
	io.Reader
	body io.Closer
}

// maxLeft bounds what is read of a body that nobody wants.
const maxLeft = 4 << 10

func (b bounded) Close() error {
	io.CopyN(io.Discard, b.Reader, maxLeft) // an error of it is no news to who has what he wants
	return b.body.Close()
}
