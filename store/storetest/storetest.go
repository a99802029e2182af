// Package storetest is the contract of an inventory as a test: what every
// implementation must keep, refuse and leave alone. It knows no implementation;
// the tests of each one run it.
package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lunboot/store"
)

// Inventory is everything that an inventory does.
type Inventory interface {
	Machines
	Volumes
	Reservations
	Wipes
	Mappings
	Network
	Loaders
	Media
	Profiles
	Work
	People
	Close() error
	Revision() int64
	Changed(after int64) <-chan struct{}
	MapRevision() int64
	MapChanged(after int64) <-chan struct{}
	NetworkRevision() int64
	NetworkChanged(after int64) <-chan struct{}
	ClientRevision() int64
	LeaseRevision() int64
	Audit(context.Context, store.Page) ([]store.Audit, int, error)
	AuditLog(context.Context, store.AuditFilter) ([]store.Audit, int, error)
	EveryChange(context.Context, store.AuditFilter) (store.Parts[store.Audit], error)
	Auditors(context.Context) ([]store.Actor, error)
}

// Machines keeps machines and unknown machines.
type Machines interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	MachineByName(context.Context, string) (store.Machine, error)
	MachineByUUID(context.Context, store.UUID) (store.Machine, error)
	MachineByMAC(context.Context, store.MAC) (store.Machine, error)
	MachineByInitiator(context.Context, store.IQN) (store.Machine, error)
	MachineBySerial(context.Context, string) (store.Machine, error)
	MachineByAssetTag(context.Context, string) (store.Machine, error)
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	MachineIDs(context.Context) ([]store.MachineID, error)
	CreateMachine(context.Context, store.Actor, store.Machine) (store.Machine, error)
	UpdateMachine(context.Context, store.Actor, store.Machine) (store.Machine, error)
	PutMachines(context.Context, store.Actor, []store.Machine) ([]store.Machine, error)
	DeleteMachine(context.Context, store.Actor, store.MachineID) error
	SeenMachine(ctx context.Context, id store.MachineID, firmware, arch string, at time.Time) error
	ConsumeOnce(ctx context.Context, id store.MachineID, profile string, chosen time.Time) (used bool, err error)
	Baseline(context.Context, store.MachineID) (store.Baseline, error)
	PutBaseline(ctx context.Context, id store.MachineID, profile string, b store.Baseline) error

	UnknownMachine(context.Context, store.MAC) (store.UnknownMachine, error)
	UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error)
	IgnoredMACs(context.Context) ([]store.MAC, error)
	SeeUnknown(context.Context, ...store.UnknownMachine) error
	IgnoreUnknown(ctx context.Context, actor store.Actor, mac store.MAC, ignored bool) error
}

// Volumes keeps volumes.
type Volumes interface {
	Volume(context.Context, store.VolumeID) (store.Volume, error)
	VolumeByName(context.Context, string) (store.Volume, error)
	Volumes(context.Context) ([]store.Volume, error)
	CreateVolume(context.Context, store.Actor, store.Volume) (store.Volume, error)
	UpdateVolume(context.Context, store.Actor, store.Volume) (store.Volume, error)
	DeleteVolume(context.Context, store.Actor, store.VolumeID) error
	Layers
}

// Layers keeps what volumes' bytes lie in: layers, snapshots and versions.
type Layers interface {
	Layers(context.Context) ([]store.Layer, error)
	LooseLayers(context.Context) ([]store.Layer, error)
	LayerNamings(context.Context, store.VolumeID) (map[store.LayerID]store.LayerNaming, error)
	CreateLayer(context.Context, store.Layer) (store.Layer, error)
	DeleteLayer(context.Context, store.LayerID) error
	Snapshots(context.Context) ([]store.Snapshot, error)
	Versions(context.Context) ([]store.VolumeVersion, error)
	FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error)
	SnapshotVolume(ctx context.Context, by store.Actor, s store.Snapshot, next store.LayerID) (store.Volume, error)
	ReplaceTop(ctx context.Context, by store.Actor, why string, id store.VolumeID, next store.LayerID, detail string) (store.Volume, error)
	FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Volume, error)
	MergeLayers(ctx context.Context, first, last, next store.LayerID) error
	DeleteSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error
	AddVersion(context.Context, store.Actor, store.VolumeVersion) (store.Volume, error)
	SetVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) (store.Volume, error)
	NoteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int, note string) error
	DeleteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error
}

// Reservations keeps volumes' persistent reservations.
type Reservations interface {
	Reservations(context.Context, store.VolumeID) (store.Reservations, error)
	PutReservations(context.Context, store.VolumeID, store.Reservations) error
}

