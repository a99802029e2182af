// Package ipmi tells a BMC by IPMI 2.0 over RMCP+ what to do with its chassis.
//
// It logs in with a cipher suite that proves both sides, protects what is sent
// and hides it, 17 or else 3 (IPMI 2.0 §22.15.2); the others are as good as no
// password. Every wait ends with the context.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bougou/go-ipmi"

	"lunboot/services"
	"lunboot/services/power/fault"
	"lunboot/store"
)

// Target is the BMC, and what is known of its machine.
type Target struct {
	BMC     store.BMC
	Machine string // its name here
	UEFI    bool   // its firmware, as it was last seen
	Log     *slog.Logger
}

// BMC is a session at a BMC.
type BMC struct {
	ctx    context.Context
	to     Target
	line   *line
	client *ipmi.Client
}

// How long an answer is waited for, and how often a request is sent again: UDP
// loses packets, and a BMC takes its time.
const (
	answerTime = 2 * time.Second
	sendAgain  = 1
	pollEvery  = 500 * time.Millisecond
)

// suites are the cipher suites that are asked for, the better first: RAKP with
// HMAC-SHA256 or HMAC-SHA1, and AES-CBC-128.
func suites() []ipmi.CipherSuiteID {
	return []ipmi.CipherSuiteID{ipmi.CipherSuiteID17, ipmi.CipherSuiteID3}
}

// Open logs in. Everything that follows ends with ctx.
func Open(ctx context.Context, to Target) (*BMC, error) {
	b := &BMC{ctx: ctx, to: to}
	// The library decodes what comes from a network: a fault of it ends this
	// order and no more.
	if err := b.guard("log in", b.login); err != nil {
		b.Close()
		return nil, b.explain(err)
	}
	return b, nil
}

func (b *BMC) guard(what string, do func() error) error {
	return services.Guard(b.to.Log, "IPMI: "+what, do)
}

func (b *BMC) login() error {
	host, port, err := net.SplitHostPort(b.to.BMC.HostPort())
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if b.line, err = dial(b.ctx, b.to.BMC.HostPort()); err != nil {
		return err
	}
	var said error // what the BMC says against a suite; nil when it says nothing at all
	var silent error
	for _, suite := range suites() {
		c, err := ipmi.NewClient(host, number, b.to.BMC.User, b.to.BMC.Secret)
		if err != nil {
			return err
		}
		// Operator is the least that may switch (IPMI 2.0, appendix G).
		c.WithUDPProxy(b.line).WithTimeout(answerTime).WithRetry(sendAgain, 0).WithCipherSuiteID(suite).WithMaxPrivilegeLevel(ipmi.PrivilegeLevelOperator)
		refused, err := b.session(c)
		switch {
		case err != nil:
			return err
		case refused == nil:
			b.client = c
			return nil
		case isTimeout(refused): // some do not answer to a suite that they do not know
			silent = refused
		default:
			said = refused
		}
	}
	if said == nil {
		return silent
	}
	return fault.New(fault.Cipher, said, "the BMC at %s takes neither of the cipher suites that are safe, 17 and 3; switch one of them on in the BMC's settings for IPMI over LAN", b.to.BMC.HostPort())
}

// session opens a session (§13.15). refused says that the BMC does not take the
// cipher suite, and another may be tried.
func (b *BMC) session(c *ipmi.Client) (refused, err error) {
	open, err := c.OpenSession(b.ctx)
	switch {
	case isTimeout(err), err != nil && suiteRefused(b.line.said):
		return err, nil
	case err != nil:
		return nil, err
	case open.AuthAlg == uint8(ipmi.AuthAlgRAKP_None) || open.IntegrityAlg == uint8(ipmi.IntegrityAlg_None) || open.CryptAlg == uint8(ipmi.CryptAlg_None):
		return errors.New("the BMC answers with a cipher suite that protects nothing"), nil
	}
	// The BMC proves that it knows the password before we do.
	if proof, err := c.RAKPMessage1(b.ctx); proof != nil && err != nil {
		return nil, b.wrongPassword()
	} else if err != nil && suiteRefused(b.line.said) {
		return err, nil
	} else if err != nil {
		return nil, err
	}
	if _, err := c.RAKPMessage3(b.ctx); err != nil {
		return nil, b.unproven(err)
	}
	_, err = c.SetSessionPrivilegeLevel(b.ctx, ipmi.PrivilegeLevelOperator)
	return nil, err
}

