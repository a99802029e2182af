package login

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

const (
	us    = store.IQN("iqn.2026-11.lunboot:appliance")
	ipxe  = "iqn.2026-11.lunboot:lab-03"
	tgt   = "TargetName=iqn.2026-11.lunboot:appliance"
	ini   = "InitiatorName=" + ipxe
	right = "forwardforward12"
	back  = "reversereverse12"
)

// rig is a machine with an initiator of the test's own making.
type rig struct {
	*Machine
	t      *testing.T
	access Access
	why    *Refusal // Admit refuses with it
	admits int

	session *Params // of the session that TSIHs name; nil when there is none
	joined  Joining
	next    pdu.Serial // that session's CmdSN
}

func machine(t *testing.T, a Access) *rig {
	r := &rig{t: t, access: a}
	r.Machine = New(Config{
		Target: us, PortalGroup: 1, Offer: offer(),
		Lookup: func(i store.IQN, discovery bool) (Access, *Refusal) {
			if i != ipxe && !discovery {
				return Access{}, &Refusal{Status: pdu.LoginAuthorizationFail, Reason: "nobody knows it"}
			}
			return r.access, nil
		},
		Join: func(j Joining) (Params, *Refusal) {
			if r.joined = j; r.session == nil {
				return Params{}, &Refusal{Status: pdu.LoginSessionDoesNotExist, Reason: "no such session"}
			}
			return *r.session, nil
		},
		Admit: func(res *Result) (uint16, *Refusal) {
			if r.admits++; r.next != 0 {
				res.ExpCmdSN = r.next
			}
			return 77, r.why
		},
		// A counting "random" makes the transcripts exact.
		Random: func(b []byte) {
			for i := range b {
				b[i] = byte(i + 1)
			}
		},
	})
	return r
}

func offer() Params {
	p := Defaults()
	p.HeaderDigest, p.DataDigest, p.InitialR2T = true, true, false
	p.TargetMaxRecvDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 262144, 262144, 1048576
	p.DefaultTime2Wait, p.DefaultTime2Retain = 0, 0
	return p
}

func txt(keys ...string) []byte {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return b
}

func lines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// request is a Login Request as iPXE heads it; csg and nsg as given, T unless
// nsg is no later stage.
func request(csg, nsg pdu.Stage, keys ...string) Request {
	return Request{
		LoginRequest: pdu.LoginRequest{Transit: nsg > csg, CSG: csg, NSG: nsg, ISID: pdu.ISID{0x40, 0, 0x27, 0x23, 1, 2}, InitiatorTaskTag: 5, CmdSN: 9, ExpStatSN: 100},
		Data:         txt(keys...),
	}
}

// say takes a step and wants these keys back.
func (r *rig) say(q Request, transit bool, want ...string) Response {
	r.t.Helper()
	a := r.Step(q)
	if a.Status != 0 {
		r.t.Fatalf("refused: %v", r.Refusal())
	}
	if got := lines(a.Data); !slices.Equal(got, want) {
		r.t.Fatalf("answered\n%q, want\n%q", got, want)
	}
	if a.Transit != transit || transit && a.NSG != q.NSG || a.CSG != q.CSG {
		r.t.Fatalf("T %v, %s to %s; want T %v", a.Transit, a.CSG, a.NSG, transit)
	}
	if a.ISID != q.ISID || a.InitiatorTaskTag != q.InitiatorTaskTag || a.SN.ExpCmdSN != q.CmdSN {
		r.t.Fatalf("header %+v does not answer %+v", a.LoginResponse, q.LoginRequest)
	}
	return a
}

