package store

import "time"

// AttemptID identifies one try to boot.
type AttemptID int64

// Outcome says how an attempt ended, or that it has not.
type Outcome string

// The outcomes of an attempt.
const (
	OutcomeRunning       Outcome = "running"
	OutcomeUp            Outcome = "up"             // the operating system spoke
	OutcomeUpUnconfirmed Outcome = "up-unconfirmed" // it reads its disk steadily, and has not said so
	OutcomeFailed        Outcome = "failed"
	// OutcomeNotEnrolled is the end of a boot that nothing was promised to: the machine
	// waited to be enrolled until it stopped asking, or is on the list of ignored ones.
	OutcomeNotEnrolled Outcome = "not-enrolled"
)

// Outcomes lists every outcome, in the order of who needs a look first.
func Outcomes() []Outcome {
	return []Outcome{OutcomeFailed, OutcomeRunning, OutcomeUpUnconfirmed, OutcomeUp, OutcomeNotEnrolled}
}

// StageName is one step of a boot.
type StageName string

// The stages, in boot order.
const (
	StageAsk     StageName = "ask"     // asked for an address
	StageAddress StageName = "address" // got an address
	StageLoader  StageName = "loader"  // fetched the loader
	StageScript  StageName = "script"  // fetched its script
	StageLogin   StageName = "login"   // logged in to the target
	StageRead    StageName = "read"    // read from its volume
	StageUp      StageName = "up"      // the operating system is up
)

// Stages lists the stages in boot order.
func Stages() []StageName {
	return []StageName{StageAsk, StageAddress, StageLoader, StageScript, StageLogin, StageRead, StageUp}
}

// StageState is how far a stage has come.
type StageState string

// The states of a stage.
const (
	StageWaiting StageState = "waiting"
	StageRunning StageState = "running"
	StageDone    StageState = "done"
	StageSlow    StageState = "slow" // done, far later than usual
	StageFailed  StageState = "failed"
	StageSkipped StageState = "skipped" // this boot does not need it
	StageUnsure  StageState = "unsure"  // no sign either way
)

// Hold is what became of the session of a system that came up from its volume.
type Hold string

// The states of a hold.
const (
	HoldHeld Hold = "held" // it has one
	HoldAway Hold = "away" // it has none, and may come back
	HoldLost Hold = "lost" // it did not come back: it is off, or cannot reach its volume
)

// Stage is one step of an attempt.
type Stage struct {
	Name   StageName  `json:"name"`
	State  StageState `json:"state"`
	At     time.Time  `json:"at"`             // when it was first seen
	Ended  time.Time  `json:"ended"`          // when it was done or failed
	Detail string     `json:"detail"`         // one line of fact
	Hold   Hold       `json:"hold,omitempty"` // of the stage up: whether its system still has its volume; empty when it boots from none
	HoldAt time.Time  `json:"hold_at,omitzero"`
}

// Confidence says how sure a diagnosis is.
type Confidence string

// The levels of confidence.
const (
	Certain    Confidence = "certain"     // we did or saw it
	VeryLikely Confidence = "very likely" //
	BestGuess  Confidence = "best guess"  //
	CannotSee  Confidence = "cannot be seen from here"
)

// Fix is one thing that the operator can do about a diagnosis.
type Fix struct {
	Action string `json:"action"` // a machine-readable verb: "map-lun-0", or "" for advice
	Label  string `json:"label"`  // what the button or line says
}

// Diagnosis explains a boot that failed.
type Diagnosis struct {
	Code       string     `json:"code"`  // the rule's stable name: "LB-LUN-01"
	Title      string     `json:"title"` // who could not do what, because of what
	Cause      string     `json:"cause"` // why, in two sentences without jargon
	Confidence Confidence `json:"confidence"`
	Aside      bool       `json:"aside,omitempty"` // true besides whatever else is said
	Fixes      []Fix      `json:"fixes"`
	Evidence   []string   `json:"evidence"` // what we saw, with times
}

// Attempt is one try to boot: a fold over its events.
type Attempt struct {
	ID        AttemptID   `json:"id"`
	Machine   MachineID   `json:"machine,omitempty"`
	Name      string      `json:"machine_name,omitempty"`
	MAC       MAC         `json:"mac"`
	Key       string      `json:"-"` // what a report must carry; random
	Started   time.Time   `json:"started"`
	Updated   time.Time   `json:"updated"`
	Outcome   Outcome     `json:"outcome"`
	Stage     StageName   `json:"stage"` // the furthest stage that is done, running or failed
	Stages    []Stage     `json:"stages"`
	Diagnoses []Diagnosis `json:"diagnoses"`
	Firmware  string      `json:"firmware,omitempty"`
	Arch      string      `json:"arch,omitempty"`
	Address   string      `json:"address,omitempty"`
	Script    string      `json:"script,omitempty"` // as it was given, secrets replaced
	Owned     bool        `json:"-"`                // its script is by a profile for one boot, and went to an address that was shown to be the machine's
	FirstSeq  int64       `json:"first_seq"`
	LastSeq   int64       `json:"last_seq"`
	// UsualMillis is what this machine's boots that went well usually take, from
	// asking to up; 0 when there were none, or nobody looks at this boot any more.
	UsualMillis int64 `json:"usual_ms,omitempty"`
}

// Subject names whose boot it is: the machine's name, its MAC, or its address.
func (a *Attempt) Subject() string {
	switch {
	case a.Name != "":
		return a.Name
	case !a.MAC.IsZero():
		return a.MAC.String()
	}
	return a.Address
}

// AttemptFilter narrows a listing of attempts. Empty fields match all.
type AttemptFilter struct {
	Machine MachineID
	MAC     MAC
	Search  Search // with the qualifiers of AttemptKeys, as ParseAttemptSearch leaves them
	Since   time.Time
	Until   time.Time // not itself
	Sort    string    // one of AttemptColumns, with a hyphen before it the other way; empty: newest first
	Page
}

// Session is one live iSCSI session.
type Session struct {
	ID        string    `json:"id"`
	Initiator IQN       `json:"initiator"`
	Machine   MachineID `json:"machine,omitempty"`
	ISID      string    `json:"isid"` // twelve hexadecimal digits
	IPXE      bool      `json:"ipxe"` // the ISID is iPXE's
	TSIH      uint16    `json:"tsih"`
	Addr      string    `json:"addr"`   // the initiator's address and port
	Portal    string    `json:"portal"` // ours
	Auth      AuthMode  `json:"auth"`
	Since     time.Time `json:"since"`
	LastIO    time.Time `json:"last_io"`
	Read      int64     `json:"read"`    // bytes
	Written   int64     `json:"written"` // bytes
	LUNs      []LUN     `json:"luns"`
}
