package login

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// RFC 7143 §13, key by key: what each value is answered with, and what it
// changes. The parameters are compared whole, so that a value that breaks its
// rule is seen to change nothing. An empty answer is a declaration's.
func TestEveryKeyOfTheStandard(t *testing.T) {
	nothing := func(*Params) {}
	long := strings.Repeat("7", 256)
	for _, c := range []struct {
		offer, answer string
		then          func(p *Params)
	}{
		// §13.1: the first of the initiator's that the target has.
		{"HeaderDigest=None", "None", nothing},
		{"HeaderDigest=CRC32C", "CRC32C", func(p *Params) { p.HeaderDigest = true }},
		{"HeaderDigest=CRC32C,None", "CRC32C", func(p *Params) { p.HeaderDigest = true }},
		{"HeaderDigest=None,CRC32C", "None", nothing},
		{"HeaderDigest=X-com.example.sum,CRC32C", "CRC32C", func(p *Params) { p.HeaderDigest = true }},
		{"HeaderDigest=X-com.example.sum,None", "None", nothing},
		{"HeaderDigest=X-com.example.sum", "Reject", nothing},
		{"HeaderDigest=crc32c", "Reject", nothing},
		{"HeaderDigest=none", "Reject", nothing},
		{"HeaderDigest=", "Reject", nothing},
		{"HeaderDigest=Yes", "Reject", nothing},
		{"HeaderDigest=NotUnderstood", "Reject", nothing},
		{"DataDigest=None", "None", nothing},
		{"DataDigest=CRC32C", "CRC32C", func(p *Params) { p.DataDigest = true }},
		{"DataDigest=CRC32C,None", "CRC32C", func(p *Params) { p.DataDigest = true }},
		{"DataDigest=None,CRC32C", "None", nothing},
		{"DataDigest=,CRC32C", "CRC32C", func(p *Params) { p.DataDigest = true }},
		{"DataDigest=CRC64", "Reject", nothing},
		{"DataDigest=CRC32C;None", "Reject", nothing},
		// §13.2: the lower.
		{"MaxConnections=1", "1", nothing},
		{"MaxConnections=2", "1", nothing},
		{"MaxConnections=65535", "1", nothing},
		{"MaxConnections=0xffff", "1", nothing},
		{"MaxConnections=0", "Reject", nothing},
		{"MaxConnections=65536", "Reject", nothing},
		{"MaxConnections=-1", "Reject", nothing},
		{"MaxConnections=+1", "Reject", nothing},
		{"MaxConnections=1.0", "Reject", nothing},
		{"MaxConnections= 1", "Reject", nothing},
		{"MaxConnections=1,2", "Reject", nothing},
		{"MaxConnections=1~2", "Reject", nothing},
		{"MaxConnections=", "Reject", nothing},
		{"MaxConnections=None", "Reject", nothing},
		// §13.3: in full feature phase only.
		{"SendTargets=All", "Reject", nothing},
		{"SendTargets=", "Reject", nothing},
		// §13.7
		{"InitiatorAlias=lab 3", "", nothing},
		{"InitiatorAlias=", "", nothing},
		{"InitiatorAlias=Büro", "", nothing},
		{"InitiatorAlias=" + long[:255], "", nothing},
		// §13.10: either asks for it.
		{"InitialR2T=Yes", "Yes", nothing},
		{"InitialR2T=No", "No", func(p *Params) { p.InitialR2T = false }},
		{"InitialR2T=YES", "Reject", nothing},
		{"InitialR2T=no", "Reject", nothing},
		{"InitialR2T=", "Reject", nothing},
		{"InitialR2T=1", "Reject", nothing},
		{"InitialR2T=Yes,No", "Reject", nothing},
		{"InitialR2T=Irrelevant", "Reject", nothing},
		// §13.11: both must want it.
		{"ImmediateData=Yes", "Yes", nothing},
		{"ImmediateData=No", "No", func(p *Params) { p.ImmediateData = false }},
		{"ImmediateData=true", "Reject", nothing},
		{"ImmediateData=0", "Reject", nothing},
		{"ImmediateData=Reject", "Reject", nothing},
		// §13.12: each declares its own.
		{"MaxRecvDataSegmentLength=512", "", func(p *Params) { p.MaxRecvDataSegmentLength = 512 }},
		{"MaxRecvDataSegmentLength=8192", "", nothing},
		{"MaxRecvDataSegmentLength=0x40000", "", func(p *Params) { p.MaxRecvDataSegmentLength = 262144 }},
		{"MaxRecvDataSegmentLength=16777215", "", func(p *Params) { p.MaxRecvDataSegmentLength = 16777215 }},
		// §13.13: the lower.
		{"MaxBurstLength=512", "512", func(p *Params) { p.MaxBurstLength, p.FirstBurstLength = 512, 512 }},
		{"MaxBurstLength=65535", "65535", func(p *Params) { p.MaxBurstLength, p.FirstBurstLength = 65535, 65535 }},
		{"MaxBurstLength=262144", "262144", nothing},
		{"MaxBurstLength=1048576", "1048576", func(p *Params) { p.MaxBurstLength = 1048576 }},
		{"MaxBurstLength=1048577", "1048576", func(p *Params) { p.MaxBurstLength = 1048576 }},
		{"MaxBurstLength=16777215", "1048576", func(p *Params) { p.MaxBurstLength = 1048576 }},
		{"MaxBurstLength=0x20000", "131072", func(p *Params) { p.MaxBurstLength = 131072 }},
		{"MaxBurstLength=0X20000", "131072", func(p *Params) { p.MaxBurstLength = 131072 }},
		{"MaxBurstLength=511", "Reject", nothing},
		{"MaxBurstLength=0", "Reject", nothing},
		{"MaxBurstLength=16777216", "Reject", nothing},
		{"MaxBurstLength=0x1000000", "Reject", nothing},
		{"MaxBurstLength=4294967808", "Reject", nothing},
		{"MaxBurstLength=18446744073709552128", "Reject", nothing},
		{"MaxBurstLength=0x", "Reject", nothing},
		{"MaxBurstLength=0b1000", "Reject", nothing},
		{"MaxBurstLength=64k", "Reject", nothing},
		{"MaxBurstLength=65_536", "Reject", nothing},
		{"MaxBurstLength=" + long, "Reject", nothing},
		{"MaxBurstLength=" + strings.Repeat("0", 251) + "65536", "Reject", nothing},
		// §13.14: the lower.
		{"FirstBurstLength=512", "512", func(p *Params) { p.FirstBurstLength = 512 }},
		{"FirstBurstLength=65536", "65536", nothing},
		{"FirstBurstLength=262144", "262144", func(p *Params) { p.FirstBurstLength = 262144 }},
		{"FirstBurstLength=16777215", "262144", func(p *Params) { p.FirstBurstLength = 262144 }},
		{"FirstBurstLength=511", "Reject", nothing},
		{"FirstBurstLength=16777216", "Reject", nothing},
		{"FirstBurstLength=all", "Reject", nothing},
		// §13.15: the higher.
		{"DefaultTime2Wait=0", "0", func(p *Params) { p.DefaultTime2Wait = 0 }},
		{"DefaultTime2Wait=2", "2", nothing},
		{"DefaultTime2Wait=3600", "3600", func(p *Params) { p.DefaultTime2Wait = 3600 }},
		{"DefaultTime2Wait=3601", "Reject", nothing},
		{"DefaultTime2Wait=-1", "Reject", nothing},
		{"DefaultTime2Wait=soon", "Reject", nothing},
		// §13.16: the lower.
		{"DefaultTime2Retain=0", "0", func(p *Params) { p.DefaultTime2Retain = 0 }},
		{"DefaultTime2Retain=20", "0", func(p *Params) { p.DefaultTime2Retain = 0 }},
		{"DefaultTime2Retain=3600", "0", func(p *Params) { p.DefaultTime2Retain = 0 }},
		{"DefaultTime2Retain=3601", "Reject", nothing},
		{"DefaultTime2Retain=", "Reject", nothing},
		// §13.17: the lower.
		{"MaxOutstandingR2T=1", "1", nothing},
		{"MaxOutstandingR2T=65535", "1", nothing},
		{"MaxOutstandingR2T=0", "Reject", nothing},
		{"MaxOutstandingR2T=65536", "Reject", nothing},
		{"MaxOutstandingR2T=Yes", "Reject", nothing},
		// §13.18, §13.19: either asks for it.
		{"DataPDUInOrder=Yes", "Yes", nothing},
		{"DataPDUInOrder=No", "Yes", nothing},
		{"DataPDUInOrder=Maybe", "Reject", nothing},
		{"DataPDUInOrder=", "Reject", nothing},
		{"DataSequenceInOrder=Yes", "Yes", nothing},
		{"DataSequenceInOrder=No", "Yes", nothing},
		{"DataSequenceInOrder=2", "Reject", nothing},
		// §13.20: the lower.
		{"ErrorRecoveryLevel=0", "0", nothing},
		{"ErrorRecoveryLevel=1", "0", nothing},
		{"ErrorRecoveryLevel=2", "0", nothing},
		{"ErrorRecoveryLevel=3", "Reject", nothing},
		{"ErrorRecoveryLevel=None", "Reject", nothing},
		// §13.23: the first of the initiator's that the target has.
		{"TaskReporting=RFC3720", "RFC3720", nothing},
		{"TaskReporting=FastAbort,ResponseFence,RFC3720", "RFC3720", nothing},
		{"TaskReporting=RFC3720,FastAbort", "RFC3720", nothing},
		{"TaskReporting=FastAbort", "Reject", nothing},
		{"TaskReporting=ResponseFence", "Reject", nothing},
		{"TaskReporting=", "Reject", nothing},
		// RFC 7144 §7.1.1: the lower.
		{"iSCSIProtocolLevel=1", "1", nothing},
		{"iSCSIProtocolLevel=2", "1", nothing},
		{"iSCSIProtocolLevel=31", "1", nothing},
		{"iSCSIProtocolLevel=0", "0", func(p *Params) { p.ProtocolLevel = 0 }},
		{"iSCSIProtocolLevel=32", "Reject", nothing},
		{"iSCSIProtocolLevel=two", "Reject", nothing},
		// §13.25: obsolete, and never NotUnderstood.
		{"IFMarker=No", "No", nothing},
		{"IFMarker=Yes", "No", nothing},
		{"OFMarker=No", "No", nothing},
		{"OFMarker=Yes", "No", nothing},
		{"IFMarkInt=2048", "Reject", nothing},
		{"IFMarkInt=2048~8192", "Reject", nothing},
		{"OFMarkInt=2048~8192", "Reject", nothing},
		{"OFMarkInt=nonsense", "Reject", nothing},
		// §13.22, §6.2: what nobody knows; a key's name is exact.
		{"X-com.example.key=1", "NotUnderstood", nothing},
		{"X#com.example.key=1", "NotUnderstood", nothing},
		{"X-=", "NotUnderstood", nothing},
		{"RDMAExtensions=Yes", "NotUnderstood", nothing},
		{"InitiatorRecvDataSegmentLength=8192", "NotUnderstood", nothing},
		{"headerdigest=CRC32C", "NotUnderstood", nothing},
		{"HEADERDIGEST=CRC32C", "NotUnderstood", nothing},
		{"HeaderDigest.=CRC32C", "NotUnderstood", nothing},
		{"NodeArchitecture=x86", "NotUnderstood", nothing},
		{"X-com.example.key=" + long, "NotUnderstood", nothing},
		{strings.Repeat("k", 63) + "=v", "NotUnderstood", nothing},
	} {
		r := machine(t, open)
		key, _, _ := strings.Cut(c.offer, "=")
		want := []string{"TargetPortalGroupTag=1"}
		if c.answer != "" {
			want = append(want, key+"="+c.answer)
		}
		a := r.Step(request(1, 3, ini, tgt, c.offer))
		if got := lines(a.Data); a.Status != 0 || !slices.Equal(got, append(want, "MaxRecvDataSegmentLength=262144")) {
			t.Errorf("%.80s: answered %q with status %s (%v)", c.offer, got, a.Status, r.Refusal())
			continue
		}
		p := Defaults()
		p.TargetMaxRecvDataSegmentLength = 262144
		c.then(&p)
		if got := r.done(store.AuthNone).Params; got != p {
			t.Errorf("%.80s: agreed to\n%+v, want\n%+v", c.offer, got, p)
		}
	}
}

