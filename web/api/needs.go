package api

import (
	"context"
	"crypto/sha256"
	"net/netip"

	"lunboot/store"
)

// Store is what the API reads: one method a noun's listing or look-up.
type Store interface {
	MachineStore
	VolumeStore
	NetworkStore
	Jobs(context.Context) ([]store.Job, error)
	Job(ctx context.Context, id int64) (store.Job, error)
	store.SettingRows
	SettingRevision(ctx context.Context, key string) (int64, error)
	AuditLog(context.Context, store.AuditFilter) ([]store.Audit, int, error)
	EveryChange(context.Context, store.AuditFilter) (store.Parts[store.Audit], error)
	Record(ctx context.Context, by store.Actor, action, subject, detail string) error
	Repeats
}

// Repeats remember across a restart which requests were done under a key.
type Repeats interface {
	// Under has the first change that is made with the context keep that a request was
	// done, in its own transaction.
	Under(ctx context.Context, who, key string, request [sha256.Size]byte) context.Context
	// DoneUnder says which request was done under a key, and what it did.
	DoneUnder(ctx context.Context, who, key string) (request [sha256.Size]byte, did string, found bool, err error)
	// NotDone forgets one that failed after all.
	NotDone(ctx context.Context, who, key string) error
}

// MachineStore reads machines and what they boot by.
type MachineStore interface {
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	// ClientRevision rises when a machine changes.
	ClientRevision() int64
	UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error)
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	Profiles(context.Context) ([]store.Profile, error)
	Profile(context.Context, string) (store.Profile, error)
}

// VolumeStore reads volumes and mappings.
type VolumeStore interface {
	Volumes(context.Context) ([]store.Volume, error)
	Volume(context.Context, store.VolumeID) (store.Volume, error)
	Mappings(context.Context) ([]store.Mapping, error)
	// MappingViews are a machine's mappings; everybody's for none.
	MappingViews(context.Context, store.MachineID) ([]store.MappingView, error)
	Machine(context.Context, store.MachineID) (store.Machine, error)
}

// NetworkStore reads subnets and leases.
type NetworkStore interface {
	Subnets(context.Context) ([]store.Subnet, error)
	Leases(context.Context) ([]store.Lease, error)
}

// LeaseActs forgets leases.
type LeaseActs interface {
	DropLease(context.Context, store.Actor, netip.Addr) error
	DropLeases(context.Context, store.Actor, store.LeaseDropSpec) ([]store.LeaseDropped, error)
}

// Acts is what an operator does to machines, mappings and profiles.
type Acts interface {
	MachineActs
	Enrolling
	MappingActs
	SubnetActs
	LeaseActs
	PutProfile(context.Context, store.Actor, store.Profile) (store.Profile, error)
	DeleteProfile(ctx context.Context, by store.Actor, name string) error
	PutSetting(context.Context, store.Actor, store.Setting) error
}

// MachineActs changes machines. FindMachine takes an id, name, MAC or UUID.
type MachineActs interface {
	FindMachine(ctx context.Context, key string) (store.Machine, error)
	AddMachine(context.Context, store.Actor, store.MachineSpec) (store.Machine, error)
	SetMachine(context.Context, store.Actor, store.MachineID, store.MachinePatch) (store.Machine, error)
	RemoveMachine(ctx context.Context, by store.Actor, id store.MachineID, force bool) error
	ImportMachines(context.Context, store.Actor, store.MachineImportSpec) (store.MachineImport, error)
	Enroll(ctx context.Context, by store.Actor, mac store.MAC, name string, replace store.MachineID) (store.Machine, error)
	Ignore(ctx context.Context, by store.Actor, mac store.MAC, ignored bool) error
	Fix(ctx context.Context, by store.Actor, a store.Attempt, action string) (store.FixResult, error)
	EachActs
}

// Enrolling enrolls more than one machine.
type Enrolling interface {
	EnrollAll(context.Context, store.Actor, store.EnrollSpec) ([]store.Enrolled, error)
	EnrollWithClone(ctx context.Context, by store.Actor, mac store.MAC, name string, choice store.CloneChoice) (store.Machine, error)
	AutoEnroll(context.Context) (store.AutoEnroll, error)
	SetAutoEnroll(context.Context, store.Actor, store.AutoEnroll) (store.AutoEnroll, error)
}

// SubnetActs changes subnets. PutSubnet adds one whose ID is zero.
type SubnetActs interface {
	PutSubnet(context.Context, store.Actor, store.Subnet) (store.Subnet, error)
	DeleteSubnet(ctx context.Context, by store.Actor, id int64) error
}

// MappingActs changes mappings.
type MappingActs interface {
	Map(context.Context, store.Actor, store.MappingSpec) (store.Mapping, error)
	SetMapping(context.Context, store.Actor, store.MachineID, store.LUN, store.MappingPatch) (store.Mapping, error)
	Unmap(context.Context, store.Actor, store.MachineID, store.LUN) error
}

