package login

import (
	"strconv"
	"strings"

	"lunboot/services/iscsi/pdu"
)

// Params are the operational parameters of a session (RFC 7143 §13).
type Params struct {
	HeaderDigest bool // CRC32C
	DataDigest   bool // CRC32C

	MaxRecvDataSegmentLength       int // the initiator's: what the target may send
	TargetMaxRecvDataSegmentLength int // the target's
	MaxBurstLength                 int
	FirstBurstLength               int
	InitialR2T                     bool
	ImmediateData                  bool
	MaxOutstandingR2T              int
	MaxConnections                 int
	DefaultTime2Wait               int
	DefaultTime2Retain             int
	ErrorRecoveryLevel             int
	DataPDUInOrder                 bool
	DataSequenceInOrder            bool
	ProtocolLevel                  int
}

// Defaults are the values of keys that nobody negotiates.
func Defaults() Params {
	return Params{
		MaxRecvDataSegmentLength:       8192,
		TargetMaxRecvDataSegmentLength: 8192,
		MaxBurstLength:                 262144,
		FirstBurstLength:               65536,
		InitialR2T:                     true,
		ImmediateData:                  true,
		MaxOutstandingR2T:              1,
		MaxConnections:                 1,
		DefaultTime2Wait:               2,
		DefaultTime2Retain:             20,
		DataPDUInOrder:                 true,
		DataSequenceInOrder:            true,
		ProtocolLevel:                  1,
	}
}

// ofSession are the parameters that another connection of the session begins
// with: what is agreed for one connection only is not known yet.
func (p Params) ofSession() Params {
	d := Defaults()
	p.HeaderDigest, p.DataDigest = d.HeaderDigest, d.DataDigest
	p.MaxRecvDataSegmentLength, p.TargetMaxRecvDataSegmentLength = d.MaxRecvDataSegmentLength, d.TargetMaxRecvDataSegmentLength
	return p
}

// settle makes the parameters agree with each other: FirstBurstLength is at
// most MaxBurstLength (§13.14).
func (p *Params) settle() { p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength) }

// The values that answer any key (§6.2).
const (
	valueNotUnderstood = "NotUnderstood"
	valueReject        = "Reject"
	valueIrrelevant    = "Irrelevant"
	valueNone          = "None"
	valueYes           = "Yes"
	valueNo            = "No"
)

// kind is the type of a key's value (§6.1).
type kind uint8

const (
	text    kind = iota // declared; no answer
	boolean             // Yes or No
	number
	list
	obsolete // answered with a constant
)

// key is one row of the table of keys.
type key struct {
	name     string
	kind     kind
	min, max int
	declared bool // declarative: taken, not answered
	normal   bool // Irrelevant in a discovery session
	leading  bool // agreed for the session, by the connection that began it: "LO"
	target   bool // only a target may send it
	first    bool // in the first request only
	anyStage bool // in the security stage too
	full     bool // may be sent in full feature phase
	constant string
	row      int // in the table

	// One of these is set, by kind. It stores the result and returns it: own
	// is what the target offers.
	number  func(p, own *Params, v int) int
	boolean func(p, own *Params, v bool) bool
	list    func(p, own *Params, offered []string) string
}

// The result functions of §13, by name.
func lower(a, b int) int    { return min(a, b) }
func higher(a, b int) int   { return max(a, b) }
func both(a, b bool) bool   { return a && b }
func either(a, b bool) bool { return a || b }
func num(s func(*Params) *int, result func(a, b int) int) func(p, own *Params, v int) int {
	return func(p, own *Params, v int) int {
		*s(p) = result(v, *s(own))
		return *s(p)
	}
}
func flag(s func(*Params) *bool, result func(a, b bool) bool) func(p, own *Params, v bool) bool {
	return func(p, own *Params, v bool) bool {
		*s(p) = result(v, *s(own))
		return *s(p)
	}
}

// digest picks the first offered digest that the target has (§13.1).
func digest(s func(*Params) *bool) func(p, own *Params, offered []string) string {
	return func(p, own *Params, offered []string) string {
		for _, v := range offered {
			if v == "CRC32C" && *s(own) {
				*s(p) = true
				return v
			}
			if v == valueNone {
				*s(p) = false
				return v
			}
		}
		return valueReject
	}
}