// What cannot be answered with a word ends the login.
func TestKeysThatEndTheLogin(t *testing.T) {
	long := strings.Repeat("v", 256)
	for _, c := range []struct{ offer, words string }{
		{"MaxRecvDataSegmentLength=511", "not allowed"},
		{"MaxRecvDataSegmentLength=0", "not allowed"},
		{"MaxRecvDataSegmentLength=16777216", "not allowed"},
		{"MaxRecvDataSegmentLength=many", "not allowed"},
		{"MaxRecvDataSegmentLength=", "not allowed"},
		{"MaxRecvDataSegmentLength=" + strings.Repeat("0", 252) + "8192", "255 bytes"},
		{"InitiatorAlias=" + long, "255 bytes"},
		{"TargetAlias=x", "only a target"},
		{"TargetAddress=10.0.0.1:3260,1", "only a target"},
		{"TargetPortalGroupTag=1", "only a target"},
		{"AuthMethod=None", "after the security stage"},
		{"CHAP_A=5", "after the security stage"},
		{"CHAP_N=lab", "after the security stage"},
		{"InitiatorName=" + ipxe, "twice"},
		{"TargetName=" + string(us), "twice"},
		{strings.Repeat("k", 64) + "=v", "63 bytes"},
		{"=v", "63 bytes"},
		{"Max Connections=1", "no key may have"},
		{"MaxConnections", `no "="`},
		{"InitiatorAlias=\xff\xfe", "UTF-8"},
	} {
		r := machine(t, open)
		a := r.Step(request(1, 3, ini, tgt, c.offer))
		if a.Status != pdu.LoginInitiatorError || r.State() != Failed || !strings.Contains(r.Refusal().Reason, c.words) {
			t.Errorf("%.60q: status %s, %v; want a reason with %q", c.offer, a.Status, r.Refusal(), c.words)
		}
	}
}

