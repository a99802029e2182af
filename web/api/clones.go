package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// CloneActs change what volumes stand on. Every refusal names who is in the way.
type CloneActs interface {
	Detail(context.Context, store.Volume) (store.VolumeDetail, error)
	Takes(context.Context) (map[store.VolumeID]int64, error)
	FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error)
	CloneVolume(context.Context, store.Actor, store.CloneSpec) (store.Volume, error)
	CloneFor(ctx context.Context, by store.Actor, machine store.MachineID, spec store.CloneSpec) (store.Volume, store.Mapping, error)
	Promote(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Job, error)
	FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Job, error)
	CheckVolume(context.Context, store.VolumeID) (store.VolumeCheck, error)
	SnapshotActs
	VersionActs
}

// SnapshotActs keep and bring back states of volumes.
type SnapshotActs interface {
	SnapshotVolume(ctx context.Context, by store.Actor, id store.VolumeID, name, note string) (store.Volume, error)
	RemoveSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error
	Rollback(ctx context.Context, by store.Actor, id store.VolumeID, name string) (store.Volume, error)
}

// VersionActs change which version of a golden volume is the current one.
type VersionActs interface {
	SetVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) (store.Volume, error)
	NoteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int, note string) error
	RemoveVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error
}

// Cloned is a clone, and the mapping by which a machine boots it, where one was
// named.
type Cloned struct {
	Volume  store.Volume `json:"volume"`
	Mapping *Mapping     `json:"mapping,omitempty"`
}

// noteBody is what people write beside an act.
type noteBody struct {
	Note string `json:"note,omitempty" doc:"what people should know of it"`
}

func (s *server) clones(a huma.API) {
	act := func(method, path, id, summary string, status int) huma.Operation {
		op := operation(a, method, "/volumes/{volume}"+path, id, summary, store.ScopeOperate)
		op.DefaultStatus = status
		return op
	}
	huma.Register(a, act(http.MethodPost, "/freeze", "freeze-volume", "Make a volume golden: it never changes again, and others are cloned from it", http.StatusOK),
		func(ctx context.Context, in *struct {
			VolumeKey
			Body noteBody
		}) (*body[store.Volume], error) {
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.Volume, error) {
				return s.Volumes.FreezeVolume(ctx, actor(ctx), v.ID, in.Body.Note)
			})
		})
	huma.Register(a, act(http.MethodPost, "/clone", "clone-volume", "Make a writable copy of a golden volume or of a snapshot; it takes room as it is written", http.StatusCreated),
		func(ctx context.Context, in *struct {
			VolumeKey
			Body struct {
				Name     string `json:"name,omitempty" doc:"of the clone; made of the parent's and the machine's name when absent"`
				Snapshot string `json:"snapshot,omitempty" doc:"of the parent; the current version of a golden one when absent"`
				Reset    bool   `json:"reset_at_boot,omitempty" doc:"it begins anew at each boot of its machine"`
				Volatile bool   `json:"volatile,omitempty" doc:"with reset_at_boot: nobody waits for the disk, and what it holds is discarded after a crash of the appliance's machine"`
				Machine  string `json:"machine,omitempty" doc:"the machine that is to boot from it"`
			}
		}) (*body[Cloned], error) {
			b := in.Body
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (Cloned, error) {
				spec := store.CloneSpec{Parent: v.ID, Name: b.Name, Snapshot: b.Snapshot, Reset: b.Reset, Volatile: b.Volatile}
				if b.Machine == "" {
					c, err := s.Volumes.CloneVolume(ctx, actor(ctx), spec)
					return Cloned{Volume: c}, err
				}
				m, err := s.Acts.FindMachine(ctx, b.Machine)
				if err != nil {
					return Cloned{}, err
				}
				c, mp, err := s.Volumes.CloneFor(ctx, actor(ctx), m.ID, spec)
				if err != nil {
					return Cloned{}, err
				}
				view, err := s.mappingView(ctx, mp)
				return Cloned{Volume: c, Mapping: &view}, err
			})
		})
	later := func(path, id, summary string, run func(ctx context.Context, v store.Volume, note string) (store.Job, error)) {
		huma.Register(a, act(http.MethodPost, path, id, summary, http.StatusAccepted), func(ctx context.Context, in *struct {
			VolumeKey
			Body noteBody
		}) (*body[store.Job], error) {
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.Job, error) { return run(ctx, v, in.Body.Note) })
		})
	}
	later("/promote", "promote-volume", "Make what a clone holds the next version of its golden volume; a job copies it",
		func(ctx context.Context, v store.Volume, note string) (store.Job, error) {
			return s.Volumes.Promote(ctx, actor(ctx), v.ID, note)
		})
	later("/flatten", "flatten-volume", "Make a volume stand alone, while machines run from it; a job copies what lies below",
		func(ctx context.Context, v store.Volume, _ string) (store.Job, error) {
			return s.Volumes.FlattenVolume(ctx, actor(ctx), v.ID)
		})
	huma.Register(a, act(http.MethodPost, "/check", "check-volume", "Read the maps of a volume's layers and name what is damaged", http.StatusOK),
		func(ctx context.Context, in *VolumeKey) (*body[store.VolumeCheck], error) {
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.VolumeCheck, error) { return s.Volumes.CheckVolume(ctx, v.ID) })
		})
	s.snapshots(a)
	s.versions(a)
}

