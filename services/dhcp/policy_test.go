package dhcp

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"

	"lunboot/services/boot"
	"lunboot/services/dhcp/bootfile"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// base is a request of the machine mac(1), enrolled, on a subnet where nothing
// has been given yet and .100 is free.
func base(kind dhcpv4.MessageType) Input {
	return Input{
		Now: noon, Request: message.Request{Type: kind, MAC: mac(1), XID: 7, Class: "udhcp 1.35.0"},
		Interface: Interface{Name: "lab0", Address: ip("10.77.0.1"), MTU: 1500}, Subnet: lab(),
		Client:    Client{Machine: store.Machine{ID: 1, Name: "m1", Profile: store.DefaultProfile}, Enrolled: true},
		Addresses: map[netip.Addr]Address{},
		Free:      Free{Address: ip("10.77.0.100")},
		Boot:      bootfile.Source{Address: netip.MustParseAddrPort("10.77.0.1:80"), Next: shelf(boot.Undionly, boot.SNPOnly)},
	}
}

// shelf chooses among these loaders; nothing was learnt of them.
func shelf(have ...boot.Loader) func(boot.Hardware, string) boot.Pick {
	var all []boot.Available
	for _, l := range have {
		all = append(all, boot.Available{Loader: l, Platform: l.Platform(), NoISCSI: l == boot.IPXEARM64})
	}
	return func(h boot.Hardware, own string) boot.Pick {
		return boot.Choose(boot.Question{Hardware: h, Own: own, Shelf: all})
	}
}

// with applies changes to an input.
func with(in Input, changes ...func(*Input)) Input {
	in.Addresses = maps.Clone(in.Addresses)
	for _, f := range changes {
		f(&in)
	}
	return in
}

func bind(address string, owner int, until time.Duration) store.Lease {
	return store.Lease{Address: ip(address), MAC: mac(owner), State: store.LeaseBound, Expires: noon.Add(until)}
}

// holds makes mac(1) the owner of a lease.
func holds(address string, until time.Duration) func(*Input) {
	return func(in *Input) {
		in.Own = bind(address, 1, until)
		in.fact(address, func(f *Address) { f.Lease = in.Own })
	}
}

func fact(address string, change func(*Address)) func(*Input) {
	return func(in *Input) { in.fact(address, change) }
}

func (in *Input) fact(address string, change func(*Address)) {
	f := in.Addresses[ip(address)]
	change(&f)
	in.Addresses[ip(address)] = f
}

func reserved(address string) func(*Input) {
	return func(in *Input) {
		in.Client.Machine.Address = ip(address)
		in.fact(address, func(f *Address) { f.ReservedTo = 1 })
	}
}

func asks(address string) func(*Input)    { return func(in *Input) { in.Request.Requested = ip(address) } }
func runsOn(address string) func(*Input)  { return func(in *Input) { in.Request.CIAddr = ip(address) } }
func chooses(server string) func(*Input)  { return func(in *Input) { in.Request.ServerID = ip(server) } }
func offered(address string) func(*Input) { return func(in *Input) { in.Offered = ip(address) } }
func notEnrolled(in *Input)               { in.Client = Client{} }
func noneFree(in *Input)                  { in.Free = Free{Reason: "all taken"} }

func others(address string, until time.Duration) func(*Input) {
	return fact(address, func(f *Address) { f.Lease = bind(address, 2, until) })
}

func usedNow(address string) func(*Input) {
	return fact(address, func(f *Address) { f.InUse = true })
}