// Wipes keeps what volumes are being wiped with.
type Wipes interface {
	Wipe(context.Context, store.VolumeID) (*store.Wipe, error)
	UnfinishedWipes(context.Context) ([]store.VolumeID, error)
	BeginWipe(context.Context, store.VolumeID, store.Wipe) error
	FailWipe(context.Context, store.VolumeID, store.UUID) error
	EndWipe(context.Context, store.VolumeID, store.UUID) error
}

// Loaders keeps the operator's loaders, and what boots taught of all.
type Loaders interface {
	SuppliedLoaders(context.Context) ([]store.Loader, error)
	PutLoader(context.Context, store.Actor, store.Loader) (store.Loader, error)
	DeleteLoader(ctx context.Context, actor store.Actor, chain, name string) error
	LoaderTrials(context.Context) ([]store.LoaderTrial, error)
	PutLoaderTrial(context.Context, store.LoaderTrial) error
}

// Media keeps discs, kernels and other files that machines fetch.
type Media interface {
	AllMedia(context.Context) ([]store.Media, error)
	Media(ctx context.Context, name string) (store.Media, error)
	CreateMedia(context.Context, store.Actor, store.Media) (store.Media, error)
	DeleteMedia(ctx context.Context, actor store.Actor, name string) error
}

// Mappings keeps mappings.
type Mappings interface {
	Mappings(context.Context) ([]store.Mapping, error)
	MappingsOf(context.Context, store.MachineID) ([]store.Mapping, error)
	MappingViews(context.Context, store.MachineID) ([]store.MappingView, error)
	MappingsOfVolume(context.Context, store.VolumeID) ([]store.Mapping, error)
	CreateMapping(context.Context, store.Actor, store.Mapping) (store.Mapping, error)
	UpdateMapping(context.Context, store.Actor, store.Mapping) (store.Mapping, error)
	DeleteMapping(context.Context, store.Actor, store.MachineID, store.LUN) error
}

// Network keeps subnets and leases.
type Network interface {
	Subnets(context.Context) ([]store.Subnet, error)
	PutSubnet(context.Context, store.Actor, store.Subnet) (store.Subnet, error)
	DeleteSubnet(context.Context, store.Actor, int64) error
	Leases(context.Context) ([]store.Lease, error)
	LeaseByMAC(context.Context, store.MAC) (store.Lease, error)
	LeaseByAddress(context.Context, netip.Addr) (store.Lease, error)
	PutLease(context.Context, store.Lease) error
	ProlongLease(context.Context, store.Lease) error
	DeleteLease(context.Context, netip.Addr) error
	DropLease(context.Context, store.Actor, netip.Addr) error
	DropLeaseIf(ctx context.Context, by store.Actor, a netip.Addr, may func(store.Lease) error) error
	MoveLease(ctx context.Context, by store.Actor, from, to store.MAC) error
}

// Profiles keeps profiles.
type Profiles interface {
	Profiles(context.Context) ([]store.Profile, error)
	Profile(context.Context, string) (store.Profile, error)
	PutProfile(context.Context, store.Actor, store.Profile) (store.Profile, error)
	DeleteProfile(ctx context.Context, actor store.Actor, name string) error
}

// Work keeps settings and jobs.
type Work interface {
	Setting(ctx context.Context, key string) (string, bool, error)
	PutSetting(ctx context.Context, actor store.Actor, key, value string) error
	CreateJob(context.Context, store.Job) (store.Job, error)
	UpdateJob(context.Context, store.Job) error
	Jobs(context.Context) ([]store.Job, error)
	Job(context.Context, int64) (store.Job, error)
}

// People keeps users, tokens and web sessions.
type People interface {
	Users(context.Context) ([]store.User, error)
	User(ctx context.Context, name string) (store.User, error)
	UserByIdentity(ctx context.Context, issuer, subject string) (store.User, error)
	OIDC(context.Context) (store.OIDC, error)
	PutOIDC(context.Context, store.Actor, store.OIDC) (store.OIDC, error)
	CreateUser(context.Context, store.Actor, store.User) (store.User, error)
	UpdateUser(context.Context, store.Actor, store.User) (store.User, error)
	DeleteUser(ctx context.Context, actor store.Actor, name string, revision int64) error
	NoteLogin(ctx context.Context, name string, at time.Time) error
	CreateToken(context.Context, store.Actor, store.Token) (store.Token, error)
	TokenByHash(ctx context.Context, hash string) (store.Token, error)
	Tokens(context.Context) ([]store.Token, error)
	DeleteToken(context.Context, store.Actor, int64) error
	TouchToken(context.Context, int64, time.Time) error
	FindCtx(ctx context.Context, token string) (data []byte, found bool, err error)
	CommitCtx(ctx context.Context, token string, data []byte, expires time.Time) error
	DeleteCtx(ctx context.Context, token string) error
	WebSessions(context.Context) ([]store.WebSession, error)
}

