// Package redfish tells a BMC by Redfish (DMTF DSP0266) what to do with its
// system: over HTTPS, to the one system that is meant, within a deadline.
package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/common"
	"github.com/stmcginnis/gofish/redfish"

	"lunboot/services"
	"lunboot/services/power/fault"
	"lunboot/store"
)

// Target is the BMC, and which of its systems is meant.
type Target struct {
	BMC     store.BMC
	Machine string // its name here
	UUID    store.UUID
	Serial  string
	Log     *slog.Logger
}

// BMC is a login at a BMC, and the system that is meant.
type BMC struct {
	ctx    context.Context
	to     Target
	api    *gofish.APIClient
	system *redfish.ComputerSystem
	web    *http.Client
}

// maxSystems bounds the systems of one BMC that are looked at.
const maxSystems = 64

// pollEvery is how often a BMC is asked whether it did what it was told.
const pollEvery = 500 * time.Millisecond

// Open logs in and finds the system. Everything that follows ends with ctx.
func Open(ctx context.Context, to Target) (*BMC, error) {
	b := &BMC{ctx: ctx, to: to, web: newClient(to)}
	if err := b.guard("log in", b.open); err != nil {
		b.Close()
		return nil, b.explain(err)
	}
	return b, nil
}

// guard keeps a fault of the library in what a BMC made it decode inside this order.
func (b *BMC) guard(what string, do func() error) error {
	return services.Guard(b.to.Log, "Redfish: "+what, do)
}

func (b *BMC) open() error {
	cfg := gofish.ClientConfig{Endpoint: "https://" + b.to.BMC.HostPort(), HTTPClient: b.web, ReuseConnections: true, Username: b.to.BMC.User, Password: b.to.BMC.Secret}
	// A session costs one log line of the BMC for all requests (DSP0266 §13.3.4).
	// One that has none, or none left, takes the password with each (§13.3.3).
	var err error
	b.api, err = gofish.ConnectContext(b.ctx, cfg)
	if status := statusOf(err); err == nil && !b.hasSession() || status != 0 && status != http.StatusUnauthorized && status != http.StatusForbidden || noLogin(err) {
		cfg.BasicAuth = true
		b.api, err = gofish.ConnectContext(b.ctx, cfg)
	}
	if err != nil {
		return err
	}
	b.system, err = b.find()
	return err
}

func (b *BMC) hasSession() bool {
	s, err := b.api.GetSession()
	return err == nil && s.Token != ""
}

// noLogin reports an error that says that a service root names no place to log in
// at; it has no type in the library.
func noLogin(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no target provided")
}

// Close logs out, in a time of its own: BMCs have few sessions, and one that is
// left stays for half an hour.
func (b *BMC) Close() {
	if b.api != nil {
		if s, err := b.api.GetSession(); err == nil && strings.HasPrefix(s.ID, "/") {
			b.logout(s)
		}
	}
	b.web.CloseIdleConnections()
}

func (b *BMC) logout(s *gofish.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "https://"+b.to.BMC.HostPort()+s.ID, nil)
	if err != nil {
		return
	}
	req.Header.Set("X-Auth-Token", s.Token)
	// What cannot be ended ends by itself at the BMC.
	if resp, err := b.web.Do(req); err == nil {
		resp.Body.Close()
	}
}

// identity is what tells systems apart. No more is read of those that are not meant.
type identity struct {
	Link   string `json:"-"` // as the collection has it
	UUID   string
	Serial string `json:"SerialNumber"`
}

// find chooses the system: by its UUID, by its serial number, or the only one.
func (b *BMC) find() (*redfish.ComputerSystem, error) {
	links, err := b.links()
	if err != nil {
		return nil, err
	}
	var all []identity
	for _, l := range links {
		var s identity
		if err := b.get(l, &s); err != nil {
			return nil, err
		}
		all = append(all, identity{Link: l, UUID: fault.Words(s.UUID), Serial: fault.Words(s.Serial)})
	}
	link, err := b.choose(all)
	if err != nil {
		return nil, err
	}
	return redfish.GetComputerSystem(b.api, link)
}

