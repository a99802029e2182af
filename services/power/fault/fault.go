// Package fault says in words why a BMC did not do what it was told: nobody
// answers, the password is wrong, it speaks another TLS, it does not do this, or
// it said yes and did nothing.
package fault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"lunboot/store"
)

// Why is what kept a BMC from it.
type Why string

// The closed list.
const (
	NoRoute     Why = "no-route"    // no network leads to it
	NoName      Why = "no-name"     // its name is unknown
	Closed      Why = "closed"      // the host is there, and nothing answers at the port
	Silent      Why = "silent"      // nothing came back in time
	Password    Why = "password"    // it does not know the user, or not by this password
	Rights      Why = "rights"      // the user may not
	Cipher      Why = "cipher"      // none of the cipher suites that are safe
	TLS         Why = "tls"         // no common TLS, or none at all
	Certificate Why = "certificate" // nobody that the host trusts vouches for it
	Busy        Why = "busy"        // it has no time now
	Other       Why = "other"       // it is the BMC of another system
	Unable      Why = "unable"      // it does not do this
	Ignored     Why = "ignored"     // it said yes, and did nothing
	Answer      Why = "answer"      // what it says is no answer
	Untold      Why = "untold"      // it said yes, and then not what became of it
	Half        Why = "half"        // it did a part of it
)

// Fault is why, in a sentence that says what to do.
type Fault struct {
	Why Why
	Msg string
	Err error // the cause, for the log
}

// Error returns the sentence.
func (f *Fault) Error() string { return f.Msg }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// New makes a fault.
func New(why Why, err error, format string, args ...any) *Fault {
	return &Fault{Why: why, Err: err, Msg: fmt.Sprintf(format, args...)}
}

// Of returns why an error is one; empty when it says nothing of a BMC.
func Of(err error) Why {
	var f *Fault
	if errors.As(err, &f) {
		return f.Why
	}
	return ""
}

// Before reports an error that came before a BMC did anything; after any other it may
// have done what it was told.
func Before(err error) bool {
	var untrusted *store.UntrustedBMC
	switch Of(err) {
	case NoRoute, NoName, Closed, Password, Rights, Cipher, TLS, Certificate, Busy, Other, Unable:
		return true
	}
	return errors.As(err, &untrusted)
}

// Of the network, whatever is spoken over it. at is where the BMC should be, and
// port what a firewall would have to let through. It returns nil for an error
// that says nothing of the network.
func Network(err error, at, port string) *Fault {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return New(NoName, err, "the name of the BMC, %s, is unknown to this appliance's host; give its IP address, or mend the host's name service", dns.Name)
	case errors.Is(err, syscall.ENETUNREACH):
		return New(NoRoute, err, "no route leads from this appliance to the BMC at %s; give the host an address on that network, or a route to it", at)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return New(NoRoute, err, "nobody has the address of the BMC, %s, on its network; look at its cable and its address", at)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return New(NoRoute, err, "this appliance's own host does not let it speak to the BMC at %s; its firewall has to let out %s", at, port)
	case errors.Is(err, syscall.ECONNREFUSED):
		return New(Closed, err, "something is at %s, and it does not listen there: the BMC's service is switched off, or has another port; it would be %s", at, port)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return New(Silent, err, "the BMC at %s did not answer in time; it is off, busy with itself, elsewhere, or a firewall drops %s", at, port)
	case errors.Is(err, syscall.ECONNRESET):
		return New(Silent, err, "the BMC at %s ended the connection in the middle; it may be restarting: try again in a minute", at)
	}
	return nil
}

// OfTLS reads what became of a TLS handshake; nil for an error that is not about
// one.
func OfTLS(err error, at string) *Fault {
	var plain tls.RecordHeaderError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		return New(TLS, err, "what answers at %s speaks no TLS; a password is not sent to it. Give the port of its HTTPS service", at)
	case errors.As(err, &unknown):
		return New(Certificate, err, "nobody whom this appliance's host trusts vouches for the BMC at %s; pin its certificate instead: --bmc-trust pinned", at)
	case errors.As(err, &host):
		return New(Certificate, err, "the certificate of the BMC at %s is for another name: %s; write the address that it is for, or pin it: --bmc-trust pinned", at, host.Error())
	case errors.As(err, &invalid):
		return New(Certificate, err, "the certificate of the BMC at %s is not good: %s; give it a new one, or pin it: --bmc-trust pinned", at, invalid.Error())
	case errors.As(err, &alert), strings.Contains(fmt.Sprint(err), "tls: "):
		return New(TLS, err, "the BMC at %s and this appliance have no TLS in common, which has to be 1.2 or later with a sound key exchange (%s); newer firmware of the BMC may know one", at, last(err))
	}
	return nil
}

// last is the innermost cause, the shortest that still says what.
func last(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// Error makes what a caller of the appliance is told: which machine, and the
// sentence. What is the input's fault stays that.
func Error(machine string, err error) error {
	if err == nil {
		return nil
	}
	var known *store.Error
	if errors.As(err, &known) {
		return err
	}
	kind := store.KindUnavailable
	var untrusted *store.UntrustedBMC
	if errors.As(err, &untrusted) || Of(err) == Other || Of(err) == Unable {
		kind = store.KindConflict
	}
	return &store.Error{Kind: kind, Op: "power", Subject: machine, Err: err}
}

// maxWords bounds what of a BMC's own words is repeated.
const maxWords = 200

// Words makes what a BMC says fit for a sentence, or for the log.
func Words(s string) string { return store.OneLine(s, maxWords) }