// onVolume finds a volume and answers with what fn says of it.
func onVolume[T any](ctx context.Context, s *server, key string, fn func(store.Volume) (T, error)) (*body[T], error) {
	v, err := s.Volumes.FindVolume(ctx, key)
	if err != nil {
		return nil, problem(named("volume", err))
	}
	return reply(fn(v))
}

func (s *server) detail(ctx context.Context, key string) (store.VolumeDetail, error) {
	v, err := s.Volumes.FindVolume(ctx, key)
	if err != nil {
		return store.VolumeDetail{}, err
	}
	return s.Volumes.Detail(ctx, v)
}

func (s *server) snapshots(a huma.API) {
	register(a, http.MethodGet, "/volumes/{volume}/snapshots", "list-snapshots", "List the snapshots of a volume", store.ScopeRead,
		func(ctx context.Context, in *VolumeKey) (*body[List[store.SnapshotDetail]], error) {
			d, err := s.detail(ctx, in.Volume)
			return all(d.Snapshots, err)
		})
	register(a, http.MethodPost, "/volumes/{volume}/snapshots", "take-snapshot", "Keep what a volume holds now, while machines run from it", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			VolumeKey
			Body struct {
				Name string `json:"name"`
				Note string `json:"note,omitempty" doc:"what people should know of it"`
			}
		}) (*body[store.Volume], error) {
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.Volume, error) {
				return s.Volumes.SnapshotVolume(ctx, actor(ctx), v.ID, in.Body.Name, in.Body.Note)
			})
		})
	register(a, http.MethodDelete, "/volumes/{volume}/snapshots/{snapshot}", "remove-snapshot", "Forget a snapshot", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			VolumeKey
			Snapshot string `path:"snapshot"`
		}) (*empty, error) {
			v, err := s.Volumes.FindVolume(ctx, in.Volume)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Volumes.RemoveSnapshot(ctx, actor(ctx), v.ID, in.Snapshot))
		})
	back := operation(a, http.MethodPost, "/volumes/{volume}/rollback", "roll-back-volume", "Bring a snapshot back, or another version of a golden volume; what was written since the snapshot is gone", store.ScopeOperate)
	back.DefaultStatus = http.StatusOK
	huma.Register(a, back, func(ctx context.Context, in *struct {
		VolumeKey
		Body struct {
			To string `json:"to" doc:"name of a snapshot, or the number of a golden volume's version"`
		}
	}) (*body[store.Volume], error) {
		return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.Volume, error) {
			return s.Volumes.Rollback(ctx, actor(ctx), v.ID, in.Body.To)
		})
	})
}

// VersionKey is the path parameters of one version.
type VersionKey struct {
	VolumeKey
	Version int `path:"version"`
}

func (s *server) versions(a huma.API) {
	register(a, http.MethodGet, "/volumes/{volume}/versions", "list-versions", "List the versions of a golden volume", store.ScopeRead,
		func(ctx context.Context, in *VolumeKey) (*body[List[store.VersionDetail]], error) {
			d, err := s.detail(ctx, in.Volume)
			return all(d.Versions, err)
		})
	register(a, http.MethodPatch, "/volumes/{volume}/versions/{version}", "set-version", "Make a version the current one, or change what is said of it", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			VersionKey
			Body struct {
				Current bool    `json:"current,omitempty" doc:"true: new clones are made of it, and those that begin anew at each boot move to it"`
				Note    *string `json:"note,omitempty"`
			}
		}) (*body[store.Volume], error) {
			return onVolume(ctx, s, in.Volume, func(v store.Volume) (store.Volume, error) {
				if in.Body.Note == nil && !in.Body.Current {
					return v, store.Invalid("current", "nothing to change; name current or note")
				}
				if in.Body.Current {
					var err error
					if v, err = s.Volumes.SetVersion(ctx, actor(ctx), v.ID, in.Version); err != nil {
						return v, err
					}
				}
				if in.Body.Note != nil {
					return v, s.Volumes.NoteVersion(ctx, actor(ctx), v.ID, in.Version, *in.Body.Note)
				}
				return v, nil
			})
		})
	register(a, http.MethodDelete, "/volumes/{volume}/versions/{version}", "remove-version", "Remove a version that nothing stands on, and its bytes", store.ScopeOperate,
		func(ctx context.Context, in *VersionKey) (*empty, error) {
			v, err := s.Volumes.FindVolume(ctx, in.Volume)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Volumes.RemoveVersion(ctx, actor(ctx), v.ID, in.Version))
		})
}