// VolumeActs changes volumes. FindVolume takes an id or name.
type VolumeActs interface {
	FindVolume(ctx context.Context, key string) (store.Volume, error)
	LookAtVolume(context.Context, store.Volume) (store.Preflight, error)
	CreateVolume(context.Context, store.Actor, store.VolumeSpec) (store.Volume, error)
	ImportFile(ctx context.Context, by store.Actor, spec store.ImportSpec, path string) (store.Volume, store.Job, error)
	SetVolume(context.Context, store.Actor, store.VolumeID, store.VolumePatch) (store.Volume, error)
	ResizeVolume(ctx context.Context, by store.Actor, id store.VolumeID, size int64) (store.Volume, error)
	RemoveVolume(context.Context, store.Actor, store.VolumeID) error
	CancelJob(ctx context.Context, by store.Actor, id int64) error
	StorageActs
	CloneActs
	UploadActs
}

// Sessions is the live side of the target.
type Sessions interface {
	Sessions() []store.Session
	DropSession(ctx context.Context, by store.Actor, id string) error
}

// Attempts answers how boots went.
type Attempts interface {
	Latest(store.MachineID, store.MAC) (store.Attempt, bool)
	Attempt(context.Context, store.AttemptID) (store.Attempt, error)
	Attempts(context.Context, store.AttemptFilter) ([]store.Attempt, int, error)
	EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error)
}

// Captures keeps the packets of boots.
type Captures interface {
	// Capture returns an attempt's packets as a pcapng file, and a name for it.
	Capture(context.Context, store.AttemptID) (file []byte, name string, err error)
}

// Events is the journal by cursor. After returns the events that match, and the
// last sequence number that was looked at.
type Events interface {
	After(context.Context, store.EventFilter) (items []store.Event, upto int64, err error)
	// FindEvents returns a page of the events that match, and how many do.
	FindEvents(context.Context, store.EventFilter) ([]store.Event, int, error)
	EveryEvent(context.Context, store.EventFilter) (store.Parts[store.Event], error)
	LastSeq() int64
	Wake(seq int64) <-chan struct{}
}

// Scripts shows what a machine would be given now. It mints nothing: no
// attempt, no secret.
type Scripts interface {
	Preview(ctx context.Context, m store.Machine, profile *store.Profile) (string, error)
}

// Explainer makes dry runs: what a machine would get if it booted now. The
// machine is zero for a MAC that is not enrolled.
type Explainer interface {
	Explain(context.Context, store.Machine, store.ExplainQuery) (store.DryRun, error)
}

// Health is what the appliance says of itself.
type Health struct {
	OK       bool      `json:"ok"`
	Version  string    `json:"version"`
	Target   string    `json:"target"`
	Services []Service `json:"services"`
	Checks   []Check   `json:"checks"`
}

// Service is one running part of the appliance.
type Service struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	Healthy bool   `json:"healthy"`
	Detail  string `json:"detail,omitempty"`
}

// Check is one finding of the doctor.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	State  string `json:"state" enum:"ok,advice,fault,unknown,waits" doc:"advice: machines boot, and something could be better; waits: not asked, since its parent failed"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty" doc:"the command that mends it"`
	Depth  int    `json:"depth,omitempty" doc:"how deep it stands in the tree"`
}

// Network is the appliance's own interfaces, and asking what lies behind them.
type Network interface {
	Links(context.Context) ([]store.Link, error)
	Ask(ctx context.Context, name string) (store.Survey, error)
}

// Access keeps people, their logins and tokens.
type Access interface {
	People
	Logins
	Tokens(context.Context) ([]store.Token, error)
	CreateToken(ctx context.Context, by store.Actor, name string, scope store.Scope, days int) (store.Token, string, error)
	DeleteToken(ctx context.Context, by store.Actor, id int64) error
}

// People are the users.
type People interface {
	Users(context.Context) ([]store.User, error)
	User(ctx context.Context, name string) (store.User, error)
	AddUser(ctx context.Context, by store.Actor, name string, role store.Role, password string) (store.User, error)
	UserChanges
}

// UserChanges changes users. A revision that is not zero must be the present one.
type UserChanges interface {
	SetUser(ctx context.Context, by store.Actor, name string, p store.UserPatch) (store.User, error)
	SetPassword(ctx context.Context, by store.Actor, user, password string) error
	RemoveUser(ctx context.Context, by store.Actor, name string, revision int64) error
}

// SignIn keeps the OpenID Connect provider through which people may sign in.
type SignIn interface {
	OIDC(context.Context) (store.OIDC, error)
	PutOIDC(context.Context, store.Actor, store.OIDCSpec) (store.OIDC, error)
	TryOIDC(context.Context, store.OIDCSpec) ([]store.OIDCFinding, error)
	Look(context.Context) (store.OIDCLook, error)
}

// Logins are the sessions of the pages; an empty user is everybody.
type Logins interface {
	Logins(ctx context.Context, user string) ([]store.Login, error)
	EndLogin(ctx context.Context, user, id string) error
}