// keys is every key that an initiator may send outside authentication.
var keys = table([]key{
	// §13.1
	{name: "HeaderDigest", kind: list, list: digest(func(p *Params) *bool { return &p.HeaderDigest })},
	{name: "DataDigest", kind: list, list: digest(func(p *Params) *bool { return &p.DataDigest })},
	// §13.2
	{name: "MaxConnections", kind: number, leading: true, min: 1, max: 65535, normal: true, number: num(func(p *Params) *int { return &p.MaxConnections }, lower)},
	// §13.3; answered by the session, in full feature phase only
	{name: "SendTargets", kind: obsolete, constant: valueReject},
	// §13.4 to §13.7, §13.21: read from the first request
	{name: "TargetName", kind: text, declared: true, first: true, anyStage: true},
	{name: "InitiatorName", kind: text, declared: true, first: true, anyStage: true},
	{name: "InitiatorAlias", kind: text, declared: true, full: true, anyStage: true},
	{name: "SessionType", kind: text, declared: true, first: true, anyStage: true},
	// §13.6, §13.8, §13.9
	{name: "TargetAlias", kind: text, target: true},
	{name: "TargetAddress", kind: text, target: true},
	{name: "TargetPortalGroupTag", kind: text, target: true},
	// §13.10, §13.11
	{name: "InitialR2T", kind: boolean, leading: true, normal: true, boolean: flag(func(p *Params) *bool { return &p.InitialR2T }, either)},
	{name: "ImmediateData", kind: boolean, leading: true, normal: true, boolean: flag(func(p *Params) *bool { return &p.ImmediateData }, both)},
	// §13.12
	{name: "MaxRecvDataSegmentLength", kind: number, min: 512, max: pdu.MaxDataSegmentLength, declared: true, full: true, number: func(p, _ *Params, v int) int {
		p.MaxRecvDataSegmentLength = v
		return v
	}},
	// §13.13, §13.14
	{name: "MaxBurstLength", kind: number, leading: true, min: 512, max: pdu.MaxDataSegmentLength, normal: true, number: num(func(p *Params) *int { return &p.MaxBurstLength }, lower)},
	{name: "FirstBurstLength", kind: number, leading: true, min: 512, max: pdu.MaxDataSegmentLength, normal: true, number: num(func(p *Params) *int { return &p.FirstBurstLength }, lower)},
	// §13.15, §13.16
	{name: "DefaultTime2Wait", kind: number, leading: true, max: 3600, number: num(func(p *Params) *int { return &p.DefaultTime2Wait }, higher)},
	{name: "DefaultTime2Retain", kind: number, leading: true, max: 3600, number: num(func(p *Params) *int { return &p.DefaultTime2Retain }, lower)},
	// §13.17
	{name: "MaxOutstandingR2T", kind: number, leading: true, min: 1, max: 65535, normal: true, number: num(func(p *Params) *int { return &p.MaxOutstandingR2T }, lower)},
	// §13.18, §13.19
	{name: "DataPDUInOrder", kind: boolean, leading: true, normal: true, boolean: flag(func(p *Params) *bool { return &p.DataPDUInOrder }, either)},
	{name: "DataSequenceInOrder", kind: boolean, leading: true, normal: true, boolean: flag(func(p *Params) *bool { return &p.DataSequenceInOrder }, either)},
	// §13.20
	{name: "ErrorRecoveryLevel", kind: number, leading: true, max: 2, number: num(func(p *Params) *int { return &p.ErrorRecoveryLevel }, lower)},
	// §13.23: the reporting of RFC 3720 is the one that is done here
	{name: "TaskReporting", kind: list, leading: true, normal: true, list: func(_, _ *Params, offered []string) string {
		for _, v := range offered {
			if v == "RFC3720" {
				return v
			}
		}
		return valueReject
	}},
	// RFC 7144 §7.1.1
	{name: "iSCSIProtocolLevel", kind: number, leading: true, max: 31, normal: true, number: num(func(p *Params) *int { return &p.ProtocolLevel }, lower)},
	// §13.25: obsolete, and never NotUnderstood. "No" is the answer to the
	// first two that every initiator takes: older ones know the key and offer
	// "No" themselves.
	{name: "IFMarker", kind: obsolete, constant: valueNo},
	{name: "OFMarker", kind: obsolete, constant: valueNo},
	{name: "IFMarkInt", kind: obsolete, constant: valueReject},
	{name: "OFMarkInt", kind: obsolete, constant: valueReject},
})

func table(rows []key) map[string]*key {
	t := make(map[string]*key, len(rows))
	for i := range rows {
		rows[i].row = i
		t[rows[i].name] = &rows[i]
	}
	return t
}