// suiteRefused lists the answers that are about the cipher suite (table 13-15).
func suiteRefused(code ipmi.RmcpStatusCode) bool {
	return slices.Contains([]ipmi.RmcpStatusCode{
		ipmi.RmcpStatusCodeInvalidAuthAlg, ipmi.RmcpStatusCodeInvalidIntegrityAlg, ipmi.RmcpStatusCodeInvalidConfidentAlg,
		ipmi.RmcpStatusCodeNoMatchingAuthPayload, ipmi.RmcpStatusCodeNoMatchingIntegrityPayload, ipmi.RmcpStatusCodeNoCipherSuiteMatch,
	}, code)
}

// wrongPassword keeps no cause: the library's tells proofs of the password, from
// which it can be guessed.
func (b *BMC) wrongPassword() error {
	return fault.New(fault.Password, nil, "the BMC at %s does not let the user %s in by this password; give the right one: --bmc-secret", b.to.BMC.HostPort(), b.to.BMC.User)
}

// unproven is what keeps the last message of a login from being good. Of the
// library's error no more is kept than what is the network's: it too may tell proofs
// of the password.
func (b *BMC) unproven(err error) error {
	var n net.Error
	switch said := b.line.said; {
	case errors.As(err, &n):
		return n
	case said != ipmi.RmcpStatusCodeNoErrors || b.ctx.Err() != nil:
		return fmt.Errorf("RAKP message 4 has the status %#02x", uint8(said))
	}
	return fault.New(fault.Answer, nil, "the BMC at %s does not prove that it knows the password of the user %s; something between it and this appliance may change what is sent, or another answers at its address", b.to.BMC.HostPort(), b.to.BMC.User)
}

// Close ends the session, which a BMC has few of, in a time of its own.
func (b *BMC) Close() {
	if b.line == nil {
		return
	}
	if b.client != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), answerTime)
		defer cancel()
		b.line.until(ctx)
		// A session that cannot be ended ends by itself after a minute.
		b.guard("log out", func() error { return b.client.Close(ctx) })
	}
	b.line.end()
}

// State asks whether the chassis is on (§28.2).
func (b *BMC) State() (state store.PowerState, err error) {
	err = b.guard("ask for the state", func() error {
		s, err := b.client.GetChassisStatus(b.ctx)
		if err != nil {
			return err
		}
		if state = store.PowerStateOff; s.PowerIsOn {
			state = store.PowerStateOn
		}
		return nil
	})
	return state, b.explain(err)
}

// BootNetworkOnce makes the next boot, and no other, one from the network (§28.12),
// by the firmware that the machine was last seen with. A BMC that says yes and
// forgets it is found out.
func (b *BMC) BootNetworkOnce() error {
	var is ipmi.BootOptionParam_BootFlags
	took := false
	err := b.guard("choose the next boot", func() error {
		// The BIOS is told that there is news (parameter 4); a BMC without that
		// parameter has the flags all the same.
		ack := &ipmi.BootOptionParam_BootInfoAcknowledge{ByBIOSPOST: true}
		if err := b.client.SetSystemBootOptionsParamFor(b.ctx, ack); err != nil && codeOf(err) == 0 {
			return err
		}
		if err := b.client.SetSystemBootOptionsParamFor(b.ctx, networkOnce(b.to.UEFI)); err != nil {
			return err
		}
		took = true
		return b.client.GetSystemBootOptionsParamFor(b.ctx, &is)
	})
	if err != nil && took {
		return b.untold("that the next boot is one from the network", err)
	}
	if err != nil {
		return b.explain(err)
	}
	if is.BootDeviceSelector != ipmi.BootDeviceSelectorForcePXE || is.Persist {
		return fault.New(fault.Ignored, nil, "the BMC at %s took it that the next boot is one from the network, and does not show it; the machine was left alone", b.to.BMC.HostPort())
	}
	return nil
}

// networkOnce are the boot flags (table 28-14, parameter 5).
func networkOnce(uefi bool) *ipmi.BootOptionParam_BootFlags {
	return &ipmi.BootOptionParam_BootFlags{BootFlagsValid: true, BIOSBootType: ipmi.BIOSBootType(uefi), BootDeviceSelector: ipmi.BootDeviceSelectorForcePXE}
}

// orders are the acts as the standard says them (§28.3).
func orders(act store.PowerAct) (ipmi.ChassisControl, bool) {
	switch act {
	case store.PowerOn:
		return ipmi.ChassisControlPowerUp, true
	case store.PowerOff:
		return ipmi.ChassisControlPowerDown, true
	case store.PowerShutdown:
		return ipmi.ChassisControlSoftShutdown, true
	case store.PowerCycle:
		return ipmi.ChassisControlPowerCycle, true
	case store.PowerReset:
		return ipmi.ChassisControlHardReset, true
	}
	return 0, false
}

