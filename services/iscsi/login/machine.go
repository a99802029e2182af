package login

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// Access is what the inventory says about one initiator.
type Access struct {
	Auth    store.AuthMode
	CHAP    store.Credential // the initiator's
	Reverse store.Credential // the target's, for mutual
}

// Refusal ends a login.
type Refusal struct {
	Status pdu.LoginStatus
	Reason string // one plain sentence with both sides of the matter
	Cause  store.Cause
	// Asked is the machine whose name was given, or the target that is not here.
	Asked string
}

func (r *Refusal) Error() string { return r.Status.String() + ": " + r.Reason }

func refuse(s pdu.LoginStatus, format string, args ...any) *Refusal {
	return &Refusal{Status: s, Reason: fmt.Sprintf(format, args...)}
}

// because names the cause of a refusal.
func (r *Refusal) because(c store.Cause) *Refusal {
	r.Cause = c
	return r
}

// Config is what a Machine asks of its surroundings.
type Config struct {
	Target      store.IQN // the appliance's one target name
	PortalGroup uint16    // TargetPortalGroupTag
	Offer       Params    // what the target is ready to agree to

	// Lookup says how an initiator must prove itself, or why it may not log
	// in at all.
	Lookup func(initiator store.IQN, discovery bool) (Access, *Refusal)
	// Join answers a request that names a session that should exist (TSIH not
	// zero): it returns what was negotiated for the session whose connection the
	// new one replaces (§6.3.4), or refuses. Nothing is proved yet, and nothing
	// happens.
	Join func(Joining) (Params, *Refusal)
	// Admit is asked once, when everything is agreed and before the last
	// response is made: it makes the session and names it, or refuses. The
	// session's next CmdSN is ExpCmdSN; Admit may set it.
	Admit func(*Result) (tsih uint16, refusal *Refusal)

	// Random fills a challenge; nil means crypto/rand.
	Random func([]byte)
}

// Joining is a connection that wants to belong to a session.
type Joining struct {
	Initiator store.IQN
	ISID      pdu.ISID
	TSIH      uint16
	CID       uint16
	Discovery bool
}

// Result is a login that came to its end.
type Result struct {
	Initiator store.IQN
	Alias     string
	Discovery bool
	ISID      pdu.ISID
	TSIH      uint16
	CID       uint16
	Auth      store.AuthMode // what was proved
	Method    string         // for people: "none", "CHAP with MD5", "mutual CHAP with SHA-256"
	Params    Params

	ExpCmdSN pdu.Serial // the first command's
	StatSN   pdu.Serial // the next response's
}

// Request is one Login Request with its data segment.
type Request struct {
	pdu.LoginRequest
	Data []byte
}

// Response is one Login Response with its data segment.
type Response struct {
	pdu.LoginResponse
	Data []byte
}

// State says whether the machine expects another request.
type State uint8

// The states.
const (
	Going State = iota // the next request is awaited
	Done               // full feature phase
	Failed
)

// Bounds of one login.
const (
	maxText     = 32 << 10 // text of one request, spread over PDUs by the C bit
	maxRequests = 64       // requests of one login
	usualAnswer = 512      // bytes of an answer to all common keys
	anyWindow   = 256      // no session has more commands under way
	maxResponse = 8192     // default MaxRecvDataSegmentLength, in force until login ends (§13.12)
	versionOurs = 0        // RFC 7143 §11.12.4
)

// Machine is one login. It is not safe for concurrent use.
type Machine struct {
	cfg   Config
	state State
	why   *Refusal

	started  bool
	first    pdu.LoginRequest
	statSN   pdu.Serial
	requests int
	stage    pdu.Stage

	text           []byte // of a request that goes on in the next PDU
	out            []byte // of a response that does not fit one PDU
	seen           seenKeys
	offered, trial Params // of offer
	leading        bool   // the names are known
	declare        bool   // our MaxRecvDataSegmentLength was told

	access Access
	auth   authState
	res    Result
}

// New begins a login.
func New(cfg Config) *Machine {
	if cfg.Random == nil {
		cfg.Random = func(b []byte) { _, _ = rand.Read(b) } // never fails (crypto/rand)
	}
	m := &Machine{cfg: cfg}
	m.res.Params = Defaults()
	m.res.Auth, m.res.Method = store.AuthNone, "none"
	return m
}

// State returns how far the login is.
func (m *Machine) State() State { return m.state }

// Refusal says why the login failed, nil when it did not.
func (m *Machine) Refusal() *Refusal { return m.why }

// Result returns what is known so far; all of it holds when the state is Done.
func (m *Machine) Result() Result { return m.res }

