package store

import (
	"fmt"
	"strings"
	"time"
)

// VolumeID identifies a volume for good.
type VolumeID int64

// VolumeKind says what holds a volume's bytes.
type VolumeKind string

// The kinds of volumes.
const (
	VolumeRaw    VolumeKind = "raw"    // a sparse file
	VolumeDevice VolumeKind = "device" // a block device of the appliance
	VolumeClone  VolumeKind = "clone"  // copy-on-write over a layer of its parent
)

// VolumeState says whether a volume can be used.
type VolumeState string

// The states of a volume.
const (
	VolumeCreating  VolumeState = "creating"  // the row exists, the file is being made
	VolumeImporting VolumeState = "importing" // bytes are being copied in
	VolumeReady     VolumeState = "ready"
	VolumeFailed    VolumeState = "failed"   // Reason says why
	VolumeRemoving  VolumeState = "removing" // the file is being removed, then the row
	// VolumePromoting is a clone whose bytes are being copied into the next
	// version of its golden volume; nobody may write to it meanwhile.
	VolumePromoting VolumeState = "promoting"
)

// Sizes of volumes, in bytes and blocks.
const (
	// MinBootBlocks is the smallest boot volume that iPXE can hook: it reads
	// four blocks at LBA 64, looking for an ISO 9660 descriptor.
	MinBootBlocks = 68
	// MaxVolumeSize is 64 TiB.
	MaxVolumeSize = int64(64) << 40
)

// Volume is the bytes that a machine sees as a disk. They lie in one layer or in
// several, one upon the other; the layers are the truth about them, and Kind
// only says whether those at the bottom belong to another volume.
type Volume struct {
	ID        VolumeID    `json:"id"`
	Revision  int64       `json:"revision"`
	Name      string      `json:"name"`
	UUID      UUID        `json:"uuid"` // the volume's identity in VPD page 83h
	Kind      VolumeKind  `json:"kind"`
	Size      int64       `json:"size"`       // bytes
	BlockSize int         `json:"block_size"` // 512 or 4096
	Parent    VolumeID    `json:"parent,omitempty"`
	ReadOnly  bool        `json:"read_only"`
	Shared    bool        `json:"shared"`            // may be written by several machines at a time
	Reset     bool        `json:"reset_at_boot"`     // a clone that begins anew at each boot of its machine
	Volatile  bool        `json:"volatile"`          // with Reset: what is written need not outlive a crash of the appliance's machine
	Golden    bool        `json:"golden"`            // others are cloned from it; it never changes, but has versions
	Version   int         `json:"version,omitempty"` // of a golden volume the current one, of a clone the parent's that it stands on; 0: none
	Sanitize  bool        `json:"sanitize"`          // a machine that has it writable may wipe it with SANITIZE
	Direct    bool        `json:"direct"`            // a device that is used past the page cache
	State     VolumeState `json:"state"`
	Progress  int         `json:"progress"` // per cent, while importing
	Reason    string      `json:"reason,omitempty"`
	Path      string      `json:"path"`                   // of the top layer: a file name in the volume folder, or a device's path
	From      string      `json:"created_from,omitempty"` // what it was imported from
	Created   time.Time   `json:"created"`
	Updated   time.Time   `json:"updated"`

	Top    LayerID `json:"-"` // the layer that machines write to
	Layers []Layer `json:"-"` // bottom to top, also those of other volumes; the last one is Top
}

// Validate checks everything about v that needs no look at other nouns.
func (v *Volume) Validate() error {
	var errs []error
	errs = append(errs, ValidateName("name", v.Name))
	switch v.Kind {
	case VolumeRaw, VolumeDevice, VolumeClone:
	default:
		errs = append(errs, Invalid("kind", "%q is not a kind of volume", v.Kind))
	}
	if v.BlockSize != 512 && v.BlockSize != 4096 {
		errs = append(errs, Invalid("block_size", "a block has 512 or 4096 bytes, not %d", v.BlockSize))
	} else if v.Size <= 0 || v.Size > MaxVolumeSize || v.Size%int64(v.BlockSize) != 0 {
		errs = append(errs, Invalid("size", "%d bytes: a volume has whole blocks of %d bytes, up to %s", v.Size, v.BlockSize, Bytes(MaxVolumeSize)))
	}
	if v.Sanitize && (v.ReadOnly || v.Shared) {
		errs = append(errs, Invalid("sanitize", "a volume that is read-only or shared may not be wiped by one of its machines"))
	}
	if v.Reset && v.Kind != VolumeClone {
		errs = append(errs, Invalid("reset_at_boot", "only a clone can begin anew at each boot; make one of a golden volume"))
	}
	if v.Reset && v.Shared {
		errs = append(errs, Invalid("reset_at_boot", "a volume that several machines write cannot begin anew when one of them boots"))
	}
	if v.Volatile && !v.Reset {
		errs = append(errs, notReset())
	}
	if v.Golden && !v.ReadOnly {
		errs = append(errs, Invalid("read_only", "a golden volume stays read-only: its clones stand on its bytes; promote a clone to give it a new version"))
	}
	if v.Direct && v.Kind != VolumeDevice {
		errs = append(errs, Invalid("direct", "only a device can be used past the page cache"))
	}
	if v.Progress < 0 || v.Progress > 100 {
		errs = append(errs, Invalid("progress", "%d per cent", v.Progress))
	}
	return joinFields(errs...)
}

