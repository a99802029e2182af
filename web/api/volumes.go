package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// VolumeKey is the path parameter of one volume.
type VolumeKey struct {
	Volume string `path:"volume" doc:"name or id; a name of digits wins over an id"`
}

// Imported is the answer to an import: the volume, and the job that fills it.
type Imported struct {
	Volume store.Volume `json:"volume"`
	Job    store.Job    `json:"job"`
}

// VolumeLine is a volume in the listing.
type VolumeLine struct {
	store.Volume
	Used int64 `json:"used" doc:"bytes that it takes of the file system, with its versions and snapshots and without its parent; -1: not known, or a device"`
}

func (s *server) volumes(a huma.API) {
	register(a, http.MethodGet, "/volumes", "list-volumes", "List volumes", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[VolumeLine]], error) {
			return s.foundVolumes(ctx, *in)
		})
	register(a, http.MethodPost, "/volumes", "create-volume", "Create an empty volume", store.ScopeOperate,
		func(ctx context.Context, in *body[VolumeInput]) (*body[store.Volume], error) {
			return reply(s.Volumes.CreateVolume(ctx, actor(ctx), in.Body.spec()))
		})
	register(a, http.MethodGet, "/volumes/{volume}", "show-volume", "Show a volume: what it stands on, what was kept of it, and who uses it", store.ScopeRead,
		func(ctx context.Context, in *VolumeKey) (*body[store.VolumeDetail], error) {
			return reply(s.detail(ctx, in.Volume))
		})
	register(a, http.MethodGet, "/volumes/{volume}/preflight", "look-at-volume", "Say what a machine's firmware would find on a volume", store.ScopeRead,
		func(ctx context.Context, in *VolumeKey) (*body[store.Preflight], error) {
			v, err := s.Volumes.FindVolume(ctx, in.Volume)
			if err != nil {
				return nil, problem(err)
			}
			return reply(s.Volumes.LookAtVolume(ctx, v))
		})
	register(a, http.MethodPatch, "/volumes/{volume}", "set-volume", "Change a volume", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			VolumeKey
			Body struct {
				Revision *int64  `json:"revision,omitempty"`
				Name     *string `json:"name,omitempty"`
				ReadOnly *bool   `json:"read_only,omitempty"`
				Shared   *bool   `json:"shared,omitempty"`
				Sanitize *bool   `json:"sanitize,omitempty" doc:"a machine that has it writable may wipe it with SANITIZE"`
				Reset    *bool   `json:"reset_at_boot,omitempty" doc:"a clone begins anew at each boot of its machine"`
				Volatile *bool   `json:"volatile,omitempty" doc:"from its next boot on: nobody waits for the disk, and what it holds is discarded after a crash of the appliance's machine; with reset_at_boot only"`
				Size     *int64  `json:"size,omitempty" doc:"bytes; a volume only grows"`
			}
		}) (*body[store.Volume], error) {
			v, err := s.Volumes.FindVolume(ctx, in.Volume)
			if err != nil {
				return nil, problem(err)
			}
			if in.Body.Size != nil {
				// Growing is one step and the rest another: half of a request
				// that is refused must not stay done.
				if in.Body.Name != nil || in.Body.ReadOnly != nil || in.Body.Shared != nil || in.Body.Sanitize != nil || in.Body.Reset != nil || in.Body.Volatile != nil {
					return nil, problem(store.Invalid("size", "change the size in a request of its own"))
				}
				if in.Body.Revision != nil && *in.Body.Revision != v.Revision {
					return nil, problem(store.Conflict("revision", "volume %s changed meanwhile; look at it again", v.Name))
				}
				return reply(s.Volumes.ResizeVolume(ctx, actor(ctx), v.ID, *in.Body.Size))
			}
			return reply(s.Volumes.SetVolume(ctx, actor(ctx), v.ID, store.VolumePatch{
				Revision: deref(in.Body.Revision), Name: in.Body.Name, ReadOnly: in.Body.ReadOnly, Shared: in.Body.Shared, Sanitize: in.Body.Sanitize, Reset: in.Body.Reset, Volatile: in.Body.Volatile,
			}))
		})
	register(a, http.MethodDelete, "/volumes/{volume}", "remove-volume", "Remove a volume and its bytes", store.ScopeOperate,
		func(ctx context.Context, in *VolumeKey) (*empty, error) {
			v, err := s.Volumes.FindVolume(ctx, in.Volume)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Volumes.RemoveVolume(ctx, actor(ctx), v.ID))
		})

	// A path names a file of the appliance's own machine, so this needs admin.
	// Who comes through the socket could read the file without us; for everybody
	// else it is a name inside the folders for images.
	imp := operation(a, http.MethodPost, "/volumes/import", "import-volume", "Import an image that lies on the appliance; a job fills the volume", store.ScopeAdmin)
	imp.DefaultStatus = http.StatusAccepted
	huma.Register(a, imp, func(ctx context.Context, in *struct {
		Body struct {
			VolumeInput
			Path   string `json:"path" doc:"in a folder for images on the appliance (--images); through the socket anywhere, as an absolute path"`
			Format string `json:"format,omitempty" enum:"auto,raw,qcow2,vmdk,vhd,vhdx" doc:"auto (default) tells by the content; raw takes the bytes as they are; another one must be true"`
			SHA256 string `json:"sha256,omitempty" doc:"of the file, in hexadecimal: what is read is checked against it"`
		}
	}) (*body[Imported], error) {
		spec := store.ImportSpec{VolumeSpec: in.Body.spec(), Format: in.Body.Format, SHA256: in.Body.SHA256, Anywhere: auth.From(ctx).Local}
		v, job, err := s.Volumes.ImportFile(ctx, actor(ctx), spec, in.Body.Path)
		return reply(Imported{Volume: v, Job: job}, err)
	})
	register(a, http.MethodGet, "/jobs", "list-jobs", "List jobs; of one on many machines, how many it ended for, by result", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[store.Job]], error) {
			items, err := s.Store.Jobs(ctx)
			return found(listing.Jobs(), *in, items, err)
		})
	register(a, http.MethodGet, "/jobs/{job}", "show-job", "Show how far a job is, and of one on many machines what became of each", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Job int64 `path:"job"`
		}) (*body[store.Job], error) {
			return reply(s.Store.Job(ctx, in.Job))
		})
	register(a, http.MethodDelete, "/jobs/{job}", "cancel-job", "Cancel a running job", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Job int64 `path:"job"`
		}) (*empty, error) {
			return done(s.Volumes.CancelJob(ctx, actor(ctx), in.Job))
		})
}