func TestDiscoverOffers(t *testing.T) {
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"a free address to a new machine":                        {base(dhcpv4.MessageTypeDiscover), "10.77.0.100"},
		"the reserved address, outside the range":                {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7")), "10.77.0.7"},
		"the reserved address before the lease held":             {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), holds("10.77.0.101", time.Hour)), "10.77.0.7"},
		"the lease that it holds":                                {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", time.Hour)), "10.77.0.102"},
		"the lease that it held, while nobody else has it":       {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", -time.Hour)), "10.77.0.102"},
		"what it was offered a moment ago":                       {with(base(dhcpv4.MessageTypeDiscover), offered("10.77.0.103")), "10.77.0.103"},
		"the lease from which its volume is still open":          {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", -time.Hour), usedNow("10.77.0.102")), "10.77.0.102"},
		"what the pool has to one that is no machine's any more": {with(base(dhcpv4.MessageTypeDiscover), notEnrolled, holds("10.77.0.102", -time.Hour)), "10.77.0.100"},
		"its lease to one that is no machine's":                  {with(base(dhcpv4.MessageTypeDiscover), notEnrolled, holds("10.77.0.102", time.Hour)), "10.77.0.102"},
		"another while somebody holds the reserved address":      {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), others("10.77.0.7", time.Hour)), "10.77.0.100"},
		"the reserved address once that lease ended":             {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), others("10.77.0.7", -time.Minute)), "10.77.0.7"},
		"another while a volume is open from the reserved one":   {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), others("10.77.0.7", -time.Minute), usedNow("10.77.0.7")), "10.77.0.100"},
		"another instead of a reserved address of other subnets": {with(base(dhcpv4.MessageTypeDiscover), func(in *Input) { in.Client.Machine.Address = ip("10.99.0.7") }), "10.77.0.100"},
		"another instead of one that was declined": {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", time.Minute), func(in *Input) {
			in.fact("10.77.0.102", func(f *Address) { f.Lease.State = store.LeaseDeclined })
		}), "10.77.0.100"},
		"another instead of one that answers on the wire":        {with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), fact("10.77.0.7", func(f *Address) { f.Conflict = true })), "10.77.0.100"},
		"another instead of its own that somebody else took":     {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", -time.Hour), fact("10.77.0.102", func(f *Address) { f.Conflict = true })), "10.77.0.100"},
		"its own that another card answers for, its volume open": {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", -time.Hour), usedNow("10.77.0.102"), fact("10.77.0.102", func(f *Address) { f.Conflict = true })), "10.77.0.102"},
		"another instead of one that the range lost":             {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.200", time.Hour)), "10.77.0.100"},
		"another instead of one reserved to a machine":           {with(base(dhcpv4.MessageTypeDiscover), holds("10.77.0.102", time.Hour), fact("10.77.0.102", func(f *Address) { f.ReservedTo = 2 })), "10.77.0.100"},
	} {
		t.Run(name, func(t *testing.T) {
			ans := Decide(c.in)
			assert.Equal(t, Offer, ans.Verdict, ans.Reason)
			assert.Equal(t, c.want, ans.Address.String())
			assert.True(t, ans.Hold)
			assert.Zero(t, ans.Lease, "an offer writes nothing")
			assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPOffer}, kinds(ans)[:2])
		})
	}
}

func TestDiscoverWithoutAnAddressSaysWhy(t *testing.T) {
	ans := Decide(with(base(dhcpv4.MessageTypeDiscover), noneFree))
	assert.Equal(t, Drop, ans.Verdict)
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPNoAddress}, kinds(ans))
	assert.Equal(t, "all taken", ans.Events[1].Detail.Reason)
}