// Run runs the contract. open makes an empty inventory; called again in the
// same test, after Close, it opens the one that it made. The inventory's clock
// must run with the wall clock.
func Run(t *testing.T, open func(*testing.T) Inventory) {
	for name, f := range map[string]func(*kit){
		"a machine comes back as it was written":               machineRoundTrip,
		"machines are put together or not at all":              machinesTogether,
		"persistent reservations come back":                    reservations,
		"a wipe that is unfinished comes back":                 wipes,
		"a machine is found by everything that names it":       machineLookUps,
		"a machine that is in the way is named":                machineConflicts,
		"a machine that breaks a rule changes nothing":         machineInvalid,
		"a stale revision changes nothing":                     machineRevisions,
		"a change of machines can take over a freed MAC":       machineMACsMove,
		"machines are listed by page, part and tag":            machineListing,
		"removing a machine takes its mappings":                machineRemoval,
		"seeing a machine is no change of it":                  machineSeen,
		"a one-shot profile is used once":                      machineOnce,
		"a baseline goes with the choice that it is of":        machineBaseline,
		"the audit log has every change and no secret":         auditTrail,
		"the audit log is searched":                            auditSearch,
		"an unknown machine gathers what it says":              unknownGathers,
		"an unknown machine is forgotten when enrolled":        unknownEnrolled,
		"an ignored machine stays ignored":                     unknownIgnored,
		"unknown machines are bounded":                         unknownBounded,
		"a volume comes back as it was written":                volumeRoundTrip,
		"a volume that breaks a rule changes nothing":          volumeInvalid,
		"a volume in use stays":                                volumeInUse,
		"progress of an import fills no audit log":             volumeProgress,
		"a volume is made with its layer":                      layerFirst,
		"a golden volume and its clones stand on its versions": goldenLife,
		"snapshots keep what a rollback brings back":           snapshotLife,
		"a layer is loose until an act names it":               layerLoose,
		"layers become one":                                    layerMerge,
		"a volatile layer is kept by nobody":                   layerVolatile,
		"an act on layers that breaks a rule changes nothing":  layerRefused,
		"a mapping comes back as it was written":               mappingRoundTrip,
		"a mapping that breaks a rule changes nothing":         mappingInvalid,
		"a writable volume has one machine":                    mappingWriters,
		"a mapping changes in place":                           mappingChanges,
		"a subnet comes back as it was written":                subnetRoundTrip,
		"a subnet that breaks a rule changes nothing":          subnetInvalid,
		"a lease belongs to a MAC":                             leaseBelongs,
		"a lease names the switch port of its machine":         leasePort,
		"a lease is prolonged while its MAC holds it":          leaseProlonged,
		"a lease moves to another MAC":                         leaseMoved,
		"a lease that breaks a rule changes nothing":           leaseInvalid,
		"what others do to leases is seen by who caches them":  leaseFollowed,
		"a lease is dropped on an operator's word":             leaseDropped,
		"leases of a rack that boots at once are all kept":     leaseRush,
		"a loader comes back as it was written":                loaderRoundTrip,
		"media come back as they were written":                 mediaLife,
		"a loader that breaks a rule changes nothing":          loaderInvalid,
		"what boots taught of loaders is kept and bounded":     loaderTrials,
		"profiles can be made, changed and removed":            profileLife,
		"settings are kept":                                    settingLife,
		"jobs are kept and bounded":                            jobLife,
		"users log in by their hash":                           userLife,
		"users sign in by a provider's word":                   federatedLife,
		"the provider is kept":                                 providerLife,
		"tokens are found by hash and revoked":                 tokenLife,
		"web sessions end":                                     webSessionLife,
		"everything survives a restart":                        survivesRestart,
		"many writers leave one true state":                    manyWriters,
		"each commit wakes who waits":                          wakes,
		"a canceled caller changes nothing":                    canceledCaller,
		"a closed inventory refuses instead of losing a write": closedInventory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &kit{T: t, open: open}
			k.Inventory = open(t)
			t.Cleanup(func() {
				if err := k.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			f(k)
		})
	}
}

// actor is who changes things in the contract.
const actor store.Actor = "tester"

// kit is one inventory under test.
type kit struct {
	*testing.T
	Inventory
	open func(*testing.T) Inventory
}

func (k *kit) reopen() {
	k.Helper()
	if err := k.Close(); err != nil {
		k.Fatalf("close: %v", err)
	}
	k.Inventory = k.open(k.T)
}

// must returns v and fails the test on err.
func must[T any](v T, err error) func(*kit) T {
	return func(k *kit) T {
		k.Helper()
		if err != nil {
			k.Fatalf("unexpected error: %v", err)
		}
		return v
	}
}

func (k *kit) ok(err error) {
	k.Helper()
	if err != nil {
		k.Fatalf("unexpected error: %v", err)
	}
}

