package download

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/oui"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
)

// Inventory is what most lists are made of.
type Inventory interface {
	Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	UnknownMachines(ctx context.Context, includeIgnored bool) ([]store.UnknownMachine, error)
	Volumes(context.Context) ([]store.Volume, error)
	Mappings(context.Context) ([]store.Mapping, error)
	Leases(context.Context) ([]store.Lease, error)
	Jobs(context.Context) ([]store.Job, error)
	Profiles(context.Context) ([]store.Profile, error)
	Networks
}

// Networks are the networks, and what machines have of the inventory.
type Networks interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	Subnets(context.Context) ([]store.Subnet, error)
	// MappingViews are a machine's mappings; everybody's for none.
	MappingViews(context.Context, store.MachineID) ([]store.MappingView, error)
}

// Sources are the parts of the appliance that lists are made from.
type Sources struct {
	Inventory Inventory
	Machines  func(ctx context.Context, search, sort string) ([]sheet.Row, error) // with how they booted
	Volumes   interface {
		Takes(context.Context) (map[store.VolumeID]int64, error)
	}
	Sessions interface{ Sessions() []store.Session }
	Media    interface {
		AllMedia(context.Context) ([]store.Media, error)
	}
	Loaders  interface{ Manifest() []boot.LoaderInfo }
	Attempts interface {
		Attempt(context.Context, store.AttemptID) (store.Attempt, error)
		EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error)
	}
	Changes interface {
		EveryChange(context.Context, store.AuditFilter) (store.Parts[store.Audit], error)
	}
	Events interface {
		EveryEvent(context.Context, store.EventFilter) (store.Parts[store.Event], error)
	}
	People interface {
		Users(context.Context) ([]store.User, error)
		Tokens(context.Context) ([]store.Token, error)
	}
	Now func() time.Time
	Log *slog.Logger
}

// From joins the parts of the appliance to its lists.
func From(s Sources) Lists {
	return Lists{
		Machines: s.Machines,
		Volumes:  s.volumes,
		Unknown: func(ctx context.Context, ignored bool) ([]listing.UnknownMachine, error) {
			us, err := s.Inventory.UnknownMachines(ctx, ignored)
			return MadeBy(us), err
		},
		Leases: func(ctx context.Context) ([]listing.Lease, error) {
			leases, err := s.Inventory.Leases(ctx)
			if err != nil {
				return nil, err
			}
			ms, _, err := s.Inventory.Machines(ctx, store.MachineFilter{})
			return listing.LeasesOf(leases, ms, s.Now()), err
		},
		Sessions: func(ctx context.Context) ([]listing.Session, error) {
			name, err := s.names(ctx)
			return listing.SessionsOf(s.Sessions.Sessions(), name), err
		},
		Jobs:     func(ctx context.Context) ([]store.Job, error) { return s.Inventory.Jobs(ctx) },
		Profiles: func(ctx context.Context) ([]store.Profile, error) { return s.Inventory.Profiles(ctx) },
		Media:    func(ctx context.Context) ([]store.Media, error) { return s.Media.AllMedia(ctx) },
		Loaders:  func(context.Context) ([]boot.LoaderInfo, error) { return s.Loaders.Manifest(), nil },
		Attempts: func(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
			return s.Attempts.EveryAttempt(ctx, f)
		},
		Audit: func(ctx context.Context, f store.AuditFilter) (store.Parts[store.Audit], error) {
			return s.Changes.EveryChange(ctx, f)
		},
		Subnets: func(ctx context.Context) ([]listing.Subnet, error) {
			subnets, err := s.Inventory.Subnets(ctx)
			if err != nil {
				return nil, err
			}
			leases, err := s.Inventory.Leases(ctx)
			return listing.SubnetsOf(subnets, leases, s.Now()), err
		},
		Mappings: func(ctx context.Context) ([]store.MappingView, error) { return s.Inventory.MappingViews(ctx, 0) },
		Users:    func(ctx context.Context) ([]store.User, error) { return s.People.Users(ctx) },
		Tokens: func(ctx context.Context) ([]listing.Token, error) {
			tokens, err := s.People.Tokens(ctx)
			return listing.TokensOf(tokens, s.Now()), err
		},
		Events: s.events,
		Named:  s.named,
		Now:    s.Now,
	}
}