// Its reserved address is used by somebody else, and the range has no other: it is
// given all the same, and what is wrong is said to be that.
func TestATakenReservedAddressIsGivenForWantOfAnother(t *testing.T) {
	taken := fact("10.77.0.7", func(f *Address) { f.Conflict, f.By = true, store.MAC{0x52, 0x54, 0, 0, 0, 9} })
	discover := with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), taken, noneFree)
	ans := Decide(discover)
	assert.Equal(t, Offer, ans.Verdict, ans.Reason)
	assert.Equal(t, ip("10.77.0.7"), ans.Address)
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPOffer, store.EventDHCPConflict}, kinds(ans))
	ask := with(base(dhcpv4.MessageTypeRequest), reserved("10.77.0.7"), taken, noneFree, chooses("10.77.0.1"), asks("10.77.0.7"))
	assert.Equal(t, Ack, Decide(with(ask, offered("10.77.0.7"))).Verdict)
	assert.Equal(t, Ack, Decide(with(ask, holds("10.77.0.7", time.Hour))).Verdict, "it repeats its REQUEST when the ACK was lost")
	assert.Equal(t, Nak, Decide(with(ask, holds("10.77.0.7", -time.Hour))).Verdict)

	// Another machine has it by our own doing: there is none to give, and both are said.
	ans = Decide(with(discover, others("10.77.0.7", time.Hour)))
	assert.Equal(t, Drop, ans.Verdict)
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPConflict, store.EventDHCPNoAddress}, kinds(ans))
	assert.Equal(t, "52:54:00:00:00:09", ans.Events[1].Detail.Server)
}