// §13: what a discovery session does not have is Irrelevant there, whatever the
// value; the rest is negotiated as ever.
func TestKeysOfADiscoverySession(t *testing.T) {
	for _, c := range []struct{ offer, answer string }{
		{"MaxConnections=4", "Irrelevant"}, {"InitialR2T=No", "Irrelevant"}, {"ImmediateData=No", "Irrelevant"},
		{"MaxBurstLength=512", "Irrelevant"}, {"FirstBurstLength=512", "Irrelevant"}, {"MaxOutstandingR2T=9", "Irrelevant"},
		{"DataPDUInOrder=No", "Irrelevant"}, {"DataSequenceInOrder=No", "Irrelevant"}, {"TaskReporting=FastAbort", "Irrelevant"},
		{"iSCSIProtocolLevel=2", "Irrelevant"}, {"MaxConnections=many", "Irrelevant"},
		{"HeaderDigest=CRC32C", "CRC32C"}, {"DataDigest=None", "None"}, {"DefaultTime2Wait=3", "3"}, {"DefaultTime2Retain=3", "0"},
		{"ErrorRecoveryLevel=2", "0"}, {"IFMarker=Yes", "No"}, {"OFMarkInt=1~2", "Reject"}, {"X-a=b", "NotUnderstood"},
	} {
		r := machine(t, open)
		key, _, _ := strings.Cut(c.offer, "=")
		r.say(request(1, 3, ini, "SessionType=Discovery", c.offer), true, key+"="+c.answer, "MaxRecvDataSegmentLength=262144")
	}
}

