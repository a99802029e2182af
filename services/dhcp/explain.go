package dhcp

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"lunboot/services/boot"
	"lunboot/services/dhcp/bootfile"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// What a dry run's clients ask for (option 55), from captures: UEFI firmware and
// iPXE name fewer options than a BIOS, which is why some answers differ.
const (
	asksBIOS = "\x01\x02\x03\x05\x06\x0b\x0c\x0d\x0f\x10\x11\x12\x2b\x36\x3c\x43\x80\x81\x82\x83\x84\x85\x86\x87"
	asksUEFI = "\x01\x02\x03\x04\x05\x06\x0c\x0d\x0f\x11\x12\x16\x17\x1c\x28\x29\x2a\x2b\x32\x33\x36\x3a\x3b\x3c\x42\x43\x61\x80\x81\x82\x83\x84\x85\x86\x87"
	asksHTTP = "\x01\x02\x03\x04\x05\x06\x0c\x0d\x0f\x11\x12\x16\x17\x1c\x28\x29\x2a\x2b\x32\x33\x36\x3a\x3b\x3c\xeb\x43\x61"
	asksIPXE = "\x01\x03\x06\x07\x0c\x0f\x11\x1a\x2b\x3c\x42\x43\x77\x80\x81\x82\x83\x84\x85\x86\x87\xaf\xcb"
)

// sample is the DISCOVER of a client as a dry run imagines it: firmware of the
// architecture, or our own iPXE on it.
func sample(q store.OfferQuery) (*dhcpv4.DHCPv4, error) {
	p, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(q.MAC[:]))
	if err != nil {
		return nil, fmt.Errorf("make a DISCOVER: %w", err)
	}
	platform, _ := boot.PlatformOf(q.Arch)
	set := func(code uint8, v string) {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), []byte(v)))
	}
	class, asks := "PXEClient", asksUEFI
	switch {
	case q.IPXE:
		asks = asksIPXE
		set(61, "\x01"+string(q.MAC[:]))
		set(77, "iPXE")
		set(175, "\x11\x01\x01\x13\x01\x01") // iSCSI and HTTP, as our loaders have them
	case platform.HTTP:
		class, asks = "HTTPClient", asksHTTP
	case platform.Firmware == boot.BIOS:
		asks = asksBIOS
	}
	set(55, asks)
	// The network interface that it says to have, in its class and in option 94 (RFC
	// 4578 §2.2), and the size of message that it takes.
	undi, nii, room := "003000", "\x01\x03\x00", uint16(1472)
	switch bios := platform.Firmware == boot.BIOS; {
	case bios && q.IPXE:
		undi, nii = "002001", "\x01\x02\x01"
	case bios:
		undi, nii, room = "002001", "\x01\x02\x01", 1260 // as ROMs of network cards
	case q.IPXE:
		undi, nii = "003010", "\x01\x03\x0a"
	}
	set(94, nii)
	p.UpdateOption(dhcpv4.OptMaxMessageSize(room))
	if class = fmt.Sprintf("%s:Arch:%05d:UNDI:%s", class, q.Arch, undi); q.Class != "" {
		class = q.Class
	}
	set(60, class)
	set(93, string([]byte{byte(q.Arch >> 8), byte(q.Arch)}))
	if !q.UUID.IsZero() {
		set(97, "\x00"+wireUUID(q.UUID))
	}
	if q.Relay.Is4() {
		p.GatewayIPAddr = q.Relay.AsSlice()
		p.HopCount = 1
	}
	return p, nil
}

// wireUUID is SMBIOS's own order: the first three fields are little-endian (RFC
// 4578 §2.3).
func wireUUID(u store.UUID) string {
	b := u[:]
	out := []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6]}
	return string(append(out, b[8:]...))
}