// RFC 2131 §4.3.2 and table 4: the states of a client, and what each is told.
func TestRequest(t *testing.T) {
	const us, other = "10.77.0.1", "10.77.0.2"
	request := base(dhcpv4.MessageTypeRequest)
	for name, c := range map[string]struct {
		in      Input
		verdict Verdict
	}{
		"selecting: our offer":                                  {with(request, chooses(us), asks("10.77.0.100"), offered("10.77.0.100")), Ack},
		"selecting: an offer forgotten by a restart":            {with(request, chooses(us), asks("10.77.0.100")), Ack},
		"selecting: forgotten, and the pool is kept for others": {with(request, chooses(us), asks("10.77.0.100"), noneFree), Nak},
		"selecting: an address of somebody else":                {with(request, chooses(us), asks("10.77.0.101"), others("10.77.0.101", time.Hour)), Nak},
		"selecting: an address offered to somebody else":        {with(request, chooses(us), asks("10.77.0.101"), fact("10.77.0.101", func(f *Address) { f.OfferedTo = mac(2) })), Nak},
		"selecting: our own address":                            {with(request, chooses(us), asks(us), fact(us, func(f *Address) { f.Appliance = true })), Nak},
		"selecting: the network's address":                      {with(request, chooses(us), asks("10.77.0.0")), Nak},
		"selecting: an address of nowhere":                      {with(request, chooses(us), asks("192.168.1.1")), Nak},
		"selecting: the address in ciaddr":                      {with(request, chooses(us), runsOn("10.77.0.100"), offered("10.77.0.100")), Ack},
		"selecting: no address":                                 {with(request, chooses(us)), Drop},
		"selecting: another server":                             {with(request, chooses(other), asks("10.77.0.100"), offered("10.77.0.101")), Drop},

		"init-reboot: its lease":                              {with(request, asks("10.77.0.100"), holds("10.77.0.100", time.Hour)), Ack},
		"init-reboot: its lease that ended, still free":       {with(request, asks("10.77.0.100"), holds("10.77.0.100", -time.Hour)), Ack},
		"init-reboot: its reserved address":                   {with(request, asks("10.77.0.7"), reserved("10.77.0.7")), Ack},
		"init-reboot: its lease, but another is reserved":     {with(request, asks("10.77.0.100"), holds("10.77.0.100", time.Hour), reserved("10.77.0.7")), Nak},
		"init-reboot: the same, with its volume open":         {with(request, asks("10.77.0.100"), holds("10.77.0.100", time.Hour), reserved("10.77.0.7"), usedNow("10.77.0.100")), Ack},
		"init-reboot: another address than its lease":         {with(request, asks("10.77.0.101"), holds("10.77.0.100", time.Hour)), Nak},
		"init-reboot: what somebody else has by now":          {with(request, asks("10.77.0.101"), others("10.77.0.101", time.Hour)), Nak},
		"init-reboot: nobody knows it, so silence":            {with(request, asks("10.77.0.100")), Drop},
		"init-reboot: outside the range and unknown: silence": {with(request, asks("10.77.0.200")), Drop},
		"init-reboot: outside the subnet, so silence":         {with(request, asks("192.168.1.50")), Drop},
		"init-reboot: outside the subnet in spite of a lease": {with(request, asks("192.168.1.50"), holds("10.77.0.100", time.Hour)), Drop},

		"renewing: its lease":                                  {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", time.Minute)), Ack},
		"renewing: its lease that ended, still free":           {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", -time.Minute)), Ack},
		"renewing: a lease that we lost":                       {with(request, runsOn("10.77.0.100")), Ack},
		"renewing: nobody knows it, and it is no machine's":    {with(request, runsOn("10.77.0.100"), notEnrolled), Drop},
		"renewing: another than its lease, and no machine's":   {with(request, runsOn("10.77.0.100"), notEnrolled, holds("10.77.0.101", time.Hour)), Drop},
		"renewing: its lease, and it is no machine's":          {with(request, runsOn("10.77.0.101"), notEnrolled, holds("10.77.0.101", time.Hour)), Ack},
		"renewing: what somebody else has by now":              {with(request, runsOn("10.77.0.100"), others("10.77.0.100", time.Hour)), Nak},
		"renewing: its volume is open, and its row is gone":    {with(request, runsOn("10.77.0.100"), usedNow("10.77.0.100"), noneFree), Ack},
		"renewing: its lease, but another is reserved":         {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour), reserved("10.77.0.7")), Ack},
		"renewing: what is reserved to another machine":        {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour), fact("10.77.0.100", func(f *Address) { f.ReservedTo = 2 })), Nak},
		"renewing: the same, with its volume open":             {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour), usedNow("10.77.0.100"), fact("10.77.0.100", func(f *Address) { f.ReservedTo = 2 })), Ack},
		"renewing: its lease, which somebody else uses, too":   {with(request, runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour), fact("10.77.0.100", func(f *Address) { f.Conflict = true })), Ack},
		"init-reboot: its lease, which somebody else uses":     {with(request, asks("10.77.0.100"), holds("10.77.0.100", time.Hour), fact("10.77.0.100", func(f *Address) { f.Conflict = true })), Nak},
		"renewing: outside the range by now, its volume open":  {with(request, runsOn("10.77.0.200"), holds("10.77.0.200", time.Hour), usedNow("10.77.0.200")), Ack},
		"renewing: outside the range by now":                   {with(request, runsOn("10.77.0.200"), holds("10.77.0.200", time.Hour)), Nak},
		"renewing: a static address: silence":                  {with(request, runsOn("10.77.0.200")), Drop},
		"renewing: outside the subnet: silence":                {with(request, runsOn("192.168.1.50")), Drop},
		"renewing: a lease that we lost, the range is used up": {with(request, runsOn("10.77.0.100"), noneFree), Drop},

		"no address at all": {request, Drop},
	} {
		t.Run(name, func(t *testing.T) {
			ans := Decide(c.in)
			assert.Equal(t, c.verdict, ans.Verdict, ans.Reason)
			switch c.verdict {
			case Ack:
				assert.Equal(t, []store.EventKind{store.EventDHCPRequest, store.EventDHCPAck}, kinds(ans))
				assert.Equal(t, store.LeaseBound, ans.Lease.State)
				assert.Equal(t, ans.Address, ans.Lease.Address)
				assert.Equal(t, mac(1), ans.Lease.MAC)
				assert.Equal(t, noon.Add(time.Hour), ans.Lease.Expires)
				assert.Equal(t, c.in.Client.Machine.ID, ans.Lease.Machine)
			case Nak:
				assert.Equal(t, []store.EventKind{store.EventDHCPRequest, store.EventDHCPNak}, kinds(ans))
				assert.NotEmpty(t, ans.Reason)
				assert.Zero(t, ans.Lease)
				assert.True(t, ans.Options.Has(dhcpv4.OptionServerIdentifier))
				assert.False(t, ans.Options.Has(dhcpv4.OptionIPAddressLeaseTime), "RFC 2131 table 3")
			}
		})
	}
}