// Step answers one request. After a refusal the connection must be closed.
func (m *Machine) Step(q Request) Response {
	r := Response{LoginResponse: pdu.LoginResponse{
		CSG: q.CSG, ISID: q.ISID, TSIH: q.TSIH, InitiatorTaskTag: q.InitiatorTaskTag,
		VersionMax: versionOurs, VersionActive: versionOurs,
		// The login's requests are immediate, and one is under way at a time.
		SN: pdu.SN{ExpCmdSN: q.CmdSN, MaxCmdSN: q.CmdSN},
	}}
	if q.TSIH != 0 {
		// Which command the session expects is known at the end. Until then no
		// command is acknowledged: who knows more ignores what lies behind (§4.2.2.1).
		r.SN.ExpCmdSN = q.CmdSN.Add(-anyWindow)
		r.SN.MaxCmdSN = r.SN.ExpCmdSN.Add(-1)
	}
	if !m.started {
		m.started, m.first, m.stage = true, q.LoginRequest, q.CSG
		m.statSN = q.ExpStatSN // any start is allowed (§11.13.4)
		m.res.ISID, m.res.CID, m.res.ExpCmdSN = q.ISID, q.CID, q.CmdSN
	}
	m.close(&r, m.step(q, &r))
	return r
}

// Interrupt answers a PDU that is no Login Request. Once the login has begun it
// is refused, and before, ok is false: the connection ends without a word
// (§6.3).
func (m *Machine) Interrupt(op pdu.Opcode) (r Response, ok bool) {
	if !m.started {
		return r, false
	}
	f := &m.first
	r.LoginResponse = pdu.LoginResponse{CSG: m.stage, ISID: f.ISID, TSIH: f.TSIH, InitiatorTaskTag: f.InitiatorTaskTag, SN: pdu.SN{ExpCmdSN: f.CmdSN, MaxCmdSN: f.CmdSN}}
	m.close(&r, refuse(pdu.LoginInvalidDuringLogin, "a %s came in the middle of the login", op))
	return r, true
}

// close numbers a response, and makes a refusal of it when there is a reason.
func (m *Machine) close(r *Response, why *Refusal) {
	if why != nil {
		m.state, m.why = Failed, why
		r.Data, r.Transit, r.Continue, r.NSG, r.Status = nil, false, false, 0, why.Status
	}
	r.SN.StatSN = m.statSN
	m.statSN = m.statSN.Add(1)
	m.res.StatSN = m.statSN
}

func (m *Machine) step(q Request, r *Response) *Refusal {
	if m.state != Going {
		return refuse(pdu.LoginInvalidDuringLogin, "a Login Request came after the login had ended")
	}
	if m.requests++; m.requests > maxRequests {
		return refuse(pdu.LoginInitiatorError, "the login took more than %d requests", maxRequests)
	}
	if why := m.check(q); why != nil {
		return why
	}
	if len(m.text)+len(q.Data) > maxText {
		return refuse(pdu.LoginInitiatorError, "the login text has more than %d bytes", maxText)
	}
	if len(m.out) > 0 {
		// The rest of a long response; its request carries no text (§6.2).
		if len(q.Data) > 0 {
			return refuse(pdu.LoginInitiatorError, "the initiator sent text while the target's answer was not complete")
		}
		m.leave(q, r)
		return m.respond(r)
	}
	text := q.Data
	if q.Continue || len(m.text) > 0 {
		m.text = append(m.text, q.Data...)
		text = m.text
	}
	if q.Continue {
		return nil // an empty response asks for the rest
	}
	pairs, err := pdu.ParseText(text)
	m.text = m.text[:0]
	if err != nil {
		return refuse(pdu.LoginInitiatorError, "the login text cannot be read: %v", err)
	}
	if why := m.negotiate(pairs); why != nil {
		return why
	}
	m.leave(q, r)
	return m.respond(r)
}

// check holds a request against the rules of headers (§11.12).
func (m *Machine) check(q Request) *Refusal {
	f := &m.first
	if q.VersionMin > versionOurs {
		return refuse(pdu.LoginUnsupportedVersion, "the initiator speaks versions %d to %d of iSCSI, the target speaks version 0", q.VersionMin, q.VersionMax)
	}
	if q.CSG != pdu.SecurityNegotiation && q.CSG != pdu.OperationalNegotiation {
		return refuse(pdu.LoginInitiatorError, "a Login Request in %s", q.CSG)
	}
	if q.CSG != m.stage {
		return refuse(pdu.LoginInitiatorError, "the initiator went to %s, the login is in %s", q.CSG, m.stage)
	}
	if q.Transit && (q.NSG <= q.CSG || q.NSG != pdu.OperationalNegotiation && q.NSG != pdu.FullFeaturePhase) {
		return refuse(pdu.LoginInitiatorError, "the initiator asked to go from %s to %s", q.CSG, q.NSG)
	}
	if q.Transit && q.Continue {
		return refuse(pdu.LoginInitiatorError, "a Login Request with both T and C")
	}
	if q.ISID != f.ISID || q.TSIH != f.TSIH || q.CID != f.CID || q.InitiatorTaskTag != f.InitiatorTaskTag || q.CmdSN != f.CmdSN {
		return refuse(pdu.LoginInitiatorError, "a Login Request changed the ISID, TSIH, CID, task tag or CmdSN in the middle of the login")
	}
	return nil
}