// refuses takes a step and wants it refused, with words in the reason.
func (r *rig) refuses(q Request, status pdu.LoginStatus, words ...string) {
	r.t.Helper()
	a := r.Step(q)
	if a.Status != status || r.State() != Failed || a.Transit || len(a.Data) > 0 {
		r.t.Fatalf("answered %+v (%v), want status %s", a.LoginResponse, r.Refusal(), status)
	}
	for _, w := range words {
		if !strings.Contains(r.Refusal().Reason, w) {
			r.t.Errorf("the reason is %q, it lacks %q", r.Refusal().Reason, w)
		}
	}
	for _, secret := range []string{right, back} {
		if strings.Contains(r.Refusal().Error(), secret) {
			r.t.Errorf("the reason gives a secret away: %q", r.Refusal().Reason)
		}
	}
}

func (r *rig) done(auth store.AuthMode) Result {
	r.t.Helper()
	res := r.Result()
	if r.State() != Done || res.Auth != auth || res.TSIH != 77 || r.admits != 1 {
		r.t.Fatalf("state %d, auth %s, TSIH %d, admitted %d times", r.State(), res.Auth, res.TSIH, r.admits)
	}
	return res
}

var (
	chapOnly = Access{Auth: store.AuthCHAP, CHAP: store.Credential{User: "lab", Secret: right}}
	mutual   = Access{Auth: store.AuthMutual, CHAP: store.Credential{User: "lab", Secret: right}, Reverse: store.Credential{User: "app", Secret: back}}
	open     = Access{Auth: store.AuthNone}
)