// RFC 2131 §4.3.2: a client that has moved to another of our networks asks anew at
// once. Of what is nobody's here another server may know.
func TestAClientThatHasMovedBetweenOurSubnetsIsTold(t *testing.T) {
	elsewhere := func(in *Input) { in.Elsewhere = true }
	request := base(dhcpv4.MessageTypeRequest)
	for name, c := range map[string]struct {
		in   Input
		want Verdict
	}{
		"it remembers an address of another of ours": {with(request, elsewhere, asks("10.88.0.100")), Nak},
		"it runs on one": {with(request, elsewhere, runsOn("10.88.0.100")), Nak},
		"it runs on one, and its volume is open from there":    {with(request, elsewhere, runsOn("10.88.0.100"), usedNow("10.88.0.100")), Drop},
		"it remembers an address that nobody knows":            {with(request, asks("192.168.1.7")), Drop},
		"it runs on one that nobody knows":                     {with(request, runsOn("192.168.1.7")), Drop},
		"it takes the offer of a server that gives that other": {with(request, elsewhere, chooses("10.77.0.9"), asks("10.88.0.100")), Drop},
	} {
		t.Run(name, func(t *testing.T) {
			ans := Decide(c.in)
			assert.Equal(t, c.want, ans.Verdict, ans.Reason)
			if c.want == Nak {
				assert.Contains(t, ans.Reason, "10.88.0.100 is of another subnet than 10.77.0.0/24")
				assert.Zero(t, ans.Lease)
			}
		})
	}
}

func TestOtherServersPickNamesIt(t *testing.T) {
	ans := Decide(with(base(dhcpv4.MessageTypeRequest), chooses("10.77.0.2"), asks("10.77.0.150")))
	assert.True(t, ans.Withdraw)
	assert.Equal(t, []store.EventKind{store.EventDHCPOtherPick}, kinds(ans))
	assert.Equal(t, "10.77.0.2", ans.Events[0].Detail.Server)
	assert.Equal(t, ip("10.77.0.150"), ans.Events[0].Addr)
}

// RFC 5107: a relay that wants to see the renewals is named as the server.
func TestRelayIsNamedAsTheServer(t *testing.T) {
	relay := func(in *Input) { in.Request.GIAddr, in.Request.Agent.Server = ip("10.77.0.254"), ip("10.77.0.254") }
	ans := Decide(with(base(dhcpv4.MessageTypeDiscover), relay))
	assert.Equal(t, ip("10.77.0.254").AsSlice(), ans.Options.Get(dhcpv4.OptionServerIdentifier))
	request := base(dhcpv4.MessageTypeRequest)
	assert.Equal(t, Ack, Decide(with(request, relay, chooses("10.77.0.254"), asks("10.77.0.100"), offered("10.77.0.100"))).Verdict)
	assert.Equal(t, Drop, Decide(with(request, relay, chooses("10.77.0.1"), asks("10.77.0.100"), offered("10.77.0.100"))).Verdict)
}