// volumes are all volumes, with who has them and what they take. They are listed,
// too, when the file system does not say what they take.
func (s Sources) volumes(ctx context.Context) ([]listing.Volume, error) {
	vols, err := s.Inventory.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	maps, err := s.Inventory.Mappings(ctx)
	if err != nil {
		return nil, err
	}
	name, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	takes, err := s.Volumes.Takes(ctx)
	if err != nil {
		s.Log.Warn("what volumes take is not known", "error", err)
	}
	return listing.VolumesOf(vols, maps, takes, name), nil
}

// events are the events that a filter finds, with the machines' names of now.
func (s Sources) events(ctx context.Context, f store.EventFilter) (store.Parts[listing.Event], error) {
	name, err := s.names(ctx)
	if err != nil {
		return nil, err
	}
	next, err := s.Events.EveryEvent(ctx, f)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]listing.Event, error) {
		rows, err := next(ctx)
		out := make([]listing.Event, len(rows))
		for i, e := range rows {
			out[i] = listing.Event{Event: e, Name: name(e.Machine)}
		}
		return out, err
	}, nil
}

// named looks up what a search for events names.
func (s Sources) named(ctx context.Context) store.EventNames {
	return store.EventNames{
		Machines: func(part string) (ids []store.MachineID, err error) {
			ms, _, err := s.Inventory.Machines(ctx, store.MachineFilter{Words: []string{part}})
			for _, m := range ms { // a machine fits a word by more than its name
				if strings.Contains(m.Name, strings.ToLower(part)) {
					ids = append(ids, m.ID)
				}
			}
			return ids, err
		},
		Attempt: func(id store.AttemptID) (store.Attempt, error) { return s.Attempts.Attempt(ctx, id) },
	}
}

// WithNames are a page's events with their machines' names of now; a machine that
// was removed has none.
func WithNames(ctx context.Context, machine func(context.Context, store.MachineID) (store.Machine, error), events []store.Event) ([]listing.Event, error) {
	names := map[store.MachineID]string{0: ""}
	out := make([]listing.Event, len(events))
	for i, e := range events {
		if _, known := names[e.Machine]; !known {
			m, err := machine(ctx, e.Machine)
			if err != nil && !store.IsNotFound(err) {
				return nil, err
			}
			names[e.Machine] = m.Name
		}
		out[i] = listing.Event{Event: e, Name: names[e.Machine]}
	}
	return out, nil
}

// names finds machines' names.
func (s Sources) names(ctx context.Context) (func(store.MachineID) string, error) {
	ms, _, err := s.Inventory.Machines(ctx, store.MachineFilter{})
	names := make(map[store.MachineID]string, len(ms))
	for _, m := range ms {
		names[m.ID] = m.Name
	}
	return func(id store.MachineID) string { return names[id] }, err
}

// MadeBy are unknown machines with the makers of their cards.
func MadeBy(us []store.UnknownMachine) []listing.UnknownMachine {
	all := make([]listing.UnknownMachine, len(us))
	for i, u := range us {
		all[i] = listing.UnknownMachine{UnknownMachine: u, Maker: oui.Of(u.MAC).String()}
	}
	return all
}

// loaderTable is the table of loaders, which are no noun of the store.
func loaderTable() sheet.Table[boot.LoaderInfo] {
	type l = boot.LoaderInfo
	return sheet.Table[l]{
		{Name: "name", Cell: func(x l) any { return string(x.Name) }},
		{Name: "chain", Cell: func(x l) any { return x.Chain }},
		{Name: "role", Cell: func(x l) any { return string(x.Role) }},
		{Name: "firmware", Cell: func(x l) any { return x.Firmware }},
		{Name: "arch", Cell: func(x l) any { return x.Arch }},
		{Name: "version", Cell: func(x l) any { return x.Version }},
		{Name: "inside", Cell: func(x l) any { return x.Features }},
		{Name: "license", Cell: func(x l) any { return x.License }},
		{Name: "size", Cell: func(x l) any { return x.Size }},
		{Name: "sha256", Cell: func(x l) any { return x.SHA256 }},
		{Name: "source", Cell: func(x l) any { return x.Source }},
		{Name: "supplied", Cell: func(x l) any { return x.Supplied }},
		{Name: "rung", Cell: func(x l) any { return x.Rung }},
		{Name: "worked", Cell: func(x l) any { return x.Worked }},
		{Name: "silent", Cell: func(x l) any { return x.Silent }},
		{Name: "use", Cell: func(x l) any { return x.Use }},
	}
}