// A key is negotiated once in a login, in whichever of its requests.
func TestKeysAreNegotiatedOnce(t *testing.T) {
	for _, key := range []string{"MaxBurstLength=65536", "HeaderDigest=None", "ErrorRecoveryLevel=0", "InitialR2T=Yes", "MaxRecvDataSegmentLength=8192", "IFMarker=No", "X-a=b"} {
		r := machine(t, open)
		if a := r.Step(request(1, 1, ini, tgt, key)); a.Status != 0 {
			t.Fatalf("%s: %v", key, r.Refusal())
		}
		r.refuses(request(1, 3, key), pdu.LoginInitiatorError, "twice")
	}
}

// §11.12: every way to ask for a stage, from both stages in which one may ask.
func TestStages(t *testing.T) {
	for _, c := range []struct {
		csg, nsg pdu.Stage
		t        bool
		good     bool // the request is one
		leaves   bool
	}{
		{0, 0, false, true, false}, {0, 1, false, true, false}, {0, 2, false, true, false}, {0, 3, false, true, false}, // NSG says nothing without T
		{0, 0, true, false, false}, {0, 1, true, true, true}, {0, 2, true, false, false}, {0, 3, true, true, true},
		{1, 0, false, true, false}, {1, 1, false, true, false}, {1, 2, false, true, false}, {1, 3, false, true, false},
		{1, 0, true, false, false}, {1, 1, true, false, false}, {1, 2, true, false, false}, {1, 3, true, true, true},
		{2, 0, false, false, false}, {2, 1, true, false, false}, {2, 3, true, false, false}, {2, 2, false, false, false},
		{3, 0, false, false, false}, {3, 1, true, false, false}, {3, 3, true, false, false}, {3, 3, false, false, false},
	} {
		r := machine(t, open)
		q := request(c.csg, c.nsg, ini, tgt)
		q.Transit = c.t
		a := r.Step(q)
		if (a.Status == 0) != c.good || a.Transit != c.leaves {
			t.Errorf("%s to %s with T=%v: status %s, T=%v (%v)", c.csg, c.nsg, c.t, a.Status, a.Transit, r.Refusal())
		}
		if a.Status != 0 && a.Status != pdu.LoginInitiatorError {
			t.Errorf("%s to %s with T=%v: status %s", c.csg, c.nsg, c.t, a.Status)
		}
		if c.leaves && c.nsg == 3 && (a.TSIH == 0 || r.State() != Done) || !(c.leaves && c.nsg == 3) && r.admits > 0 {
			t.Errorf("%s to %s with T=%v: TSIH %d, admitted %d times", c.csg, c.nsg, c.t, a.TSIH, r.admits)
		}
	}
	t.Run("once left, a stage is over", func(t *testing.T) {
		r := machine(t, open)
		r.say(request(0, 1, ini, tgt, "AuthMethod=None"), true, "TargetPortalGroupTag=1", "AuthMethod=None")
		r.refuses(request(0, 1), pdu.LoginInitiatorError, "operational negotiation")
	})
	t.Run("none is left unasked", func(t *testing.T) {
		r := machine(t, open)
		r.say(request(0, 0, ini, tgt, "AuthMethod=None"), false, "TargetPortalGroupTag=1", "AuthMethod=None")
		r.refuses(request(1, 3), pdu.LoginInitiatorError, "security negotiation")
	})
}