// What iPXE offers in the operational stage, and what it gets.
var (
	ipxeOffers = []string{"HeaderDigest=None", "DataDigest=None", "MaxConnections=1", "InitialR2T=Yes", "ImmediateData=No", "MaxRecvDataSegmentLength=8192",
		"MaxBurstLength=262144", "FirstBurstLength=65536", "DefaultTime2Wait=0", "DefaultTime2Retain=0", "MaxOutstandingR2T=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "ErrorRecoveryLevel=0"}
	ipxeGets = []string{"HeaderDigest=None", "DataDigest=None", "MaxConnections=1", "InitialR2T=Yes", "ImmediateData=No",
		"MaxBurstLength=262144", "FirstBurstLength=65536", "DefaultTime2Wait=0", "DefaultTime2Retain=0", "MaxOutstandingR2T=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "ErrorRecoveryLevel=0",
		"MaxRecvDataSegmentLength=262144"}
)

// chapMD5 is the answer to the rig's challenge.
func chapMD5(secret string) string {
	sum := md5.Sum(append(append([]byte{1}, secret...), 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17))
	return hex.EncodeToString(sum[:])
}

const challenge = "CHAP_C=0x02030405060708090a0b0c0d0e0f1011"

func TestTranscriptOfIPXE(t *testing.T) {
	t.Run("without authentication", func(t *testing.T) {
		r := machine(t, open)
		a := r.say(request(0, 1, ini, tgt, "SessionType=Normal", "AuthMethod=None"), true, "TargetPortalGroupTag=1", "AuthMethod=None")
		if a.SN.StatSN != 100 || a.TSIH != 0 {
			t.Errorf("first response: %+v", a.LoginResponse)
		}
		a = r.say(request(1, 3, ipxeOffers...), true, ipxeGets...)
		if a.SN.StatSN != 101 || a.TSIH != 77 {
			t.Errorf("last response: %+v", a.LoginResponse)
		}
		res := r.done(store.AuthNone)
		p := res.Params
		if res.Initiator != ipxe || res.Discovery || res.StatSN != 102 || res.ExpCmdSN != 9 || !p.InitialR2T || p.ImmediateData || p.MaxRecvDataSegmentLength != 8192 || p.MaxBurstLength != 262144 {
			t.Errorf("result %+v", res)
		}
	})
	t.Run("with CHAP", func(t *testing.T) {
		r := machine(t, chapOnly)
		r.say(request(0, 1, ini, tgt, "SessionType=Normal", "AuthMethod=CHAP,None"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
		r.say(request(0, 1, "CHAP_A=5"), false, "CHAP_A=5", "CHAP_I=1", challenge)
		r.say(request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5(right)), true)
		r.say(request(1, 3, ipxeOffers...), true, ipxeGets...)
		if res := r.done(store.AuthCHAP); res.Method != "CHAP with MD5" {
			t.Errorf("method %q", res.Method)
		}
	})
	t.Run("with mutual CHAP", func(t *testing.T) {
		r := machine(t, mutual)
		r.say(request(0, 1, ini, tgt, "SessionType=Normal", "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
		r.say(request(0, 1, "CHAP_A=5"), false, "CHAP_A=5", "CHAP_I=1", challenge)
		sum := md5.Sum([]byte("\x09" + back + "\xaa\xbb"))
		r.say(request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5(right), "CHAP_I=9", "CHAP_C=0xaabb"), true, "CHAP_N=app", "CHAP_R=0x"+hex.EncodeToString(sum[:]))
		r.say(request(1, 3, ipxeOffers...), true, ipxeGets...)
		if res := r.done(store.AuthMutual); res.Method != "mutual CHAP with MD5" {
			t.Errorf("method %q", res.Method)
		}
	})
}

// open-iscsi begins with NSG 0 and T clear, and gives itself an alias.
func TestTranscriptOfLinux(t *testing.T) {
	r := machine(t, mutual)
	linux := func(csg, nsg pdu.Stage, keys ...string) Request {
		q := request(csg, nsg, keys...)
		q.ISID = pdu.ISID{0, 2, 0x3d, 0, 0, 1}
		return q
	}
	r.say(linux(0, 0, ini, "InitiatorAlias=lab-03", tgt, "SessionType=Normal", "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
	r.say(linux(0, 0, "CHAP_A=5"), false, "CHAP_A=5", "CHAP_I=1", challenge)
	sum := md5.Sum([]byte("\x80" + back + "\x01"))
	r.say(linux(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5(right), "CHAP_I=128", "CHAP_C=0x01"), true, "CHAP_N=app", "CHAP_R=0x"+hex.EncodeToString(sum[:]))
	r.say(linux(1, 3, "HeaderDigest=None", "DataDigest=None", "DefaultTime2Wait=2", "DefaultTime2Retain=0", "IFMarker=No", "OFMarker=No", "ErrorRecoveryLevel=0",
		"InitialR2T=No", "ImmediateData=Yes", "MaxBurstLength=16776192", "FirstBurstLength=262144", "MaxOutstandingR2T=1", "MaxConnections=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "MaxRecvDataSegmentLength=262144"), true,
		"HeaderDigest=None", "DataDigest=None", "DefaultTime2Wait=2", "DefaultTime2Retain=0", "IFMarker=No", "OFMarker=No", "ErrorRecoveryLevel=0",
		"InitialR2T=No", "ImmediateData=Yes", "MaxBurstLength=1048576", "FirstBurstLength=262144", "MaxOutstandingR2T=1", "MaxConnections=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "MaxRecvDataSegmentLength=262144")
	res := r.done(store.AuthMutual)
	if res.Alias != "lab-03" || res.Params.InitialR2T || !res.Params.ImmediateData || res.Params.FirstBurstLength != 262144 {
		t.Errorf("result %+v", res)
	}
}

func TestDiscovery(t *testing.T) {
	r := machine(t, open)
	r.say(request(1, 3, "InitiatorName=iqn.2026-11.test:stranger", "SessionType=Discovery", "HeaderDigest=None", "MaxConnections=4", "InitialR2T=No", "MaxBurstLength=262144", "DefaultTime2Wait=2"), true,
		"HeaderDigest=None", "MaxConnections=Irrelevant", "InitialR2T=Irrelevant", "MaxBurstLength=Irrelevant", "DefaultTime2Wait=2", "MaxRecvDataSegmentLength=262144")
	if !r.done(store.AuthNone).Discovery {
		t.Error("the session is not one for discovery")
	}
}

func TestKeysAreAnsweredByTheirRule(t *testing.T) {
	for _, c := range []struct{ offer, answer string }{
		{"HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C"},
		{"DataDigest=None,CRC32C", "DataDigest=None"},
		{"HeaderDigest=MD5", "HeaderDigest=Reject"},
		{"MaxConnections=8", "MaxConnections=1"},
		{"MaxConnections=0", "MaxConnections=Reject"},
		{"MaxConnections=many", "MaxConnections=Reject"},
		{"MaxBurstLength=0x20000", "MaxBurstLength=131072"},
		{"MaxBurstLength=511", "MaxBurstLength=Reject"},
		{"MaxBurstLength=16777216", "MaxBurstLength=Reject"},
		{"InitialR2T=Yes", "InitialR2T=Yes"},
		{"InitialR2T=No", "InitialR2T=No"},
		{"InitialR2T=yes", "InitialR2T=Reject"},
		{"ImmediateData=No", "ImmediateData=No"},
		{"MaxOutstandingR2T=16", "MaxOutstandingR2T=1"},
		{"DefaultTime2Wait=5", "DefaultTime2Wait=5"},
		{"DefaultTime2Retain=20", "DefaultTime2Retain=0"},
		{"DataPDUInOrder=No", "DataPDUInOrder=Yes"},
		{"DataSequenceInOrder=No", "DataSequenceInOrder=Yes"},
		{"ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"},
		{"TaskReporting=FastAbort,RFC3720", "TaskReporting=RFC3720"},
		{"iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"},
		{"IFMarker=Yes", "IFMarker=No"},
		{"OFMarkInt=2048~8192", "OFMarkInt=Reject"},
		{"X-com.example.key=1", "X-com.example.key=NotUnderstood"},
		{"RDMAExtensions=Yes", "RDMAExtensions=NotUnderstood"},
		{"SendTargets=All", "SendTargets=Reject"},
	} {
		r := machine(t, open)
		r.say(request(1, 3, ini, tgt, c.offer), true, "TargetPortalGroupTag=1", c.answer, "MaxRecvDataSegmentLength=262144")
	}
	r := machine(t, open)
	r.say(request(1, 3, ini, tgt, "MaxBurstLength=65536", "FirstBurstLength=131072"), true, "TargetPortalGroupTag=1", "MaxBurstLength=65536", "FirstBurstLength=65536", "MaxRecvDataSegmentLength=262144")
	if p := r.done(store.AuthNone).Params; p.FirstBurstLength != 65536 {
		t.Errorf("FirstBurstLength is %d, beyond MaxBurstLength", p.FirstBurstLength)
	}
}

func TestCHAPAlgorithms(t *testing.T) {
	for offered, picked := range map[string]int{"5": 5, "6": 6, "7": 7, "8": 8, "0x8,5": 8, "99,7,5": 7} {
		r := machine(t, mutual)
		r.say(request(0, 0, ini, tgt, "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
		a := r.Step(request(0, 0, "CHAP_A="+offered))
		got := lines(a.Data)
		if got[0] != fmt.Sprintf("CHAP_A=%d", picked) {
			t.Fatalf("offered %s, got %q", offered, got)
		}
		alg := algorithms[picked]
		their, err := decodeBinary(strings.TrimPrefix(got[2], "CHAP_C="))
		if err != nil || len(their) != alg.new().Size() {
			t.Fatalf("challenge %q: %v", got[2], err)
		}
		response := base64.StdEncoding.EncodeToString(digestOf(&alg, 1, right, their))
		r.say(request(0, 3, "CHAP_N=lab", "CHAP_R=0b"+response, "CHAP_I=0x10", "CHAP_C=0bAQID"), true,
			"CHAP_N=app", "CHAP_R=0x"+hex.EncodeToString(digestOf(&alg, 16, back, []byte{1, 2, 3})))
		r.done(store.AuthMutual)
	}
}

func TestCHAPIsNotWeakened(t *testing.T) {
	begun := func(a Access) *rig {
		r := machine(t, a)
		r.say(request(0, 0, ini, tgt, "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
		r.say(request(0, 0, "CHAP_A=5"), false, "CHAP_A=5", "CHAP_I=1", challenge)
		return r
	}
	good := "CHAP_R=0x" + chapMD5(right)
	machine(t, chapOnly).refuses(request(0, 1, ini, tgt, "AuthMethod=None"), pdu.LoginAuthFailure, `"None"`, "CHAP is required")
	machine(t, mutual).refuses(request(0, 1, ini, tgt, "AuthMethod=KRB5,None"), pdu.LoginAuthFailure, "KRB5", "mutual CHAP is required")
	machine(t, chapOnly).refuses(request(1, 3, ini, tgt), pdu.LoginAuthFailure, "without authentication", "CHAP is required")
	machine(t, chapOnly).refuses(request(1, 3, "SessionType=Discovery", ini), pdu.LoginAuthFailure, "CHAP is required")
	machine(t, open).refuses(request(0, 1, ini, tgt, "AuthMethod=CHAP"), pdu.LoginAuthFailure, `"CHAP"`, "no authentication is required")
	begun(mutual).refuses(request(0, 1, "CHAP_N=lab", good), pdu.LoginAuthFailure, "one-way CHAP", "mutual CHAP is required")
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=1", "CHAP_C=0x0102"), pdu.LoginAuthFailure, "wants mutual CHAP", "no reverse secret")
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5("wrongwrongwrong1")), pdu.LoginAuthFailure, "another CHAP secret")
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=other", good), pdu.LoginAuthFailure, `"other"`, `"lab"`)
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=lab", "CHAP_R=0x"), pdu.LoginAuthFailure)
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=lab", "CHAP_R=zz"), pdu.LoginAuthFailure, "cannot be read")
	begun(chapOnly).refuses(request(0, 1, "CHAP_N=lab"), pdu.LoginAuthFailure)
	begun(chapOnly).refuses(request(0, 1, good), pdu.LoginAuthFailure)
	begun(mutual).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=1", challenge), pdu.LoginAuthFailure, "own CHAP challenge back")
	begun(mutual).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=256", "CHAP_C=0x01"), pdu.LoginAuthFailure, "256")
	begun(mutual).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=1"), pdu.LoginAuthFailure, "challenge")
	begun(mutual).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=1", "CHAP_C=0x"+strings.Repeat("00", maxBinary+10)), pdu.LoginAuthFailure, "challenge")
	same := mutual
	same.Reverse.Secret = right
	begun(same).refuses(request(0, 1, "CHAP_N=lab", good, "CHAP_I=1", "CHAP_C=0x01"), pdu.LoginAuthFailure, "must differ")
	blank := chapOnly
	blank.CHAP.Secret = ""
	begun(blank).refuses(request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5("")), pdu.LoginAuthFailure)

	r := machine(t, chapOnly)
	r.say(request(0, 0, ini, tgt, "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
	r.refuses(request(0, 0, "CHAP_A=1,99"), pdu.LoginAuthFailure, "1,99", "5 (MD5)")
	// Leaving the stage without the proof is not granted.
	r = machine(t, chapOnly)
	r.say(request(0, 3, ini, tgt, "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
	r.say(request(0, 3), false)
	r.refuses(request(1, 3), pdu.LoginInitiatorError, "security negotiation")
	// Nor is an answer without a challenge.
	machine(t, chapOnly).refuses(request(0, 1, ini, tgt, "AuthMethod=CHAP", "CHAP_N=lab", good), pdu.LoginInitiatorError, "not sent")
	machine(t, chapOnly).refuses(request(0, 1, ini, tgt, "CHAP_A=5"), pdu.LoginInitiatorError, "out of order")
	begun(chapOnly).refuses(request(0, 0, "CHAP_A=5"), pdu.LoginInitiatorError, "out of order")
	begun(chapOnly).refuses(request(0, 0, "AuthMethod=CHAP"), pdu.LoginInitiatorError, "twice")
	begun(chapOnly).refuses(request(0, 0, "CHAP_N=a", "CHAP_N=b"), pdu.LoginInitiatorError, "twice")
	begun(mutual).refuses(request(0, 0, "CHAP_I=1", "CHAP_C=0x0102"), pdu.LoginInitiatorError, "without its own response")
}

// Rules tell refusals of one status apart by their cause.
func TestRefusalsSayTheirCause(t *testing.T) {
	begun := func(a Access) *rig {
		r := machine(t, a)
		r.say(request(0, 0, ini, tgt, "AuthMethod=CHAP"), false, "TargetPortalGroupTag=1", "AuthMethod=CHAP")
		r.say(request(0, 0, "CHAP_A=5"), false, "CHAP_A=5", "CHAP_I=1", challenge)
		return r
	}
	good := "CHAP_R=0x" + chapMD5(right)
	for _, c := range []struct {
		r      *rig
		q      Request
		status pdu.LoginStatus
		cause  store.Cause
		asked  string
	}{
		{machine(t, chapOnly), request(0, 1, ini, tgt, "AuthMethod=None"), pdu.LoginAuthFailure, store.CauseAuthRequired, ""},
		{machine(t, chapOnly), request(1, 3, ini, tgt), pdu.LoginAuthFailure, store.CauseAuthRequired, ""},
		{begun(mutual), request(0, 1, "CHAP_N=lab", good), pdu.LoginAuthFailure, store.CauseAuthRequired, ""},
		{begun(chapOnly), request(0, 1, "CHAP_N=lab", good, "CHAP_I=1", "CHAP_C=0x0102"), pdu.LoginAuthFailure, store.CauseNoReverse, ""},
		{begun(chapOnly), request(0, 1, "CHAP_N=lab", "CHAP_R=0x"+chapMD5("wrongwrongwrong1")), pdu.LoginAuthFailure, store.CauseWrongSecret, ""},
		{begun(chapOnly), request(0, 1, "CHAP_N=other", good), pdu.LoginAuthFailure, store.CauseWrongSecret, ""},
		{begun(chapOnly), request(0, 1, "CHAP_N=lab", "CHAP_R=zz"), pdu.LoginAuthFailure, "", ""},
		{machine(t, open), request(1, 3, ini, "TargetName=iqn.2026-11.lunboot:\x1b[2Jother"), pdu.LoginNotFound, "", `iqn.2026-11.lunboot:\x1b[2Jother`},
	} {
		c.r.refuses(c.q, c.status)
		if r := c.r.Refusal(); r.Cause != c.cause || r.Asked != c.asked {
			t.Errorf("%s: the cause is %q, of %q; want %q, of %q", r.Reason, r.Cause, r.Asked, c.cause, c.asked)
		}
	}
}

func TestRefusals(t *testing.T) {
	with := func(edit func(*Request)) Request {
		q := request(1, 3, ini, tgt)
		edit(&q)
		return q
	}
	for name, c := range map[string]struct {
		q      Request
		status pdu.LoginStatus
		words  string
	}{
		"another target":    {request(1, 3, ini, "TargetName=iqn.2026-11.lunboot:other"), pdu.LoginNotFound, string(us)},
		"a stranger":        {request(1, 3, "InitiatorName=iqn.2026-11.test:stranger", tgt), pdu.LoginAuthorizationFail, "nobody"},
		"no name":           {request(1, 3, tgt), pdu.LoginMissingParameter, "InitiatorName"},
		"a bad name":        {request(1, 3, "InitiatorName=me", tgt), pdu.LoginAuthorizationFail, "iqn."},
		"no target":         {request(1, 3, ini), pdu.LoginMissingParameter, "TargetName"},
		"a strange session": {request(1, 3, ini, tgt, "SessionType=Boot"), pdu.LoginSessionType, "Boot"},
		"another version":   {with(func(q *Request) { q.VersionMin, q.VersionMax = 1, 2 }), pdu.LoginUnsupportedVersion, "1 to 2"},
		"an old session":    {with(func(q *Request) { q.TSIH = 5 }), pdu.LoginSessionDoesNotExist, "no such"},
		"T and C":           {with(func(q *Request) { q.Continue = true }), pdu.LoginInitiatorError, "T and C"},
		"stage 2":           {with(func(q *Request) { q.CSG, q.NSG = 2, 3 }), pdu.LoginInitiatorError, "stage 2"},
		"to stage 2":        {with(func(q *Request) { q.NSG = 2 }), pdu.LoginInitiatorError, "stage 2"},
		"backwards":         {with(func(q *Request) { q.NSG = 0 }), pdu.LoginInitiatorError, "security"},
		"broken text":       {with(func(q *Request) { q.Data = []byte("InitiatorName") }), pdu.LoginInitiatorError, "cannot be read"},
		"a key twice":       {request(1, 3, ini, tgt, "MaxConnections=1", "MaxConnections=1"), pdu.LoginInitiatorError, "MaxConnections twice"},
		"a target's key":    {request(1, 3, ini, tgt, "TargetAlias=x"), pdu.LoginInitiatorError, "TargetAlias"},
		"a bad declaration": {request(1, 3, ini, tgt, "MaxRecvDataSegmentLength=12"), pdu.LoginInitiatorError, "MaxRecvDataSegmentLength=\"12\""},
		"CHAP too late":     {request(1, 3, ini, tgt, "CHAP_A=5"), pdu.LoginInitiatorError, "after the security stage"},
	} {
		t.Run(name, func(t *testing.T) { machine(t, open).refuses(c.q, c.status, c.words) })
	}
	t.Run("no room", func(t *testing.T) {
		r := machine(t, open)
		r.why = &Refusal{Status: pdu.LoginOutOfResources, Reason: "full"}
		r.refuses(request(1, 3, ini, tgt), pdu.LoginOutOfResources, "full")
	})
	t.Run("another tag", func(t *testing.T) {
		r := machine(t, open)
		r.say(request(1, 1, ini, tgt), false, "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
		q := request(1, 3)
		q.InitiatorTaskTag++
		r.refuses(q, pdu.LoginInitiatorError, "task tag")
	})
	t.Run("after the end", func(t *testing.T) {
		r := machine(t, open)
		r.say(request(1, 3, ini, tgt), true, "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
		r.refuses(request(1, 3), pdu.LoginInvalidDuringLogin)
	})
	t.Run("without end", func(t *testing.T) {
		r := machine(t, open)
		r.say(request(1, 1, ini, tgt), false, "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
		for range maxRequests - 1 {
			r.say(request(1, 1), false)
		}
		r.refuses(request(1, 1), pdu.LoginInitiatorError, "requests")
	})
}

// RFC 7143 §6.2: text may be cut anywhere, and goes on in the next PDU.
func TestTextOverSeveralPDUs(t *testing.T) {
	r := machine(t, open)
	all := txt(append([]string{ini, tgt, "SessionType=Normal"}, ipxeOffers...)...)
	for cut := range []int{0, 1} {
		q := request(1, 1)
		q.Continue = true
		q.Data = all[:10+cut]
		all = all[10+cut:]
		r.say(q, false)
	}
	q := request(1, 3)
	q.Data = all
	r.say(q, true, append([]string{"TargetPortalGroupTag=1"}, ipxeGets...)...)
	r.done(store.AuthNone)

	r = machine(t, open)
	q = request(1, 1)
	q.Continue = true
	q.Data = make([]byte, 8192)
	for range maxText / 8192 {
		r.say(q, false)
	}
	r.refuses(q, pdu.LoginInitiatorError, "bytes")
}

// An answer that does not fit one PDU goes out in several, and the stage ends
// with the last one.
func TestLongAnswer(t *testing.T) {
	r := machine(t, open)
	keys := []string{ini, tgt}
	want := []string{"TargetPortalGroupTag=1"}
	for n := range 120 {
		k := fmt.Sprintf("X-com.example.%s.%03d", strings.Repeat("y", 40), n)
		keys = append(keys, k+"=1")
		want = append(want, k+"=NotUnderstood")
	}
	want = append(want, "MaxRecvDataSegmentLength=262144")
	a := r.Step(request(1, 3, keys...))
	if a.Status != 0 || !a.Continue || a.Transit || len(a.Data) > maxResponse {
		t.Fatalf("first part: %+v, %d bytes, %v", a.LoginResponse, len(a.Data), r.Refusal())
	}
	got := a.Data
	a = r.Step(request(1, 3))
	if a.Continue || !a.Transit || a.NSG != pdu.FullFeaturePhase {
		t.Fatalf("last part: %+v", a.LoginResponse)
	}
	if !slices.Equal(lines(append(got, a.Data...)), want) {
		t.Error("the parts do not make the answer")
	}
	r.done(store.AuthNone)
}

func TestRenegotiate(t *testing.T) {
	p := Defaults()
	got := Renegotiate(&p, []pdu.Pair{{Key: "MaxRecvDataSegmentLength", Value: "65536"}, {Key: "MaxBurstLength", Value: "512"}, {Key: "AuthMethod", Value: "None"}, {Key: "X-a", Value: "b"}, {Key: "InitiatorAlias", Value: "z"}, {Key: "IFMarker", Value: "Yes"}})
	want := []pdu.Pair{{Key: "MaxBurstLength", Value: "Reject"}, {Key: "AuthMethod", Value: "Reject"}, {Key: "X-a", Value: "NotUnderstood"}, {Key: "IFMarker", Value: "Reject"}}
	if !slices.Equal(got, want) {
		t.Errorf("answered %v", got)
	}
	if p.MaxRecvDataSegmentLength != 65536 || p.MaxBurstLength != 262144 {
		t.Errorf("parameters %+v", p)
	}
	if got := Renegotiate(&p, []pdu.Pair{{Key: "MaxRecvDataSegmentLength", Value: "7"}}); !slices.Equal(got, []pdu.Pair{{Key: "MaxRecvDataSegmentLength", Value: "Reject"}}) || p.MaxRecvDataSegmentLength != 65536 {
		t.Errorf("answered %v", got)
	}
}

// Whatever an initiator says, the machine answers within bounds, admits at most
// once, and lets nobody in who has not proved itself.
func FuzzText(f *testing.F) {
	f.Add(txt(ini, tgt, "AuthMethod=CHAP"), txt("CHAP_A=5"), txt("CHAP_N=lab", "CHAP_R=0x00"), byte(0x81))
	f.Add(txt(append([]string{ini, tgt}, ipxeOffers...)...), []byte{}, []byte{}, byte(0x87))
	f.Fuzz(func(t *testing.T, a, b, c []byte, flags byte) {
		r := machine(t, mutual)
		for n, data := range [][]byte{a, b, c, a} {
			q := request(0, 0)
			h := pdu.Header{0x43, flags}
			q.Encode(&h)
			h[1] = flags
			if n > 1 {
				h[1] ^= 0x80
			}
			if err := q.LoginRequest.Decode(&h); err != nil {
				t.Fatal(err)
			}
			q.Data = data
			p := r.Step(q)
			if len(p.Data) > maxResponse {
				t.Fatalf("an answer of %d bytes", len(p.Data))
			}
			if p.Continue && p.Transit {
				t.Fatal("an answer with both T and C")
			}
			if strings.Contains(string(p.Data), right) || strings.Contains(string(p.Data), back) {
				// The initiator may have said it itself, in a key's name.
				if !strings.Contains(string(a)+string(b)+string(c), right) && !strings.Contains(string(a)+string(b)+string(c), back) {
					t.Fatal("a secret left")
				}
			}
			if r.State() == Done {
				t.Fatal("somebody came in without the secret")
			}
			if r.State() == Failed {
				if p.Status == 0 || r.Refusal().Reason == "" {
					t.Fatal("a refusal without a reason")
				}
				return
			}
		}
	})
}