// ExplainOffer answers a dry run's DISCOVER by the policy that answers machines.
// It holds, writes and sends nothing. ok is false when this server has nothing
// to do with the network that the client asks from.
func (s *Server) ExplainOffer(ctx context.Context, q store.OfferQuery) (e store.OfferExplanation, ok bool, err error) {
	p, err := sample(q)
	if err != nil {
		return e, false, err
	}
	r, err := message.Decode(p)
	if err != nil {
		return e, false, store.Invalid("mac", "%s cannot ask for an address: %v", q.MAC, err)
	}
	if s.link.Load() == nil {
		return e, false, nil // it does not listen
	}
	at, ok := s.dryPlace(r)
	if !ok {
		return e, false, nil
	}
	in, err := s.dryGather(ctx, r, at)
	if err != nil {
		return e, true, err
	}
	ans := Decide(in)
	asks := ""
	if ans.Verdict == Drop && in.proxied() && in.Client.has(store.QuirkNoProxyOffer) {
		// It takes its address elsewhere, and asks our port 4011 then.
		p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
		p.ClientIPAddr = at.subnet.Prefix.Addr().Next().AsSlice()
		if r, err = message.Decode(p); err != nil {
			return e, true, err
		}
		at.bootServer, asks = true, " on port 4011"
		if in, err = s.dryGather(ctx, r, at); err != nil {
			return e, true, err
		}
		ans = Decide(in)
	}
	platform, _ := r.Platform()
	e = store.OfferExplanation{
		Client: platform.String() + " firmware" + asks, Verdict: ans.Verdict.String(), Why: ans.Reason, Interface: at.link.Name, Mode: string(at.subnet.Mode),
		Address: ans.Address, Loader: string(ans.Loader), File: ans.BootFile, Boot: in.Boot.Address,
	}
	if r.IPXE {
		e.Client = "iPXE" + asks
	}
	if ans.Verdict == Drop {
		return e, true, nil
	}
	if b := bootfile.Decide(in.asker(), in.source()); e.Why == "" {
		e.Why = b.NoISCSI
	}
	if in.proxied() && e.Why == "" {
		e.Why = "another server gives the address; this answer says what to boot"
	}
	reply := emptyReply(p)
	fill(reply, r, ans)
	if reply = runChain(s.cfg.Plugins, p, reply); reply == nil {
		e.Verdict, e.Why = Drop.String(), "a plugin drops the answer"
		return e, true, nil
	}
	message.Fit(reply, r.Room(at.link.MTU))
	e.Fields = in.fields(ans, reply)
	return e, true, nil
}

// dryGather collects the facts about one request as decide does, in the
// ledger's turn.
func (s *Server) dryGather(ctx context.Context, r message.Request, at place) (Input, error) {
	now := s.cfg.Now()
	t, err := s.ledger.Begin(ctx, now)
	if err != nil {
		return Input{}, err
	}
	defer t.End()
	if at.bootServer || at.subnet.Mode == store.DHCPProxy {
		return s.gatherBoot(t, r, at, now), nil
	}
	return s.gather(t, r, at, now, map[netip.Addr]Address{}), nil
}