// Do carries an act out on a chassis that is on or off as before says, and waits
// until the BMC shows what is to be seen of it.
func (b *BMC) Do(act store.PowerAct, before store.PowerState) error {
	order, ok := orders(act)
	if !ok {
		return fault.New(fault.Unable, nil, "there is no order %q in IPMI", act)
	}
	err := b.guard("switch", func() error {
		_, err := b.client.ChassisControl(b.ctx, order)
		return err
	})
	// Some BMCs know no cycle, which the standard leaves open.
	if act == store.PowerCycle && codeOf(err) != 0 && codeOf(err) != ipmi.CompletionCodeCannotExecuteCommandSecurityRestrict && before == store.PowerStateOn {
		if err := b.Do(store.PowerOff, before); err != nil {
			return err
		}
		if err := b.Do(store.PowerOn, store.PowerStateOff); err != nil {
			return fault.New(fault.Half, err, "%s was switched off, and not on again: %s", b.to.Machine, err)
		}
		return nil
	}
	if err != nil {
		return b.explain(err)
	}
	switch act {
	case store.PowerOn:
		return b.await(store.PowerStateOn, act)
	case store.PowerOff:
		return b.await(store.PowerStateOff, act)
	}
	return nil
}

// await asks until the chassis is in a state.
func (b *BMC) await(want store.PowerState, act store.PowerAct) error {
	for {
		is, err := b.State()
		if err != nil && b.ctx.Err() == nil {
			return b.untold(fmt.Sprintf("the order %q", act), err)
		}
		if err == nil && is == want {
			return nil
		}
		select {
		case <-b.ctx.Done():
			return fault.New(fault.Ignored, b.ctx.Err(), "the BMC at %s took the order %q, and still says that %s is not %s; look at the machine", b.to.BMC.HostPort(), act, b.to.Machine, want)
		case <-time.After(pollEvery):
		}
	}
}

// untold is the error of a BMC that took something, and cannot be asked about it.
func (b *BMC) untold(what string, err error) error {
	return fault.New(fault.Untold, err, "the BMC at %s took %s, and does not say what became of it: %s", b.to.BMC.HostPort(), what, b.explain(err))
}

// codeOf is the completion code of an error; 0 for one without.
func codeOf(err error) ipmi.CompletionCode {
	var e *ipmi.ResponseError
	if errors.As(err, &e) {
		return e.CompletionCode()
	}
	return 0
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// explain makes an error of the library's a sentence.
func (b *BMC) explain(err error) error {
	at := b.to.BMC.HostPort()
	var known *fault.Fault
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(b.ctx.Err(), context.Canceled):
		return b.ctx.Err()
	case b.ctx.Err() != nil: // the library forgets why
		err = errors.Join(err, b.ctx.Err())
	}
	if f := fault.Network(err, at, "UDP "+at[strings.LastIndexByte(at, ':')+1:]); f != nil {
		if f.Why == fault.Silent {
			f.Msg += "; IPMI over LAN may have to be switched on in the BMC's settings"
		}
		return f
	}
	said := ipmi.RmcpStatusCodeNoErrors
	if b.line != nil && b.client == nil {
		said = b.line.said
	}
	switch {
	case said == ipmi.RmcpStatusCodeUnauthorizedName, said == ipmi.RmcpStatusCodeInvalidIntegrityCheckValue:
		return b.wrongPassword()
	case said == ipmi.RmcpStatusCodeUnauthorizedRoleOfPriLevel, said == ipmi.RmcpStatusCodeInvalidRole, codeOf(err) == ipmi.CompletionCodeCannotExecuteCommandSecurityRestrict:
		return fault.New(fault.Rights, err, "the BMC at %s lets the user %s in, and not do this; it needs the privilege level Operator on the LAN channel", at, b.to.BMC.User)
	case said == ipmi.RmcpStatusCodeNoResToCreateSess, said == ipmi.RmcpStatusCodeNoResToCreateSessAtRole, codeOf(err) == ipmi.CompletionCodeNodeBusy:
		return fault.New(fault.Busy, err, "the BMC at %s has no session left to give; try again in a minute", at)
	case codeOf(err) == ipmi.CompletionCodeInvalidCommand, codeOf(err) == ipmi.CompletionCodeRequestDataFieldInvalid, codeOf(err) == ipmi.CompletionCodeParameterOutOfRange:
		return fault.New(fault.Unable, err, "the BMC at %s does not know how to do this (%#02x)", at, uint8(codeOf(err)))
	case codeOf(err) != 0:
		return fault.New(fault.Answer, err, "the BMC at %s refused it with the completion code %#02x", at, uint8(codeOf(err)))
	}
	return fault.New(fault.Answer, err, "what answers at %s is no IPMI 2.0 BMC that can be understood; look whether it is the BMC's address", at)
}
