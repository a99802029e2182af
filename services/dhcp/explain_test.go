package dhcp

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// told is what an explanation says of one field or option.
func told(e store.OfferExplanation, option int, name string) string {
	for _, f := range e.Fields {
		if f.Option == option && (option != 0 || f.Name == name) {
			return f.Value
		}
	}
	return ""
}

func TestADryRunSaysWhatIsThenAnsweredAndDoesNothing(t *testing.T) {
	reserved := store.Machine{Name: "lab-03", MACs: []store.MAC{mac(1)}, Profile: "san", Address: ip("10.77.0.50")}
	for _, q := range []store.OfferQuery{
		{MAC: mac(1), Arch: 0}, {MAC: mac(1), Arch: 7, UUID: store.UUID{1, 2, 3, 4, 5, 6, 7, 8, 9}}, {MAC: mac(1), Arch: 16}, {MAC: mac(1), Arch: 7, IPXE: true},
		{MAC: mac(2), Arch: 0}, {MAC: mac(2), Arch: 0, IPXE: true}, {MAC: mac(2), Arch: 10}, {MAC: mac(2), Arch: 7, Relay: ip("10.88.0.1")},
	} {
		t.Run(fmt.Sprintf("%s type %d iPXE %v relay %v", q.MAC, q.Arch, q.IPXE, q.Relay), func(t *testing.T) {
			v := newInventory(newClock().Now, reserved)
			cfg := v.config(t, lab())
			cfg.Relayed = []store.Subnet{behind()}
			s := start(t, cfg)
			e, ok, err := s.ExplainOffer(t.Context(), q)
			require.NoError(t, err)
			require.True(t, ok)
			assert.Zero(t, v.writes())
			assert.Empty(t, v.kinds(), "a dry run tells nobody")
			turn, err := s.ledger.Begin(t.Context(), v.now())
			require.NoError(t, err)
			assert.False(t, turn.Offered(q.MAC, lab().Prefix).IsValid(), "a dry run holds no address")
			turn.End()

			p, err := sample(q)
			require.NoError(t, err)
			offer := dial(t, s).ask(p)
			require.Equal(t, "DHCPOFFER", e.Verdict, e.Why)
			assert.Equal(t, message.AddrOf(offer.YourIPAddr), e.Address)
			assert.Equal(t, offer.YourIPAddr.String(), told(e, 0, "yiaddr"))
			assert.Equal(t, offer.BootFileName, e.File)
			assert.Equal(t, offer.BootFileName, told(e, 0, "file"))
			codes := 0
			for _, f := range e.Fields {
				if f.Option == 0 {
					continue
				}
				codes++
				assert.Equal(t, optionText(uint8(f.Option), offer.Options.Get(dhcpv4.GenericOptionCode(f.Option))), f.Value, "option %d", f.Option)
				assert.NotEmpty(t, f.Name)
				if f.Option != 53 && f.Option != 67 {
					assert.NotEmpty(t, f.Why, "option %d", f.Option)
				}
			}
			assert.Len(t, offer.Options, codes, "every option is listed, and no other")
			assert.Equal(t, q.IPXE, e.Client == "iPXE")
			assert.Equal(t, "full", e.Mode)
		})
	}
}

// A relay that there is no way to is told of when it asks, not when somebody wonders
// what it would be told.
func TestADryRunLogsNothing(t *testing.T) {
	if !alone(t) { // where there are no routes
		return
	}
	var log bytes.Buffer
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := New(cfg)
	s.link.Store(&Interface{Name: "lab0", Address: ip("10.77.0.1"), MTU: 1500})
	for range 2 {
		e, ok, err := s.ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(2), Arch: 7, Relay: ip("10.88.0.1")})
		require.NoError(t, err)
		require.True(t, ok)
		assert.Equal(t, "DHCPOFFER", e.Verdict, e.Why)
	}
	assert.Empty(t, log.String())
	at, ok := s.place(message.Request{Type: dhcpv4.MessageTypeDiscover, MAC: mac(2), GIAddr: ip("10.88.0.1")}, netip.Addr{})
	require.True(t, ok)
	assert.Equal(t, ip("10.77.0.1"), at.told)
	assert.Contains(t, log.String(), "no route to a relay", "a request finds it out for itself")
}