// negotiate answers the pairs of one complete request into m.out.
func (m *Machine) negotiate(pairs []pdu.Pair) *Refusal {
	first := !m.leading
	if first {
		if why := m.lead(pairs); why != nil {
			return why
		}
	}
	offer := m.offer(pairs)
	for _, p := range pairs {
		if authKey(p.Key) {
			continue
		}
		if why := m.key(p, offer, first); why != nil {
			return why
		}
	}
	if m.stage == pdu.SecurityNegotiation {
		if why := m.authenticate(pairs); why != nil {
			return why
		}
	} else {
		if why := m.needNoAuth(pairs); why != nil {
			return why
		}
		if !m.declare {
			m.declare = true
			m.answer("MaxRecvDataSegmentLength", strconv.Itoa(m.cfg.Offer.TargetMaxRecvDataSegmentLength))
			m.res.Params.TargetMaxRecvDataSegmentLength = m.cfg.Offer.TargetMaxRecvDataSegmentLength
		}
	}
	return nil
}

// lead reads the names of the first request (§6.3.1, §13.4 to §13.6, §13.21).
func (m *Machine) lead(pairs []pdu.Pair) *Refusal {
	m.leading = true
	get := func(key string) (string, bool) {
		for _, p := range pairs {
			if p.Key == key {
				return p.Value, true
			}
		}
		return "", false
	}
	name, ok := get("InitiatorName")
	if !ok {
		return refuse(pdu.LoginMissingParameter, "the initiator did not give its name (InitiatorName)")
	}
	kind, ok := get("SessionType")
	switch {
	case !ok || kind == "Normal":
	case kind == "Discovery":
		m.res.Discovery = true
	default:
		return refuse(pdu.LoginSessionType, "the initiator asked for a session of type %.40q; Normal and Discovery exist", kind)
	}
	iqn, err := store.ParseIQN(name)
	if err != nil {
		return refuse(pdu.LoginAuthorizationFail, "the initiator's name is not an iSCSI name: %v", err)
	}
	m.res.Initiator = store.IQN(strings.Clone(string(iqn)))
	target, ok := get("TargetName")
	if !ok && !m.res.Discovery {
		return refuse(pdu.LoginMissingParameter, "the initiator did not say which target it wants (TargetName)")
	}
	if ok && !strings.EqualFold(target, string(m.cfg.Target)) {
		asked := fmt.Sprintf("%.223q", target) // what cannot be printed is escaped
		r := refuse(pdu.LoginNotFound, "the initiator asked for the target %s; this appliance's target is %s", asked, m.cfg.Target)
		r.Asked = asked[1 : len(asked)-1]
		return r
	}
	if f := &m.first; f.TSIH != 0 {
		agreed, why := m.cfg.Join(Joining{Initiator: iqn, ISID: f.ISID, TSIH: f.TSIH, CID: f.CID, Discovery: m.res.Discovery})
		if why != nil {
			return why
		}
		m.res.Params = agreed.ofSession()
	}
	access, why := m.cfg.Lookup(iqn, m.res.Discovery)
	if why != nil {
		return why
	}
	m.access = access
	if !m.res.Discovery {
		m.answer("TargetPortalGroupTag", strconv.Itoa(int(m.cfg.PortalGroup))) // §13.9
	}
	return nil
}

// leave agrees to the end of the stage, when the initiator asks for it and has
// proved itself.
func (m *Machine) leave(q Request, r *Response) {
	if q.Transit && (q.CSG == pdu.OperationalNegotiation || m.auth.done) {
		r.Transit, r.NSG = true, q.NSG
	}
}

func (m *Machine) answer(key, value string) {
	if m.out == nil {
		m.out = make([]byte, 0, usualAnswer)
	}
	m.out = pdu.AppendText(m.out, key, value)
}

// respond moves the answer, or as much of it as one PDU holds, into r, and ends
// the stage when its last byte leaves.
func (m *Machine) respond(r *Response) *Refusal {
	if len(m.out) > maxResponse {
		// §6.2: a response that goes on has C=1 and T=0.
		r.Data, m.out = m.out[:maxResponse:maxResponse], m.out[maxResponse:]
		r.Continue, r.Transit, r.NSG = true, false, 0
		return nil
	}
	if r.Transit {
		if r.NSG == pdu.FullFeaturePhase {
			m.res.Params.settle()
			tsih, why := m.cfg.Admit(&m.res)
			if why != nil {
				return why
			}
			m.res.TSIH, r.TSIH = tsih, tsih
			r.SN.ExpCmdSN, r.SN.MaxCmdSN = m.res.ExpCmdSN, m.res.ExpCmdSN
			m.state = Done
		}
		m.stage = r.NSG
	}
	r.Data, m.out = m.out, nil
	return nil
}