// VolumeInput is what an operator says of a new volume.
type VolumeInput struct {
	Name      string `json:"name"`
	Size      int64  `json:"size,omitempty" doc:"bytes"`
	BlockSize int    `json:"block_size,omitempty" doc:"512 (default) or 4096"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	Shared    bool   `json:"shared,omitempty"`
}

func (in *VolumeInput) spec() store.VolumeSpec {
	return store.VolumeSpec{Name: in.Name, Size: in.Size, BlockSize: in.BlockSize, ReadOnly: in.ReadOnly, Shared: in.Shared}
}

// Mapping is a mapping with the names of both its ends.
type Mapping = store.MappingView

func (s *server) mappingView(ctx context.Context, m store.Mapping) (Mapping, error) {
	machine, err := s.Store.Machine(ctx, m.Machine)
	if err != nil {
		return Mapping{}, err
	}
	v, err := s.Store.Volume(ctx, m.Volume)
	if err != nil {
		return Mapping{}, err
	}
	return Mapping{Mapping: m, MachineName: machine.Name, VolumeName: v.Name, VolumeSize: v.Size}, nil
}

// MappingKey is the path parameters of one mapping.
type MappingKey struct {
	MachineKey
	LUN int64 `path:"lun"`
}

func (s *server) mappings(a huma.API) {
	register(a, http.MethodGet, "/mappings", "list-mappings", "List mappings", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[Mapping]], error) {
			items, err := s.lists().Mappings(ctx)
			return found(listing.Mappings(), *in, items, err)
		})
	register(a, http.MethodPost, "/mappings", "add-mapping", "Map a volume to a machine as one LUN", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body struct {
				Machine  string `json:"machine"`
				Volume   string `json:"volume"`
				LUN      *int64 `json:"lun,omitempty" doc:"0 to 16383; the lowest free one when absent"`
				Boot     *bool  `json:"boot,omitempty" doc:"true when absent and the machine boots nothing yet"`
				ReadOnly bool   `json:"read_only,omitempty"`
			}
		}) (*body[Mapping], error) {
			spec := store.MappingSpec{Boot: in.Body.Boot, ReadOnly: in.Body.ReadOnly}
			if in.Body.LUN != nil {
				l, err := store.NewLUN(*in.Body.LUN)
				if err != nil {
					return nil, problem(err)
				}
				spec.LUN = &l
			}
			m, err := s.Acts.FindMachine(ctx, in.Body.Machine)
			if err != nil {
				return nil, problem(named("machine", err))
			}
			v, err := s.Volumes.FindVolume(ctx, in.Body.Volume)
			if err != nil {
				return nil, problem(named("volume", err))
			}
			spec.Machine, spec.Volume = m.ID, v.ID
			mp, err := s.Acts.Map(ctx, actor(ctx), spec)
			return s.replyMapping(ctx, mp, err)
		})
	find := func(ctx context.Context, k MappingKey) (store.Machine, store.LUN, error) {
		l, err := store.NewLUN(k.LUN)
		if err != nil {
			return store.Machine{}, 0, err
		}
		m, err := s.Acts.FindMachine(ctx, k.Machine)
		return m, l, err
	}
	register(a, http.MethodGet, "/mappings/{machine}/{lun}", "show-mapping", "Show a mapping", store.ScopeRead,
		func(ctx context.Context, in *MappingKey) (*body[Mapping], error) {
			machine, lun, err := find(ctx, *in)
			if err != nil {
				return nil, problem(err)
			}
			m, err := s.mapping(ctx, machine, lun)
			return s.replyMapping(ctx, m, err)
		})
	register(a, http.MethodPatch, "/mappings/{machine}/{lun}", "set-mapping", "Change a mapping", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MappingKey
			Body struct {
				LUN      *int64 `json:"lun,omitempty"`
				Boot     *bool  `json:"boot,omitempty"`
				ReadOnly *bool  `json:"read_only,omitempty"`
			}
		}) (*body[Mapping], error) {
			machine, lun, err := find(ctx, in.MappingKey)
			if err != nil {
				return nil, problem(err)
			}
			patch := store.MappingPatch{Boot: in.Body.Boot, ReadOnly: in.Body.ReadOnly}
			if in.Body.LUN != nil {
				l, err := store.NewLUN(*in.Body.LUN)
				if err != nil {
					return nil, problem(err)
				}
				patch.LUN = &l
			}
			mp, err := s.Acts.SetMapping(ctx, actor(ctx), machine.ID, lun, patch)
			return s.replyMapping(ctx, mp, err)
		})
	register(a, http.MethodDelete, "/mappings/{machine}/{lun}", "remove-mapping", "Remove a mapping", store.ScopeOperate,
		func(ctx context.Context, in *MappingKey) (*empty, error) {
			machine, lun, err := find(ctx, *in)
			if err != nil {
				return nil, problem(err)
			}
			return done(s.Acts.Unmap(ctx, actor(ctx), machine.ID, lun))
		})
}

func (s *server) replyMapping(ctx context.Context, m store.Mapping, err error) (*body[Mapping], error) {
	if err != nil {
		return nil, problem(err)
	}
	v, err := s.mappingView(ctx, m)
	return reply(v, err)
}