// refused fails the test unless err has this kind, is about this field and
// speaks of each word.
func (k *kit) refused(err error, kind store.Kind, field string, words ...string) {
	k.Helper()
	if err == nil {
		k.Fatal("accepted; an error was due")
	}
	if got := store.KindOf(err); got != kind {
		k.Errorf("kind %s, want %s: %v", got, kind, err)
	}
	if field != "" && !hasField(err, field) {
		k.Errorf("the error is not about the field %q: %v", field, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			k.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func hasField(err error, field string) bool {
	if e, ok := err.(*store.Error); ok && e.Field == field {
		return true
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return u.Unwrap() != nil && hasField(u.Unwrap(), field)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if hasField(e, field) {
				return true
			}
		}
	}
	return false
}

// same fails the test when got differs from want in anything.
func same[T any](k *kit, what string, want, got T) {
	k.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		k.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

// unchanged runs f and fails the test when anything in the inventory differs
// afterwards.
func (k *kit) unchanged(f func()) {
	k.Helper()
	before := k.dump()
	f()
	if d := cmp.Diff(before, k.dump()); d != "" {
		k.Errorf("something changed (-before +after):\n%s", d)
	}
}

// dump is the whole inventory as text, secrets too.
func (k *kit) dump() []string {
	k.Helper()
	ctx := k.Context()
	var out []string
	add := func(noun string, v any) { out = append(out, fmt.Sprintf("%s %+v", noun, v)) }
	add("revision", k.Revision())
	add("map revision", k.MapRevision())
	ms, total, err := k.Machines(ctx, store.MachineFilter{})
	k.ok(err)
	add("machines", total)
	for _, m := range ms {
		add("machine", m)
		add("secrets", [3]string{m.CHAP.Secret, m.Reverse.Secret, m.BMC.Secret})
	}
	dumpAll(add, "unknown machine", must(k.UnknownMachines(ctx, true))(k))
	dumpAll(add, "volume", must(k.Volumes(ctx))(k))
	dumpAll(add, "layer", must(k.Inventory.Layers(ctx))(k))
	dumpAll(add, "snapshot", must(k.Snapshots(ctx))(k))
	dumpAll(add, "version", must(k.Versions(ctx))(k))
	dumpAll(add, "mapping", must(k.Mappings(ctx))(k))
	dumpAll(add, "profile", must(k.Profiles(ctx))(k))
	dumpAll(add, "subnet", must(k.Subnets(ctx))(k))
	dumpAll(add, "lease", must(k.Leases(ctx))(k))
	dumpAll(add, "loader", must(k.SuppliedLoaders(ctx))(k))
	dumpAll(add, "media", must(k.AllMedia(ctx))(k))
	dumpAll(add, "loader trial", must(k.LoaderTrials(ctx))(k))
	dumpAll(add, "job", must(k.Jobs(ctx))(k))
	dumpAll(add, "token", must(k.Tokens(ctx))(k))
	audit, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	dumpAll(add, "audit", audit)
	return out
}

func dumpAll[T any](add func(string, any), noun string, vs []T) {
	for _, v := range vs {
		add(noun, v)
	}
}

// mac is the n-th MAC of the contract.
func mac(n int) store.MAC { return store.MAC{0x52, 0x54, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// newMachine is a valid machine, the n-th.
func newMachine(n int) store.Machine {
	name := fmt.Sprintf("lab-%02d", n)
	return store.Machine{
		Name: name, MACs: []store.MAC{mac(n)}, Initiator: store.IQN("iqn.2026-11.lab:" + name),
		Auth: store.AuthMutual, Profile: store.DefaultProfile,
		CHAP:    store.Credential{User: name, Secret: fmt.Sprintf("forward-secret-%02d", n)},
		Reverse: store.Credential{User: "appliance", Secret: fmt.Sprintf("reverse-secret-%02d", n)},
	}
}

// newVolume is a valid volume, the n-th.
func newVolume(n int) store.Volume {
	return store.Volume{Name: fmt.Sprintf("vol-%02d", n), Kind: store.VolumeRaw, Size: 8 << 30, BlockSize: 512,
		State: store.VolumeReady, Path: fmt.Sprintf("vol-%02d.img", n)}
}

func (k *kit) machine(n int) store.Machine {
	k.Helper()
	return must(k.CreateMachine(k.Context(), actor, newMachine(n)))(k)
}

func (k *kit) volume(n int) store.Volume {
	k.Helper()
	return must(k.CreateVolume(k.Context(), actor, newVolume(n)))(k)
}

func (k *kit) mapping(m store.Machine, v store.Volume, lun store.LUN) store.Mapping {
	k.Helper()
	return must(k.CreateMapping(k.Context(), actor, store.Mapping{Machine: m.ID, Volume: v.ID, LUN: lun}))(k)
}