// fields lists a reply's fields and options, and says why each is what it is.
func (in *Input) fields(ans Answer, reply *dhcpv4.DHCPv4) []store.OfferField {
	var out []store.OfferField
	head := func(name, value, why string) {
		if value != "" && value != "0.0.0.0" {
			out = append(out, store.OfferField{Name: name, Value: value, Why: why})
		}
	}
	head("yiaddr", addrText(ans.Address), in.whyAddress(ans.Address))
	head("ciaddr", reply.ClientIPAddr.String(), "the address that it has already")
	head("siaddr", reply.ServerIPAddr.String(), "where the boot file is")
	head("giaddr", reply.GatewayIPAddr.String(), "the relay that the answer goes through")
	head("file", reply.BootFileName, in.whyFile(ans))
	codes := make([]uint8, 0, len(reply.Options))
	for code := range reply.Options {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	for _, code := range codes {
		name := strings.ToLower(dhcpv4.GenericOptionCode(code).String())
		if o, ok := described[code]; ok {
			name = o.name
		}
		out = append(out, store.OfferField{Option: int(code), Name: name, Value: optionText(code, reply.Options[code]), Why: in.whyOption(code, ans)})
	}
	return out
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// whyAddress says where an offered address comes from.
func (in *Input) whyAddress(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return ""
	case a == in.reserved():
		return "the machine's reserved address"
	case a == in.Own.Address && in.Own.Expires.After(in.Now):
		return "its lease, until " + in.Own.Expires.UTC().Format(time.DateTime) + " UTC"
	case a == in.Own.Address:
		return "the address that it had last"
	case a == in.Offered:
		return "it was offered this a moment ago"
	}
	return "a free one of the range " + in.Subnet.Range.String()
}

func (in *Input) whyFile(ans Answer) string {
	p, _ := in.Request.Platform()
	switch {
	case ans.Chained:
		return "our own iPXE: the one that asks cannot speak iSCSI"
	case in.Request.IPXE:
		return "an iPXE gets its script"
	case ans.Loader != "":
		why := "the loader for " + p.String()
		pick := in.Boot.Next(boot.HardwareOf(in.Request.MAC, p.Firmware.String(), p.Arch.String(), in.Request.Class), in.Client.Machine.Loader)
		if pick.Loader == ans.Loader && pick.Why != "" {
			why += ": " + pick.Why
		}
		return why
	}
	return ""
}

// described are the options that answers carry, with the kind of their value.
var described = map[uint8]struct {
	name string
	kind byte // a: addresses, t: text, d: a duration, n: a number, l: domain names, x: bytes
	why  string
}{
	1: {"subnet mask", 'a', "of the subnet"}, 3: {"router", 'a', "of the subnet"}, 6: {"DNS servers", 'a', "of the subnet"},
	12: {"host name", 't', "the machine's name"}, 15: {"domain name", 't', "of the subnet"}, 26: {"interface MTU", 'n', "that of our interface is smaller than usual"}, 28: {"broadcast address", 'a', "of the subnet"},
	42: {"time servers", 'a', "of the subnet"},
	43: {"vendor options", 'x', "tells PXE firmware how to find its boot server (PXE 2.1 §2.2.3, discovery control)"},
	51: {"lease time", 'd', "of the subnet"}, 53: {"message type", 'n', ""}, 54: {"server identifier", 'a', "this appliance"},
	58: {"renewal time", 'd', "half of the lease"}, 59: {"rebinding time", 'd', "seven eighths of the lease"},
	60: {"class", 't', "firmware that asks for a boot server takes no other answer for one"}, 61: {"client identifier", 'x', "sent back as it came"},
	66: {"TFTP server name", 't', "where the boot file is"}, 67: {"boot file name", 't', ""}, 82: {"relay information", 'x', "sent back as it came"}, 97: {"client UUID", 'x', "sent back as it came"},
	119: {"search list", 'l', "of the subnet"},
	175: {"iPXE options", 'x', "iPXE need not wait for a ProxyDHCP server"},
}

func (in *Input) whyOption(code uint8, ans Answer) string {
	d, ok := described[code]
	switch {
	case code == 67:
		return in.whyFile(ans)
	case ok && d.why == "of the subnet":
		return "of the subnet " + in.Subnet.Prefix.String()
	case ok:
		return d.why
	}
	return "added by a plugin"
}

// optionText prints an option's value as people read it.
func optionText(code uint8, b []byte) string {
	number := 0
	for _, v := range b {
		number = number<<8 | int(v)
	}
	switch kind := described[code].kind; {
	case code == uint8(dhcpv4.OptionDHCPMessageType) && len(b) == 1:
		return "DHCP" + dhcpv4.MessageType(b[0]).String()
	case kind == 'a' && len(b) > 0 && len(b)%4 == 0:
		var out []string
		for i := 0; i < len(b); i += 4 {
			out = append(out, netip.AddrFrom4([4]byte(b[i:i+4])).String())
		}
		return strings.Join(out, ", ")
	case kind == 't':
		return string(b)
	case kind == 'l':
		if names, err := rfc1035label.FromBytes(b); err == nil {
			return strings.Join(names.Labels, ", ")
		}
	case kind == 'd' && len(b) == 4:
		return (time.Duration(number) * time.Second).String()
	case kind == 'n' && len(b) <= 4:
		return fmt.Sprint(number)
	}
	return hex.EncodeToString(b)
}
