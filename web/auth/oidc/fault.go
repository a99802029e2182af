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
	mend  string // the command that mends it, or shows more; empty: none
}

// Error returns the sentence.
func (r *refusal) Error() string { return r.said.Msg }

// Unwrap returns the kind, and the cause.
func (r *refusal) Unwrap() []error { return []error{r.said, r.cause} }

// denied is a refusal by the rules, the provider's or ours.
func denied(err error, format string, args ...any) error {
	return &refusal{said: &store.Error{Kind: store.KindDenied, Msg: fmt.Sprintf(format, args...)}, cause: err}
}

// unavailable is a refusal because the provider could not be asked, or gave no
// answer that makes sense.
func unavailable(err error, format string, args ...any) error {
	return &refusal{said: &store.Error{Kind: store.KindUnavailable, Msg: fmt.Sprintf(format, args...)}, cause: err}
}

// mended adds the command to a refusal that mends it.
func mended(err error, command string) error {
	var r *refusal
	if errors.As(err, &r) {
		r.mend = command
	}
	return err
}

// mend is the command that mends what went wrong; empty when there is none.
func mend(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.mend
	}
	return ""
}

// Commands that mend what only an admin of this appliance can.
const (
	setIssuer = "lunboot oidc set --issuer URL"
	setClient = "lunboot oidc set --client-id ID --secret -"
	setCA     = "lunboot oidc set --ca FILE"
	setURL    = "lunboot oidc set --url URL"
	setClock  = "timedatectl set-ntp true"
)

// ask is the command that asks as the appliance does, and shows more of the answer.
// What a provider says of itself is an argument in it and nothing else.
func ask(u *url.URL) string { return "curl -v " + argument(u.String()) }

// argument is text as one argument of a shell's command.
func argument(s string) string { return store.ShellQuote(words(s)) }

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
		return mended(unavailable(err, "the provider's name, %s, is unknown to this appliance's host; look whether it is written as it should, and at the host's name service", dns.Name), "getent hosts "+argument(dns.Name))
	case errors.Is(err, syscall.ECONNREFUSED):
		return mended(unavailable(err, "nothing listens at %s, where the provider should be; it is stopped, or has another port", at), ask(u))
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return mended(unavailable(err, "no way leads from this appliance to the provider at %s; look at the host's routes, and whether the provider is on", at), "ip route")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return mended(unavailable(err, "this appliance's own host does not let it speak to the provider at %s; its firewall has to let that out", at), "nft list ruleset")
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		return mended(unavailable(err, "what answers at %s speaks no TLS; give the port of the provider's HTTPS", at), setIssuer)
	case errors.As(err, &unknown):
		return mended(unavailable(err, "nobody whom this appliance's host trusts vouches for the provider at %s; where it has its own authority, an admin can give that authority's certificate under Settings, Single sign-on", at), setCA)
	case errors.As(err, &host):
		return mended(unavailable(err, "the certificate of the provider at %s is for another name: %s", at, words(host.Error())), setIssuer)
	case errors.As(err, &invalid):
		return mended(unavailable(err, "the certificate of the provider at %s is not good: %s", at, words(invalid.Error())), ask(u))
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		return mended(unavailable(err, "the provider at %s and this appliance have no TLS in common, which has to be 1.2 or later", at), ask(u))
	case errors.As(err, &large):
		return mended(unavailable(err, "what answers at %s says more than the %d KiB that a provider may; look whether it is one", at, maxAnswer>>10), ask(u))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return mended(unavailable(err, "the provider at %s did not answer in time; it is off, elsewhere, or a firewall is between", at), ask(u))
	}
	return mended(unavailable(err, "the provider at %s could not be asked: %s", at, words(last(err).Error())), ask(u))
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
		return mended(unavailable(err, "%s does not know this appliance as %s, or not by the secret that is set here%s. An admin can mend that under Settings, Single sign-on", o.Name, o.ClientID, detail), setClient)
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
