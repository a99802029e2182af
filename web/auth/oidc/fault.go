package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"golang.org/x/oauth2"

	"lunboot/store"
)

// refusal is why somebody did not come in, in a sentence for them; the cause is for
// the log.
type refusal struct {
	said  *store.Error
	cause error
}

// Error returns the sentence.
func (r *refusal) Error() string { return r.said.Msg }

// Unwrap returns the kind, and the cause.
func (r *refusal) Unwrap() []error { return []error{r.said, r.cause} }

// denied is a refusal by the rules, the provider's or ours.
func denied(err error, format string, args ...any) error {
	return &refusal{&store.Error{Kind: store.KindDenied, Msg: fmt.Sprintf(format, args...)}, err}
}

// unavailable is a refusal because the provider could not be asked, or gave no
// answer that makes sense.
func unavailable(err error, format string, args ...any) error {
	return &refusal{&store.Error{Kind: store.KindUnavailable, Msg: fmt.Sprintf(format, args...)}, err}
}

func cause(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r.cause
	}
	return nil
}

// fault says in words why the provider could not be asked. What is a refusal
// already stays one.
func (p *provider) fault(err error, u *url.URL) error {
	var (
		r       *refusal
		dns     *net.DNSError
		timeout net.Error
		plain   tls.RecordHeaderError
		alert   tls.AlertError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		large   *http.MaxBytesError
	)
	at := u.Host
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &dns):
		return unavailable(err, "the provider's name, %s, is unknown to this appliance's host; look whether it is written as it should, and at the host's name service", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return unavailable(err, "nothing listens at %s, where the provider should be; it is stopped, or has another port", at)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return unavailable(err, "no way leads from this appliance to the provider at %s; look at the host's routes, and whether the provider is on", at)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return unavailable(err, "this appliance's own host does not let it speak to the provider at %s; its firewall has to let that out", at)
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		return unavailable(err, "what answers at %s speaks no TLS; give the port of the provider's HTTPS", at)
	case errors.As(err, &unknown):
		return unavailable(err, "nobody whom this appliance's host trusts vouches for the provider at %s; where it has its own authority, an admin can give that authority's certificate under Settings, Single sign-on", at)
	case errors.As(err, &host):
		return unavailable(err, "the certificate of the provider at %s is for another name: %s", at, words(host.Error()))
	case errors.As(err, &invalid):
		return unavailable(err, "the certificate of the provider at %s is not good: %s", at, words(invalid.Error()))
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		return unavailable(err, "the provider at %s and this appliance have no TLS in common, which has to be 1.2 or later", at)
	case errors.As(err, &large):
		return unavailable(err, "what answers at %s says more than the %d KiB that a provider may; look whether it is one", at, maxAnswer>>10)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return unavailable(err, "the provider at %s did not answer in time; it is off, elsewhere, or a firewall is between", at)
	}
	return unavailable(err, "the provider at %s could not be asked: %s", at, words(last(err).Error()))
}

// refusal says in words why the provider gave nothing for a code (RFC 6749 §5.2).
func (p *provider) refusal(err error) error {
	o := p.settings
	var said *oauth2.RetrieveError
	if !errors.As(err, &said) {
		u, _ := url.Parse(p.Token) // it was looked at when it was told
		return p.fault(err, u)
	}
	why := said.ErrorCode
	detail := quoted(said.ErrorDescription)
	// What a provider answers may hold what it was asked: it is not for the log.
	err = fmt.Errorf("%s answers %s, %s%s", o.Issuer, said.Response.Status, words(why), detail)
	switch {
	case why == "invalid_client", why == "unauthorized_client", why == "" && said.Response.StatusCode == http.StatusUnauthorized:
		return unavailable(err, "%s does not know this appliance as %s, or not by the secret that is set here%s. An admin can mend that under Settings, Single sign-on", o.Name, o.ClientID, detail)
	case why == "invalid_grant":
		return denied(err, "%s does not take the code that it sent you back with: it was used already, took too long, or the sign-in came by another way%s. Start the sign-in again", o.Name, detail)
	case why == "":
		return unavailable(err, "%s answers %q when it is asked who you are; it may have trouble of its own", o.Name, said.Response.Status)
	}
	return unavailable(err, "%s does not say who you are: %s%s", o.Name, words(why), detail)
}

// last is the innermost cause, the shortest that still says what.
func last(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// maxWords bounds what of somebody else's words is repeated.
const maxWords = 200

// words makes what a provider says fit for a sentence.
func words(s string) string { return store.OneLine(s, maxWords) }

// quoted is what a provider adds, in its own words; empty when it adds nothing.
func quoted(s string) string {
	if s = words(s); s == "" {
		return ""
	}
	return " (“" + s + "”)"
}