// What a dry run imagines is what firmware and iPXE send: its answer has every
// option of the answer to them, and no other.
func TestADryRunAsksAsRealClientsDo(t *testing.T) {
	for name, q := range map[string]store.OfferQuery{
		"ovmf-pxe-discover":  {Arch: 7},
		"ovmf-http-discover": {Arch: 16},
		"undionly-discover":  {Arch: 0, IPXE: true},
		"bios-rom-discover":  {Arch: 0, IPXE: true},
		"snponly-discover":   {Arch: 7, IPXE: true},
	} {
		t.Run(name, func(t *testing.T) {
			real := parsed(t, name)
			r := mustDecode(t, captured(t)[name])
			q.MAC, q.UUID = r.MAC, r.UUID
			p, err := sample(q)
			require.NoError(t, err)
			var sends, imagines []uint8
			for code := range real.Options {
				sends = append(sends, code)
			}
			for code, value := range p.Options {
				imagines = append(imagines, code)
				if code != message.OptionIPXE.Code() { // it names versions and cards
					assert.Equal(t, real.Options[code], value, "option %d", code)
				}
			}
			assert.ElementsMatch(t, sends, imagines)

			v := newInventory(newClock().Now)
			s := start(t, v.config(t, lab()))
			e, ok, err := s.ExplainOffer(t.Context(), q)
			require.NoError(t, err)
			require.True(t, ok)
			offer := dial(t, s).ask(real)
			codes := 0
			for _, f := range e.Fields {
				if f.Option != 0 {
					codes++
					assert.Equal(t, optionText(uint8(f.Option), offer.Options.Get(dhcpv4.GenericOptionCode(f.Option))), f.Value, "option %d", f.Option)
				}
			}
			assert.Len(t, offer.Options, codes, "every option is listed, and no other")
		})
	}
}

func TestADryRunSaysWhereAnAddressComesFrom(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, store.Machine{Name: "lab-03", MACs: []store.MAC{mac(1)}, Profile: "san", Address: ip("10.77.0.50")})
	s := start(t, v.config(t, lab()))
	why := func(n int) string {
		e, ok, err := s.ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(n)})
		require.NoError(t, err)
		require.True(t, ok)
		return e.Fields[0].Why
	}
	assert.Equal(t, "the machine's reserved address", why(1))
	assert.Contains(t, why(2), "a free one of the range")
	c := dial(t, s)
	c.ask(discover(2))
	assert.Equal(t, "it was offered this a moment ago", why(2))
	c.bind(2)
	assert.Contains(t, why(2), "its lease, until ")
	clock.pass(48 * time.Hour)
	assert.Equal(t, "the address that it had last", why(2))
}

func TestADryRunSaysWhyThereIsNothing(t *testing.T) {
	v := newInventory(newClock().Now)
	n := lab()
	n.Range = mustRange("10.77.0.100-10.77.0.100")
	s := start(t, v.config(t, n))
	dial(t, s).bind(1)
	e, ok, err := s.ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(2)})
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, "nothing", e.Verdict)
	assert.NotEmpty(t, e.Why)
	assert.Empty(t, e.Fields)

	_, ok, err = s.ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(2), Relay: netip.MustParseAddr("10.66.0.1")})
	require.NoError(t, err)
	assert.False(t, ok, "a relay of a network that nobody knows")

	_, _, err = s.ExplainOffer(t.Context(), store.OfferQuery{MAC: store.MAC{1}})
	assert.Equal(t, store.KindInvalid, store.KindOf(err), "a group address asks for nothing")

	_, ok, err = New(v.config(t, n)).ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(2)})
	require.NoError(t, err)
	assert.False(t, ok, "a server that does not listen answers nobody")
}

func TestADryRunInProxyModeSaysWhatToBootAndNoAddress(t *testing.T) {
	quirky := store.Machine{Name: "old", MACs: []store.MAC{mac(2)}, Profile: "san", Quirks: []store.Quirk{store.QuirkNoProxyOffer}}
	v := newInventory(newClock().Now, quirky)
	n := lab()
	n.Mode, n.Range = store.DHCPProxy, store.Range{}
	s := start(t, v.config(t, n))
	for _, q := range []store.OfferQuery{{MAC: mac(1), Arch: 0}, {MAC: mac(1), Arch: 7}, {MAC: mac(1), Arch: 16}, {MAC: mac(1), Arch: 7, IPXE: true}} {
		e, ok, err := s.ExplainOffer(t.Context(), q)
		require.NoError(t, err)
		require.True(t, ok)
		assert.Empty(t, v.kinds())
		p, err := sample(q)
		require.NoError(t, err)
		offer := dial(t, s).ask(p)
		assert.Equal(t, "proxy", e.Mode)
		assert.False(t, e.Address.IsValid())
		assert.Contains(t, e.Why, "another server gives the address")
		assert.Equal(t, offer.BootFileName, e.File)
		for _, f := range e.Fields {
			if f.Option != 0 {
				assert.Equal(t, optionText(uint8(f.Option), offer.Options.Get(dhcpv4.GenericOptionCode(f.Option))), f.Value, "option %d", f.Option)
			}
		}
		v.await(t, 2)
		v.kinds()
	}
	// Firmware that takes no such offer asks our port 4011.
	e, ok, err := s.ExplainOffer(t.Context(), store.OfferQuery{MAC: mac(2), Arch: 0})
	require.NoError(t, err)
	require.True(t, ok)
	assert.Equal(t, "BIOS x86 firmware on port 4011", e.Client)
	assert.Equal(t, "DHCPACK", e.Verdict)
	assert.Contains(t, e.File, "undionly.kpxe")
}