func TestDecline(t *testing.T) {
	decline := base(dhcpv4.MessageTypeDecline)
	ans := Decide(with(decline, chooses("10.77.0.1"), asks("10.77.0.100"), holds("10.77.0.100", time.Hour)))
	assert.Equal(t, Drop, ans.Verdict, "RFC 2131 §4.3.3: no answer")
	assert.Equal(t, store.LeaseDeclined, ans.Lease.State)
	assert.Equal(t, noon.Add(10*time.Minute), ans.Lease.Expires)
	assert.Equal(t, []store.EventKind{store.EventDHCPDecline}, kinds(ans))
	assert.Zero(t, ans.Doubt)

	oldest := bind("10.77.0.103", 1, 0)
	ans = Decide(with(decline, chooses("10.77.0.1"), asks("10.77.0.100"), holds("10.77.0.100", time.Hour), func(in *Input) { in.OnWire, in.GiveBack = true, []store.Lease{oldest} }))
	assert.Equal(t, noon.Add(time.Minute), ans.Lease.Expires, "its word counts until the wire has spoken")
	assert.Equal(t, ip("10.77.0.100"), ans.Doubt)
	assert.Equal(t, []store.Lease{oldest}, ans.GiveBack)
	assert.Contains(t, ans.Events[0].Detail.Reason, "given again: 10.77.0.103")

	for name, in := range map[string]Input{
		"of another server":         with(decline, chooses("10.77.0.2"), asks("10.77.0.100"), holds("10.77.0.100", time.Hour)),
		"of what it was not given":  with(decline, chooses("10.77.0.1"), asks("10.77.0.101"), holds("10.77.0.100", time.Hour)),
		"of nothing":                with(decline, chooses("10.77.0.1")),
		"by a client without lease": with(decline, asks("10.77.0.100"), others("10.77.0.100", time.Hour)),
	} {
		t.Run(name, func(t *testing.T) {
			ans := Decide(in)
			assert.Zero(t, ans.Lease)
			assert.Empty(t, ans.Events)
		})
	}
}

func TestRelease(t *testing.T) {
	release := base(dhcpv4.MessageTypeRelease)
	ans := Decide(with(release, chooses("10.77.0.1"), runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour)))
	assert.Equal(t, Drop, ans.Verdict)
	assert.Equal(t, noon, ans.Lease.Expires, "the row stays, so that the machine finds its address again")
	assert.Equal(t, []store.EventKind{store.EventDHCPRelease}, kinds(ans))

	ans = Decide(with(release, runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour), usedNow("10.77.0.100")))
	assert.Zero(t, ans.Lease, "its volume is open from there")
	assert.Equal(t, []store.EventKind{store.EventDHCPRelease}, kinds(ans))

	assert.Zero(t, Decide(with(release, runsOn("10.77.0.101"), others("10.77.0.101", time.Hour))).Lease)
	assert.Zero(t, Decide(with(release, chooses("10.77.0.9"), runsOn("10.77.0.100"), holds("10.77.0.100", time.Hour))).Lease)
}

func TestInformGivesOptionsAndNoAddress(t *testing.T) {
	ans := Decide(with(base(dhcpv4.MessageTypeInform), runsOn("10.77.0.200")))
	assert.Equal(t, Ack, ans.Verdict)
	assert.False(t, ans.Address.IsValid())
	assert.Zero(t, ans.Lease)
	assert.True(t, ans.Options.Has(dhcpv4.OptionSubnetMask))
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
		assert.False(t, ans.Options.Has(code), "RFC 2131 §4.3.5")
	}
	assert.Equal(t, Drop, Decide(with(base(dhcpv4.MessageTypeInform), runsOn("192.168.1.1"))).Verdict)
	assert.Equal(t, Drop, Decide(base(dhcpv4.MessageTypeOffer)).Verdict)
}

func TestWaitingMachinesAreUnknownOnesThatAskToBoot(t *testing.T) {
	pxe := func(in *Input) { in.Request.Class = "PXEClient:Arch:00000" }
	unknown := func(in *Input) { in.Client = Client{} }
	ignored := func(in *Input) { in.Client = Client{Ignored: true} }
	discover := base(dhcpv4.MessageTypeDiscover)
	assert.True(t, Decide(with(discover, pxe, unknown)).Waiting)
	assert.True(t, Decide(with(discover, pxe, unknown, noneFree)).Waiting, "even when there is no address")
	assert.False(t, Decide(with(discover, unknown)).Waiting, "a telephone does not ask to boot")
	assert.False(t, Decide(with(discover, pxe, ignored)).Waiting)
	assert.False(t, Decide(with(discover, pxe)).Waiting)
}

func kinds(ans Answer) []store.EventKind {
	out := []store.EventKind{}
	for _, e := range ans.Events {
		out = append(out, e.Kind)
	}
	return out
}