func (b *BMC) choose(all []identity) (link string, err error) {
	for _, s := range all {
		if sameUUID(s.UUID, b.to.UUID) {
			return s.Link, nil
		}
	}
	for _, s := range all {
		if b.to.Serial != "" && strings.EqualFold(s.Serial, fault.Words(b.to.Serial)) {
			return s.Link, nil
		}
	}
	at := b.to.BMC.HostPort()
	switch {
	case len(all) == 0:
		return "", fault.New(fault.Answer, nil, "the BMC at %s lists no system that it could switch", at)
	case len(all) > 1:
		return "", fault.New(fault.Other, nil, "the BMC at %s has %d systems, and none is %s by its UUID or serial number; give the machine the one that its own is: %s", at, len(all), b.to.Machine, names(all))
	}
	u, err := store.ParseUUID(all[0].UUID)
	if err == nil && !u.IsPlaceholder() && !b.to.UUID.IsZero() {
		return "", fault.New(fault.Other, nil, "the BMC at %s belongs to the system %s, and %s is %s; nothing was done. Correct the BMC's address, or the machine's UUID", at, u, b.to.Machine, b.to.UUID)
	}
	return all[0].Link, nil
}

// links follows the collection of systems, from page to page.
func (b *BMC) links() ([]string, error) {
	var root struct {
		Systems struct {
			ID string `json:"@odata.id"`
		}
	}
	if err := b.get(common.DefaultServiceRoot, &root); err != nil {
		return nil, err
	}
	var out []string
	for next := root.Systems.ID; next != ""; {
		page, err := common.GetCollection(b.api, next)
		if err != nil {
			return nil, err
		}
		out = append(out, page.ItemLinks...)
		if len(out) > maxSystems || len(page.ItemLinks) == 0 && page.MembersNextLink != "" {
			return nil, fault.New(fault.Answer, nil, "the BMC at %s lists more than %d systems; name the BMC of one machine", b.to.BMC.HostPort(), maxSystems)
		}
		next = page.MembersNextLink
	}
	return out, nil
}

func (b *BMC) get(path string, into any) error {
	resp, err := b.api.Get(path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// sameUUID compares in both orders of bytes: SMBIOS turned that of the first
// three fields round in version 2.6 (DSP0134 §7.2.1), and not every BMC did.
func sameUUID(text string, u store.UUID) bool {
	v, err := store.ParseUUID(strings.TrimSpace(text))
	if err != nil || u.IsZero() || v.IsPlaceholder() {
		return false
	}
	turned := v
	slices.Reverse(turned[0:4])
	slices.Reverse(turned[4:6])
	slices.Reverse(turned[6:8])
	return v == u || turned == u
}

func names(all []identity) string {
	var out []string
	for _, s := range all[:min(len(all), 4)] {
		out = append(out, fault.Words(s.UUID+" "+s.Serial))
	}
	if len(all) > 4 {
		out = append(out, "…")
	}
	return strings.Join(out, ", ")
}

// reload reads the system anew, with the ETag of now.
func (b *BMC) reload() error {
	s, err := redfish.GetComputerSystem(b.api, b.system.ODataID)
	if err == nil {
		b.system = s
	}
	return err
}

// State asks whether the system is on.
func (b *BMC) State() (store.PowerState, error) {
	if err := b.guard("ask for the state", b.reload); err != nil {
		return store.PowerUnknown, b.explain(err)
	}
	return stateOf(b.system), nil
}

func stateOf(s *redfish.ComputerSystem) store.PowerState {
	switch s.PowerState {
	case redfish.OnPowerState, redfish.PausedPowerState:
		return store.PowerStateOn
	case redfish.OffPowerState:
		return store.PowerStateOff
	case redfish.PoweringOnPowerState, redfish.PoweringOffPowerState:
		return store.PowerStateMove
	}
	return store.PowerUnknown
}

// override is what of a system says where it boots from next.
type override struct {
	Boot struct {
		Enabled string   `json:"BootSourceOverrideEnabled"`
		Target  string   `json:"BootSourceOverrideTarget"`
		Allowed []string `json:"BootSourceOverrideTarget@Redfish.AllowableValues"`
	}
}

func (b *BMC) override() (o override, err error) {
	return o, json.Unmarshal(b.system.RawData, &o)
}

// BootNetworkOnce makes the next boot, and no other, one from the network. Whether
// by BIOS or UEFI stays as it is: another mode would start another system. A BMC
// that says yes and forgets it is found out.
func (b *BMC) BootNetworkOnce() error {
	return b.explain(b.guard("choose the next boot", b.bootNetworkOnce))
}

func (b *BMC) bootNetworkOnce() error {
	o, err := b.override()
	if err != nil {
		return err
	}
	if len(o.Boot.Allowed) > 0 && !slices.Contains(o.Boot.Allowed, string(redfish.PxeBootSourceOverrideTarget)) {
		return fault.New(fault.Unable, nil, "the BMC at %s cannot make the next boot one from the network, only from: %s; put the network first in the machine's firmware", b.to.BMC.HostPort(), fault.Words(strings.Join(o.Boot.Allowed, ", ")))
	}
	change := map[string]any{"Boot": map[string]any{
		"BootSourceOverrideEnabled": redfish.OnceBootSourceOverrideEnabled, "BootSourceOverrideTarget": redfish.PxeBootSourceOverrideTarget,
	}}
	err = b.system.Patch(b.system.ODataID, change)
	if statusOf(err) == http.StatusPreconditionFailed { // it changed since it was read, or the BMC's ETags are none
		if err = b.reload(); err == nil {
			b.system.DisableEtagMatch(true)
			err = b.system.Patch(b.system.ODataID, change)
		}
	}
	if err != nil {
		return err
	}
	var is string
	for range 4 { // some take a moment to show what they took
		if err := b.reload(); err != nil {
			return b.untold("that the next boot is one from the network", err)
		}
		if o, err = b.override(); err != nil {
			return b.untold("that the next boot is one from the network", err)
		}
		if o.Boot.Enabled == string(redfish.OnceBootSourceOverrideEnabled) && o.Boot.Target == string(redfish.PxeBootSourceOverrideTarget) {
			return nil
		}
		is = fault.Words(o.Boot.Enabled + " " + o.Boot.Target)
		if err := b.pause(); err != nil {
			return b.untold("that the next boot is one from the network", err)
		}
	}
	return fault.New(fault.Ignored, nil, "the BMC at %s took it that the next boot is one from the network, and does not show it (it says %q); the machine was left alone", b.to.BMC.HostPort(), is)
}

func (b *BMC) pause() error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(pollEvery):
		return nil
	}
}

