package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"lunboot/services/backup"
	"lunboot/services/certificate"
	"lunboot/services/doctor"
	"lunboot/store"
	"lunboot/web/pages"
)

// certificateFile is the appliance's own certificate with its key, in a folder
// that a backup takes along: who knows its fingerprint knows a restored
// appliance again.
const certificateFile = backup.TLSFolder + "/admin.pem"

// checkTLS refuses flags that contradict each other.
func (c *serveCmd) checkTLS() error {
	switch own := c.TLSCert != "" || c.TLSKey != ""; {
	case own && (c.TLSCert == "" || c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together: the certificate and its key")
	case own && c.TLS == "self":
		return errors.New("--tls self makes a certificate, --tls-cert brings one: choose one of the two")
	}
	return nil
}

// certificate is what the admin port shows of itself, nil for plain HTTP.
func (c *serveCmd) certificate(dir string, advertise netip.Addr, log *slog.Logger) (*certificate.Source, error) {
	switch {
	case c.TLSCert != "":
		return certificate.FromFiles(c.TLSCert, c.TLSKey, log, time.Now)
	case c.TLS != "self":
		return nil, nil
	}
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil && name != "" && name != "localhost" {
		names = append(names, name)
	}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, p := range addressesOf(i.Name) {
			addrs = append(addrs, p.Addr())
		}
	}
	if advertise.IsValid() {
		addrs = append(addrs, advertise)
	}
	if err := os.MkdirAll(filepath.Join(dir, backup.TLSFolder), 0o750); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	return certificate.SelfMade(filepath.Join(dir, certificateFile), names, addrs, log, time.Now)
}

// tlsConfig is what the admin listener needs, nil for plain HTTP.
func (a *appliance) tlsConfig() *tls.Config {
	if a.cert == nil {
		return nil
	}
	return a.cert.Config()
}

// shown is the certificate of the admin port, for the pages.
func (a *appliance) shown() pages.Certificate {
	if a.cert == nil {
		return pages.Certificate{}
	}
	return pages.Certificate{On: true, SelfMade: a.cert.SelfMade(), File: a.cmd.TLSCert, Ends: a.cert.Ends(), Fingerprint: a.cert.Fingerprint()}
}

// renewSoon is how long before its end a certificate is spoken of.
const renewSoon = 21 * 24 * time.Hour

func (a *appliance) certificateCheck() doctor.Check {
	return doctor.Check{Name: "admin HTTPS", Run: func(context.Context) (string, error) {
		if a.cert == nil {
			if at := a.admin.Addr().Addr(); at.IsValid() && at.IsLoopback() {
				return "off, and only this machine reaches the pages: no password crosses a network", nil
			}
			return "", &doctor.Problem{State: doctor.Advice, What: "off; passwords cross the network in the clear", Mend: "start the appliance with --tls self, or bring a certificate with --tls-cert and --tls-key"}
		}
		ends := a.cert.Ends()
		day := ends.Format("2006-01-02")
		mend := "put the renewed one into " + a.cmd.TLSCert + " and " + a.cmd.TLSKey + "; it is read without a restart"
		if a.cert.SelfMade() {
			mend = "restart lunboot, which then makes a new one; its fingerprint changes"
		}
		switch left := time.Until(ends); {
		case left <= 0:
			return "", &doctor.Problem{State: doctor.Fault, What: "the certificate has run out on " + day, Mend: mend}
		case left < renewSoon:
			return "", &doctor.Problem{State: doctor.Advice, What: "the certificate runs out on " + day, Mend: mend}
		}
		whose := "of " + a.cmd.TLSCert
		if a.cert.SelfMade() {
			whose = "made by the appliance"
		}
		return fmt.Sprintf("a certificate %s, good until %s, SHA-256 %s", whose, day, a.cert.Fingerprint()), nil
	}}
}

// pinned trusts one certificate by its fingerprint, whoever issued it and for
// whatever name: nil for an empty fingerprint.
func pinned(fingerprint string) (*tls.Config, error) {
	if fingerprint == "" {
		return nil, nil
	}
	want, err := certificate.ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it, by more than a name
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := s.PeerCertificates[0].Raw; sha256.Sum256(got) != want {
				return &store.Error{Kind: store.KindDenied, Msg: "the appliance shows another certificate, of SHA-256 " + certificate.Fingerprint(got) + "; if it was renewed, take that for --fingerprint, else somebody stands between"}
			}
			return nil
		},
	}, nil
}