// Nobody asks the wire ahead for a reserved address, so that it is asked for when it
// is offered to one that boots: the answer is here before its REQUEST.
func TestAReservedAddressIsAskedForWhenItIsOffered(t *testing.T) {
	boots := func(in *Input) { in.Request.Class, in.OnWire = "PXEClient:Arch:00007:UNDI:003000", true }
	unasked := fact("10.77.0.7", func(f *Address) { f.Due = true })
	taken := fact("10.77.0.7", func(f *Address) { f.Conflict, f.By = true, store.MAC{2} })
	discover := base(dhcpv4.MessageTypeDiscover)
	for name, c := range map[string]struct {
		in   Input
		want bool
	}{
		"reserved, and nobody asked":  {with(discover, boots, reserved("10.77.0.7"), unasked), true},
		"the wire was asked lately":   {with(discover, boots, reserved("10.77.0.7")), false},
		"behind a relay":              {with(discover, boots, reserved("10.77.0.7"), unasked, func(in *Input) { in.OnWire = false }), false},
		"a system that runs":          {with(discover, reserved("10.77.0.7"), unasked, func(in *Input) { in.OnWire = true }), false},
		"an address out of the range": {with(discover, boots, fact("10.77.0.100", func(f *Address) { f.Due = true })), false},
		"taken at the boot before":    {with(discover, boots, reserved("10.77.0.7"), unasked, taken), true},
		"taken at this boot":          {with(discover, boots, reserved("10.77.0.7"), taken), false},
	} {
		if ans := Decide(c.in); ans.Verdict != Offer || ans.Doubt.IsValid() != c.want || c.want && ans.Doubt != ip("10.77.0.7") {
			t.Errorf("%s: %s, asked %v", name, ans.Verdict, ans.Doubt)
		}
	}
}

// What a machine was told stands in the event: where its loader is, and its gateway.
func TestTheAnswersEventSaysWhereItLeads(t *testing.T) {
	in := with(base(dhcpv4.MessageTypeDiscover), func(in *Input) {
		in.Request.Class, in.Request.Arch, in.Request.HasArch = "PXEClient:Arch:00007:UNDI:003000", 7, true
		in.Subnet.Router = ip("10.77.0.254")
	})
	ans := Decide(in)
	e := ans.Events[len(ans.Events)-1]
	if e.Kind != store.EventDHCPOffer || e.Detail.Router != "10.77.0.254" || e.Detail.URL != "tftp://10.77.0.1/"+ans.BootFile || e.Detail.Loader == "" {
		t.Errorf("%+v", e.Detail)
	}
}

// What was on offer before somebody answered is given once more: iPXE gives up when
// it is refused. The next boot gets another address, and is told why.
func TestAReservedAddressThatIsTakenIsGivenOnceAndThenAnother(t *testing.T) {
	stranger := store.MAC{0x52, 0x54, 0, 0, 0, 9}
	taken := fact("10.77.0.7", func(f *Address) { f.Conflict, f.By = true, stranger })
	ask := with(base(dhcpv4.MessageTypeRequest), reserved("10.77.0.7"), taken, offered("10.77.0.7"), chooses("10.77.0.1"), asks("10.77.0.7"))
	if ans := Decide(ask); ans.Verdict != Ack {
		t.Errorf("%s: %s", ans.Verdict, ans.Reason)
	}
	ans := Decide(with(base(dhcpv4.MessageTypeDiscover), reserved("10.77.0.7"), taken))
	last := ans.Events[len(ans.Events)-1]
	if ans.Verdict != Offer || ans.Address != ip("10.77.0.100") || last.Kind != store.EventDHCPConflict || last.Addr != ip("10.77.0.7") || last.Detail.Server != stranger.String() {
		t.Errorf("%s %s, %+v", ans.Verdict, ans.Address, last)
	}
	if ans := Decide(with(base(dhcpv4.MessageTypeRequest), reserved("10.77.0.7"), taken, chooses("10.77.0.1"), asks("10.77.0.7"))); ans.Verdict != Nak {
		t.Errorf("what is not on offer any more: %s", ans.Verdict)
	}
}