// Blocks returns the number of logical blocks.
func (v *Volume) Blocks() int64 {
	if v.BlockSize == 0 {
		return 0
	}
	return v.Size / int64(v.BlockSize)
}

// Mapping gives a machine a volume as one LUN.
type Mapping struct {
	ID       int64     `json:"id"`
	Revision int64     `json:"revision"`
	Machine  MachineID `json:"machine"`
	Volume   VolumeID  `json:"volume"`
	LUN      LUN       `json:"lun"`
	ReadOnly bool      `json:"read_only"`
	Boot     bool      `json:"boot"` // the machine's script boots this one; at most one a machine
	Created  time.Time `json:"created"`
}

// Validate checks the mapping's own fields.
func (m *Mapping) Validate() error {
	_, err := NewLUN(int64(m.LUN))
	return err
}

// MappingView is a mapping with the names of both its ends.
type MappingView struct {
	Mapping
	MachineName string `json:"machine_name"`
	VolumeName  string `json:"volume_name"`
	VolumeSize  int64  `json:"volume_size"`
}

// NoLUN says that a machine has no mapping of a LUN, and which it has.
func NoLUN(machine string, lun LUN, have []Mapping) *Error {
	e := &Error{Kind: KindNotFound, Field: "lun", Msg: fmt.Sprintf("machine %s has no LUN %d", machine, lun)}
	for k, h := range have {
		if k == 0 {
			e.Msg += "; it has"
		}
		e.Msg += fmt.Sprintf(" %d", h.LUN)
	}
	return e
}

// Job is work of the appliance that outlives the request that asked for it.
type Job struct {
	ID       int64     `json:"id"`
	Kind     string    `json:"kind"`    // "volume.import"
	Subject  string    `json:"subject"` // the volume's name
	State    JobState  `json:"state"`
	Done     int64     `json:"done"`  // bytes; of a job on machines, machines
	Total    int64     `json:"total"` // as Done; 0 when unknown
	Error    string    `json:"error,omitempty"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Counts are how many machines a job on machines ended for, by result.
	Counts map[JobResult]int `json:"counts,omitempty"`
	// Verdicts are what became of each machine of a job on machines, in their order.
	// Lists of jobs leave them out: there may be thousands.
	Verdicts []JobVerdict `json:"verdicts,omitempty"`
}

// JobClones gives many machines a clone each. Its Done and Total count machines.
const JobClones = "machine.clones"

// Amount is an amount of what the job counts, in words: "7 GiB", "12 machines".
func (j Job) Amount(n int64) string {
	switch {
	case j.Kind != JobClones:
		return Bytes(n)
	case n == 1:
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

// Progress says how far the job is: "1 GiB of 4 GiB", "3 of 4 machines".
func (j Job) Progress() string {
	if j.Kind == JobClones {
		return fmt.Sprintf("%d of %s", j.Done, j.Amount(j.Total))
	}
	return j.Amount(j.Done) + " of " + j.Amount(j.Total)
}

// Count counts the verdicts, by result; nil for none.
func (j Job) Count() map[JobResult]int {
	var counts map[JobResult]int
	for _, v := range j.Verdicts {
		if counts == nil {
			counts = map[JobResult]int{}
		}
		counts[v.Result]++
	}
	return counts
}

// Became says how a job on machines ended for them, or how far it is with them: "1
// failed, 3 done". It is empty for every other job.
func (j Job) Became() string {
	var out []string
	for _, r := range JobResults() {
		words := string(r)
		if r == ResultWaiting && j.State != JobRunning {
			words = "not reached"
		}
		if n := j.Counts[r]; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, words))
		}
	}
	return strings.Join(out, ", ")
}

// JobVerdict is what became of one machine of a job on many.
type JobVerdict struct {
	Machine MachineID `json:"machine"`
	Name    string    `json:"name"`
	Result  JobResult `json:"result"`
	Detail  string    `json:"detail,omitempty"` // what it has now, or why it was skipped or failed
}

// JobResult is how a job ended for one machine.
type JobResult string

// The results. A job that ended early leaves those waiting that it did not reach.
const (
	ResultWaiting JobResult = "waiting"
	ResultDone    JobResult = "done"
	ResultSkipped JobResult = "skipped"
	ResultFailed  JobResult = "failed"
)

// JobResults are the ways in which a job ends for a machine, in the order in which
// they want to be looked at.
func JobResults() []JobResult {
	return []JobResult{ResultFailed, ResultWaiting, ResultSkipped, ResultDone}
}

// JobState is a job's place in its life.
type JobState string

// The states of a job.
const (
	JobRunning  JobState = "running"
	JobDone     JobState = "done"
	JobFailed   JobState = "failed"
	JobCanceled JobState = "canceled"
)