// ways lists how an act is said, the best first.
func ways(act store.PowerAct) []redfish.ResetType {
	switch act {
	case store.PowerOn:
		return []redfish.ResetType{redfish.OnResetType, redfish.ForceOnResetType}
	case store.PowerOff:
		return []redfish.ResetType{redfish.ForceOffResetType}
	case store.PowerShutdown:
		return []redfish.ResetType{redfish.GracefulShutdownResetType, redfish.PushPowerButtonResetType}
	case store.PowerCycle:
		return []redfish.ResetType{redfish.PowerCycleResetType}
	case store.PowerReset:
		return []redfish.ResetType{redfish.ForceRestartResetType}
	}
	return nil
}

// way is what the system allows of the ways; empty when nothing. A system that
// lists nothing is taken to know the first.
func (b *BMC) way(act store.PowerAct) redfish.ResetType {
	for _, w := range ways(act) {
		if len(b.system.SupportedResetTypes) == 0 || slices.Contains(b.system.SupportedResetTypes, w) {
			return w
		}
	}
	return ""
}

// Do carries an act out on a system that is on or off as before says, and waits
// until the BMC shows what is to be seen of it.
func (b *BMC) Do(act store.PowerAct, before store.PowerState) error {
	return b.explain(b.guard("switch", func() error { return b.do(act, before) }))
}

func (b *BMC) do(act store.PowerAct, before store.PowerState) error {
	way := b.way(act)
	switch {
	case act == store.PowerCycle && way == "": // one that knows no cycle is switched off and on
		if b.way(store.PowerOn) == "" {
			return b.do(store.PowerOn, before) // it says what there is
		}
		if err := b.do(store.PowerOff, before); err != nil {
			return err
		}
		if err := b.do(store.PowerOn, store.PowerStateOff); err != nil {
			return fault.New(fault.Half, err, "%s was switched off, and not on again: %s", b.to.Machine, b.explain(err))
		}
		return nil
	case way == "":
		var allowed []string
		for _, t := range b.system.SupportedResetTypes {
			allowed = append(allowed, string(t))
		}
		return fault.New(fault.Unable, nil, "the BMC at %s does not do this to its system; it can: %s", b.to.BMC.HostPort(), fault.Words(strings.Join(allowed, ", ")))
	}
	b.system.DisableEtagMatch(true) // an act changes nothing that somebody else could have changed meanwhile
	if err := b.system.Reset(way); err != nil {
		return err
	}
	switch act {
	case store.PowerOn:
		return b.await(store.PowerStateOn, act)
	case store.PowerOff:
		return b.await(store.PowerStateOff, act)
	}
	return nil
}