// key takes one pair of a login and answers it. first says that it stands in
// the first request.
func (m *Machine) key(p pdu.Pair, offer *Params, first bool) *Refusal {
	k := keys[p.Key]
	if m.seen.has(p.Key, k) {
		return refuse(pdu.LoginInitiatorError, "the initiator negotiated %.63s twice", p.Key)
	}
	if k != nil && !k.target && !k.anyStage && m.stage == pdu.SecurityNegotiation {
		// §12: not to be used in this stage. Its own stage may still come, so
		// that it is not said once and for all.
		m.answer(k.name, valueReject)
		return nil
	}
	m.seen.add(p.Key, k)
	if k == nil {
		m.answer(p.Key, valueNotUnderstood)
		return nil
	}
	if k.target {
		if p.Value == valueNotUnderstood || p.Value == valueIrrelevant || p.Value == valueReject {
			return nil // its answer to what the target declared (§6.2)
		}
		return refuse(pdu.LoginInitiatorError, "the initiator sent %s, which only a target may declare", k.name)
	}
	if k.first && !first {
		return refuse(pdu.LoginInitiatorError, "the initiator declared %s after its first request", k.name)
	}
	if k.normal && m.res.Discovery {
		m.answer(k.name, valueIrrelevant)
		return nil
	}
	if k.leading && m.first.TSIH != 0 {
		m.answer(k.name, valueReject) // what the session has agreed on stays (§13)
		return nil
	}
	if k.declared && len(p.Value) > maxValue {
		return refuse(pdu.LoginInitiatorError, "the initiator declared %s with %d bytes; a value has up to %d bytes", k.name, len(p.Value), maxValue)
	}
	value, answered := k.settle(&m.res.Params, offer, p.Value)
	if k.declared && answered {
		return refuse(pdu.LoginInitiatorError, "the initiator declared %s=%.40q, which is not allowed", k.name, p.Value)
	}
	if answered {
		m.answer(k.name, value)
	}
	if k.name == "InitiatorAlias" {
		m.res.Alias = strings.Clone(p.Value)
	}
	return nil
}

// offer is what the target agrees to in answer to these pairs: FirstBurstLength
// does not exceed MaxBurstLength (§13.14), which may stand behind it.
func (m *Machine) offer(pairs []pdu.Pair) *Params {
	o, p := &m.offered, &m.trial
	*o, *p = m.cfg.Offer, m.res.Params
	for _, q := range pairs {
		if k := keys[q.Key]; q.Key == "MaxBurstLength" && !m.seen.has(q.Key, k) {
			k.settle(p, o, q.Value)
		}
	}
	o.FirstBurstLength = min(o.FirstBurstLength, p.MaxBurstLength)
	return o
}

// seenKeys are the keys that an initiator has sent: those of the table as bits,
// by row.
type seenKeys struct {
	rows   uint64
	others map[string]bool
}

// has says whether a key, k being its row, was there.
func (s *seenKeys) has(name string, k *key) bool {
	if k != nil {
		return s.rows>>k.row&1 != 0
	}
	return s.others[name]
}

// add adds a key.
func (s *seenKeys) add(name string, k *key) {
	if k != nil {
		s.rows |= 1 << k.row
		return
	}
	if s.others == nil {
		s.others = make(map[string]bool)
	}
	s.others[strings.Clone(name)] = true // not the text that it stands in
}

// maxValue is how long a value may be (§6.1). A list of them may be longer.
const maxValue = 255

// settle applies one value. answered is false when the key needs no answer; a
// value that breaks the key's rule leaves the parameter alone and is answered
// with Reject (§6.2).
func (k *key) settle(p, own *Params, value string) (answer string, answered bool) {
	if len(value) > maxValue && k.kind != list && k.kind != obsolete {
		return valueReject, true
	}
	switch k.kind {
	case text:
		return "", false
	case obsolete:
		return k.constant, true
	case boolean:
		if value != valueYes && value != valueNo {
			return valueReject, true
		}
		if k.boolean(p, own, value == valueYes) {
			return valueYes, true
		}
		return valueNo, true
	case number:
		v, ok := parseNumber(value)
		if !ok || v < k.min || v > k.max {
			return valueReject, true
		}
		v = k.number(p, own, v)
		return strconv.Itoa(v), !k.declared
	case list:
		return k.list(p, own, strings.Split(value, ",")), true
	}
	return valueReject, true
}

// parseNumber reads a numerical value, decimal or 0x hexadecimal (§6.1).
func parseNumber(s string) (int, bool) {
	base := 10
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		s, base = s[2:], 16
	}
	v, err := strconv.ParseUint(s, base, 31)
	return int(v), err == nil
}

// Renegotiate answers the keys of a Text Request in full feature phase: only
// declarations may still change there (§13.12), each once in a negotiation
// (§6.3); the rest is refused, and what nobody knows is not understood. The
// caller has taken out SendTargets.
func Renegotiate(p *Params, pairs []pdu.Pair) []pdu.Pair {
	var answers []pdu.Pair
	seen := make(map[string]bool, len(pairs))
	for _, q := range pairs {
		k := keys[q.Key]
		twice := seen[q.Key]
		seen[q.Key] = true
		switch {
		case twice:
			answers = append(answers, pdu.Pair{Key: q.Key, Value: valueReject})
		case k == nil && !authKey(q.Key):
			answers = append(answers, pdu.Pair{Key: q.Key, Value: valueNotUnderstood})
		case k == nil || !k.full:
			answers = append(answers, pdu.Pair{Key: q.Key, Value: valueReject})
		default:
			if v, answered := k.settle(p, p, q.Value); answered {
				answers = append(answers, pdu.Pair{Key: q.Key, Value: v})
			}
		}
	}
	return answers
}