// §11.12.4: the versions must meet; the target has 0.
func TestVersions(t *testing.T) {
	for _, c := range []struct {
		min, max byte
		status   pdu.LoginStatus
	}{{0, 0, 0}, {0, 1, 0}, {0, 255, 0}, {1, 1, pdu.LoginUnsupportedVersion}, {1, 255, pdu.LoginUnsupportedVersion}, {255, 255, pdu.LoginUnsupportedVersion}} {
		q := request(1, 3, ini, tgt)
		q.VersionMin, q.VersionMax = c.min, c.max
		if a := machine(t, open).Step(q); a.Status != c.status || a.VersionMax != 0 || a.VersionActive != 0 {
			t.Errorf("versions %d to %d: status %s, versions %d and %d", c.min, c.max, a.Status, a.VersionActive, a.VersionMax)
		}
	}
}

// §11.12: what names the login stays the same from its first request on.
func TestWhatNamesALoginStays(t *testing.T) {
	for name, edit := range map[string]func(*Request){
		"ISID":     func(q *Request) { q.ISID[5]++ },
		"TSIH":     func(q *Request) { q.TSIH = 3 },
		"CID":      func(q *Request) { q.CID++ },
		"task tag": func(q *Request) { q.InitiatorTaskTag++ },
		"CmdSN":    func(q *Request) { q.CmdSN++ },
	} {
		r := machine(t, open)
		r.say(request(1, 1, ini, tgt), false, "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
		q := request(1, 3)
		edit(&q)
		r.refuses(q, pdu.LoginInitiatorError, name)
	}
}

// What is renegotiated in full feature phase, and twice in one exchange.
func TestRenegotiationIsNarrow(t *testing.T) {
	for _, c := range []struct{ offer, answer string }{
		{"MaxRecvDataSegmentLength=4096", ""}, {"InitiatorAlias=b", ""},
		{"MaxRecvDataSegmentLength=511", "Reject"}, {"InitiatorAlias=" + strings.Repeat("v", 256), "Reject"},
		{"HeaderDigest=None", "Reject"}, {"DataDigest=CRC32C", "Reject"}, {"MaxConnections=1", "Reject"}, {"InitialR2T=No", "Reject"},
		{"ImmediateData=No", "Reject"}, {"MaxBurstLength=512", "Reject"}, {"FirstBurstLength=512", "Reject"}, {"DefaultTime2Wait=1", "Reject"},
		{"DefaultTime2Retain=1", "Reject"}, {"MaxOutstandingR2T=1", "Reject"}, {"DataPDUInOrder=No", "Reject"}, {"DataSequenceInOrder=No", "Reject"},
		{"ErrorRecoveryLevel=0", "Reject"}, {"TaskReporting=RFC3720", "Reject"}, {"iSCSIProtocolLevel=2", "Reject"},
		{"InitiatorName=" + ipxe, "Reject"}, {"TargetName=" + string(us), "Reject"}, {"SessionType=Discovery", "Reject"}, {"TargetAddress=10.0.0.1", "Reject"},
		{"AuthMethod=None", "Reject"}, {"CHAP_A=5", "Reject"}, {"IFMarker=Yes", "Reject"}, {"OFMarkInt=1~2", "Reject"}, {"X-a=b", "NotUnderstood"},
	} {
		p := Defaults()
		key, value, _ := strings.Cut(c.offer, "=")
		var want []pdu.Pair
		if c.answer != "" {
			want = []pdu.Pair{{Key: key, Value: c.answer}}
		}
		got := Renegotiate(&p, []pdu.Pair{{Key: key, Value: value}})
		if !slices.Equal(got, want) || c.offer != "MaxRecvDataSegmentLength=4096" && p != Defaults() {
			t.Errorf("%.60s: answered %v, parameters %+v", c.offer, got, p)
		}
	}
	p := Defaults()
	twice := []pdu.Pair{{Key: "MaxRecvDataSegmentLength", Value: "4096"}, {Key: "MaxRecvDataSegmentLength", Value: "1024"}}
	if got := Renegotiate(&p, twice); !slices.Equal(got, []pdu.Pair{{Key: "MaxRecvDataSegmentLength", Value: "Reject"}}) || p.MaxRecvDataSegmentLength != 4096 {
		t.Errorf("twice: answered %v, %d", got, p.MaxRecvDataSegmentLength)
	}
}

// §6.3: a PDU that is no Login Request ends a login that has begun with a
// Login Response that says so, and one that has not without a word.
func TestPDUsThatAreNoLoginRequest(t *testing.T) {
	r := machine(t, open)
	if _, ok := r.Interrupt(pdu.OpNOPOut); ok || r.State() != Going {
		t.Errorf("a NOP-Out before the login was answered; state %d", r.State())
	}
	r.say(request(0, 0, ini, tgt), false, "TargetPortalGroupTag=1")
	a, ok := r.Interrupt(pdu.OpSCSICommand)
	q := request(0, 0)
	if !ok || a.Status != pdu.LoginInvalidDuringLogin || a.ISID != q.ISID || a.InitiatorTaskTag != q.InitiatorTaskTag || a.SN.StatSN != 101 || a.Transit || a.CSG != 0 {
		t.Errorf("%+v, %v", a, ok)
	}
	if r.State() != Failed || !strings.Contains(r.Refusal().Reason, "SCSI Command") {
		t.Errorf("state %d, %v", r.State(), r.Refusal())
	}
}

// §12: the security stage knows the names, the alias and the proof. Another key
// is refused there and changes nothing; its own stage may still come.
func TestKeysOfTheSecurityStage(t *testing.T) {
	for name, k := range keys {
		if k.anyStage || k.target {
			continue
		}
		r := machine(t, open)
		offer := map[kind]string{boolean: "No", number: "4096", list: "None", obsolete: "Yes"}[k.kind]
		before := r.Result().Params
		r.say(request(0, 1, ini, tgt, name+"="+offer), true, "TargetPortalGroupTag=1", name+"=Reject")
		if p := r.Result().Params; p != before {
			t.Errorf("%s: agreed to %+v", name, p)
		}
		if a := r.Step(request(1, 3, name+"="+offer)); a.Status != 0 || r.State() != Done {
			t.Errorf("%s in its own stage: %v", name, r.Refusal())
		}
	}
	r := machine(t, open)
	r.say(request(0, 1, ini, tgt, "X-com.example.key=1", "InitiatorAlias=lab 3"), true, "TargetPortalGroupTag=1", "X-com.example.key=NotUnderstood")
}

// §13.4, §13.5, §13.21: who wants what is said at once; later it would be too
// late to look whether it may.
func TestKeysOfTheFirstRequest(t *testing.T) {
	for _, key := range []string{"SessionType=Discovery", "SessionType=Normal"} {
		r := machine(t, open)
		r.say(request(1, 1, ini, tgt), false, "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
		r.refuses(request(1, 3, key), pdu.LoginInitiatorError, "after its first request")
	}
	r := machine(t, open)
	r.say(request(0, 1, ini, "SessionType=Discovery"), true)
	r.refuses(request(1, 3, "TargetName=iqn.2026-11.lunboot:other"), pdu.LoginInitiatorError, "after its first request")
	// The alias may come with any.
	r = machine(t, open)
	r.say(request(0, 1, ini, tgt), true, "TargetPortalGroupTag=1")
	r.say(request(1, 3, "InitiatorAlias=lab 3"), true, "MaxRecvDataSegmentLength=262144")
	if a := r.done(store.AuthNone).Alias; a != "lab 3" {
		t.Errorf("the alias is %q", a)
	}
}

// §13.14: FirstBurstLength does not exceed MaxBurstLength, in whichever order
// the two are offered; what is answered is what holds.
func TestFirstBurstLengthStaysBelowMaxBurstLength(t *testing.T) {
	for _, c := range []struct {
		offers []string
		first  int
	}{
		{[]string{"MaxBurstLength=65536", "FirstBurstLength=131072"}, 65536},
		{[]string{"FirstBurstLength=131072", "MaxBurstLength=65536"}, 65536},
		{[]string{"FirstBurstLength=4096", "MaxBurstLength=65536"}, 4096},
		{[]string{"FirstBurstLength=1048576", "MaxBurstLength=1048576"}, 262144},
		{[]string{"FirstBurstLength=1048576"}, 262144},
		{[]string{"FirstBurstLength=131072", "MaxBurstLength=7"}, 131072},
	} {
		r := machine(t, open)
		a := r.Step(request(1, 3, append([]string{ini, tgt}, c.offers...)...))
		if got := r.done(store.AuthNone).Params.FirstBurstLength; got != c.first || !slices.Contains(lines(a.Data), fmt.Sprintf("FirstBurstLength=%d", c.first)) {
			t.Errorf("%q: %q, and %d holds", c.offers, lines(a.Data), got)
		}
	}
}

// §6.2: an initiator may say of what the target declares that it does not know
// the key.
func TestAnswersToWhatTheTargetDeclares(t *testing.T) {
	for _, stage := range []pdu.Stage{0, 1} {
		for _, word := range []string{"NotUnderstood", "Irrelevant", "Reject"} {
			r := machine(t, open)
			r.say(request(stage, stage, ini, tgt), false, append([]string{"TargetPortalGroupTag=1"}, map[pdu.Stage][]string{1: {"MaxRecvDataSegmentLength=262144"}}[stage]...)...)
			r.say(request(stage, stage, "TargetPortalGroupTag="+word), false)
		}
	}
}

// §6.3.4, §13: another connection of a session proves itself as the first one
// did, negotiates what is its own, and finds the rest agreed. No response
// acknowledges a command before the session has said which it expects.
func TestAConnectionOfASessionThatIsThere(t *testing.T) {
	agreed := Defaults()
	agreed.MaxBurstLength, agreed.FirstBurstLength, agreed.InitialR2T, agreed.ImmediateData = 8192, 4096, false, false
	agreed.HeaderDigest, agreed.MaxRecvDataSegmentLength, agreed.TargetMaxRecvDataSegmentLength = true, 512, 1<<20
	r := machine(t, chapOnly)
	r.session, r.next = &agreed, 7
	of := func(q Request) Request {
		q.TSIH, q.CID = 77, 3
		return q
	}
	for k, c := range []struct {
		q       Request
		transit bool
		want    []string
	}{
		{request(0, 1, ini, tgt, "AuthMethod=CHAP"), false, []string{"TargetPortalGroupTag=1", "AuthMethod=CHAP"}},
		{request(0, 1, "CHAP_A=5"), false, []string{"CHAP_A=5", "CHAP_I=1", challenge}},
		{request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5(right)), true, nil},
		{request(1, 3, "DataDigest=CRC32C", "MaxConnections=1", "InitialR2T=Yes", "ImmediateData=Yes", "MaxRecvDataSegmentLength=65536", "MaxBurstLength=262144", "FirstBurstLength=65536",
			"DefaultTime2Wait=0", "DefaultTime2Retain=0", "MaxOutstandingR2T=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "ErrorRecoveryLevel=0", "TaskReporting=RFC3720", "iSCSIProtocolLevel=1"), true,
			[]string{"DataDigest=CRC32C", "MaxConnections=Reject", "InitialR2T=Reject", "ImmediateData=Reject", "MaxBurstLength=Reject", "FirstBurstLength=Reject",
				"DefaultTime2Wait=Reject", "DefaultTime2Retain=Reject", "MaxOutstandingR2T=Reject", "DataPDUInOrder=Reject", "DataSequenceInOrder=Reject", "ErrorRecoveryLevel=Reject", "TaskReporting=Reject", "iSCSIProtocolLevel=Reject",
				"MaxRecvDataSegmentLength=262144"}},
	} {
		a := r.Step(of(c.q))
		if got := lines(a.Data); a.Status != 0 || a.Transit != c.transit || !slices.Equal(got, c.want) {
			t.Fatalf("request %d: %s, T %v, %q, want %q", k, a.Status, a.Transit, got, c.want)
		}
		last := r.State() == Done
		if !last && (!a.SN.ExpCmdSN.Less(r.next) || a.SN.MaxCmdSN != a.SN.ExpCmdSN.Add(-1)) || last && (a.SN.ExpCmdSN != r.next || a.SN.MaxCmdSN != r.next || a.TSIH != 77) {
			t.Errorf("request %d is answered with the window %d to %d of session %d", k, a.SN.ExpCmdSN, a.SN.MaxCmdSN, a.TSIH)
		}
	}
	want := agreed
	want.HeaderDigest, want.DataDigest, want.MaxRecvDataSegmentLength, want.TargetMaxRecvDataSegmentLength = false, true, 65536, 262144
	if res := r.done(store.AuthCHAP); res.Params != want || res.ExpCmdSN != 7 || res.CID != 3 {
		t.Errorf("%+v, want %+v", res, want)
	}
	if want := (Joining{Initiator: ipxe, ISID: pdu.ISID{0x40, 0, 0x27, 0x23, 1, 2}, TSIH: 77, CID: 3}); r.joined != want {
		t.Errorf("joined as %+v, want %+v", r.joined, want)
	}
}