// await asks until the system is in a state.
func (b *BMC) await(want store.PowerState, act store.PowerAct) error {
	for {
		is, err := b.State()
		if err != nil && b.ctx.Err() == nil {
			return b.untold(fmt.Sprintf("the order %q", act), err)
		}
		if is == want {
			return nil
		}
		if err := b.pause(); err != nil {
			return fault.New(fault.Ignored, err, "the BMC at %s took the order %q, and still says that %s is %s; look at the machine", b.to.BMC.HostPort(), act, b.to.Machine, orUnknown(stateOf(b.system)))
		}
	}
}

// untold is the error of a BMC that took something, and cannot be asked about it.
func (b *BMC) untold(what string, err error) error {
	return fault.New(fault.Untold, err, "the BMC at %s took %s, and does not say what became of it: %s", b.to.BMC.HostPort(), what, b.explain(err))
}

func orUnknown(s store.PowerState) string {
	if s == store.PowerUnknown {
		return "in a state that it does not know"
	}
	return string(s)
}

// statusOf is the HTTP status that an error speaks of; 0 for none.
func statusOf(err error) int {
	var e *common.Error
	if errors.As(err, &e) {
		return e.HTTPReturnedStatusCode
	}
	return 0
}

// explain makes an error of the library's a sentence.
func (b *BMC) explain(err error) error {
	var known *fault.Fault
	var untrusted *store.UntrustedBMC
	at := b.to.BMC.HostPort()
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known): // and not where it went wrong: that is the BMC's word, as long as it likes
		return known
	case errors.As(err, &untrusted):
		return untrusted
	case errors.Is(err, context.Canceled):
		return err
	}
	if f := fault.Network(err, at, "TCP "+port(at)); f != nil {
		return f
	}
	if f := fault.OfTLS(err, at); f != nil {
		return f
	}
	var said *common.Error
	if !errors.As(err, &said) || said.HTTPReturnedStatusCode == 0 {
		return fault.New(fault.Answer, err, "what answers at %s is no Redfish service that can be understood (%s); look whether it is the BMC's address, and its Redfish service is on", at, fault.Words(err.Error()))
	}
	switch code := said.HTTPReturnedStatusCode; {
	case code == http.StatusUnauthorized:
		return fault.New(fault.Password, err, "the BMC at %s does not let the user %s in by this password; give the right one: --bmc-secret", at, b.to.BMC.User)
	case code == http.StatusForbidden:
		return fault.New(fault.Rights, err, "the BMC at %s lets the user %s in, and not do this; it needs the role Operator", at, b.to.BMC.User)
	case code == http.StatusNotFound && b.system == nil:
		return fault.New(fault.Answer, err, "what answers at %s has no Redfish service; give the BMC's address, or use ipmi", at)
	case code == http.StatusServiceUnavailable, code == http.StatusTooManyRequests:
		return fault.New(fault.Busy, err, "the BMC at %s has no time now%s; try again in a minute", at, message(said))
	case code >= 500:
		return fault.New(fault.Answer, err, "the BMC at %s failed at it, status %d%s", at, code, message(said))
	}
	return fault.New(fault.Unable, err, "the BMC at %s refused it, status %d%s", at, said.HTTPReturnedStatusCode, message(said))
}

// message is what the BMC says of a refusal, in its own words.
func message(e *common.Error) string {
	text := e.Message
	for _, x := range e.ExtendedInfos {
		if x.Message != "" {
			text = x.Message
			break
		}
	}
	if text = fault.Words(text); text == "" {
		return ""
	}
	return ": " + text
}

func port(at string) string {
	return at[strings.LastIndexByte(at, ':')+1:]
}
