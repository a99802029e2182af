// Package crashfs is a folder of files in memory that loses power: a test kit
// for everything that promises to survive it.
//
// It keeps two states of every file: what a program sees, and what a disk
// holds. A write changes the first alone; Sync of the file copies it to the
// second. At a crash each 512-byte sector that was written since the last Sync
// holds, by the toss of a seeded coin, one of the versions that were written or
// the old one. Sectors are never torn, as disks promise. Names behave the same:
// creations, removals and renames are certain after Sync of the folder, and
// each is kept or lost with all later ones at a crash. A test that wants every
// outcome of one crash, and not one by chance, names them (After), and one that
// kills the process alone keeps the power (Revive).
//
// It knows nothing of volumes and imports the standard library only.
package crashfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrCrashed is what every operation returns after the power failed.
var ErrCrashed = errors.New("the power failed")

// Sector is what a disk writes whole or not at all.
const Sector = 512

// OpKind is what an operation does.
type OpKind string

// The operations.
const (
	OpCreate   OpKind = "create"
	OpOpen     OpKind = "open"
	OpRead     OpKind = "read"
	OpWrite    OpKind = "write"
	OpTruncate OpKind = "truncate"
	OpPunch    OpKind = "punch"
	OpSync     OpKind = "sync"
	OpRemove   OpKind = "remove"
	OpRename   OpKind = "rename"
	OpSyncDir  OpKind = "syncdir"
)

// changes reports whether a crash can fall on the operation.
func (k OpKind) changes() bool { return k != OpOpen && k != OpRead }

// Op is one operation, as Inject's hook sees it before it happens.
type Op struct {
	Kind OpKind
	Name string
	Off  int64
	Len  int64
}

func (o Op) String() string { return fmt.Sprintf("%s %s %d+%d", o.Kind, o.Name, o.Off, o.Len) }

// FS is the folder.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	live    map[string]*node
	durable map[string]*node
	pending []func(map[string]*node) // name changes since the last Sync, in order
	crashAt int                      // the n-th change that fails; 0 for none
	changes int
	crashed bool
	hook    func(Op) error
	space   int64
}

// New makes an empty folder. One seed gives one outcome of every crash.
func New(seed uint64) *FS {
	return &FS{rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), live: map[string]*node{}, durable: map[string]*node{}, space: 1 << 40}
}

// Inject calls hook before each operation, outside of any lock; its error makes
// the operation fail. A Sync that fails this way loses the writes that it was
// to save while reads go on showing them, as Linux does.
func (f *FS) Inject(hook func(Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Short is an error for Inject's hook: a write puts its first N bytes down
// before it fails with Err.
type Short struct {
	N   int
	Err error
}

func (s *Short) Error() string { return s.Err.Error() }

// Unwrap returns what the write fails with.
func (s *Short) Unwrap() error { return s.Err }

// Delay is a hook for Inject that makes every operation of a kind take d.
func Delay(kind OpKind, d time.Duration) func(Op) error {
	return func(o Op) error {
		if o.Kind == kind {
			time.Sleep(d)
		}
		return nil
	}
}

// CrashAt makes the n-th change from now on, counted from 1, fail halfway, and
// everything after it fail with ErrCrashed. 0 takes it back.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashAt, f.changes = n, 0
}

// Crashed reports whether the power failed.
func (f *FS) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// SetFree sets the room: writes to sectors that have none beyond it fail with
// ENOSPC.
func (f *FS) SetFree(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space = n + f.used()
}

func (f *FS) used() (n int64) {
	for _, nd := range f.live {
		n += int64(len(nd.live)) * Sector
	}
	return n
}

// Used is the room that a file takes, 0 when there is none.
func (f *FS) Used(name string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if nd := f.live[name]; nd != nil {
		return int64(len(nd.live)) * Sector, nil
	}
	return 0, nil
}

// Reflinked is not known: no file in memory shares what it holds.
func (f *FS) Reflinked(context.Context, string) (int64, error) { return 0, errors.ErrUnsupported }

// Free is the room that is left.
func (f *FS) Free() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(0, f.space-f.used()), nil
}

// begin runs the hook, counts a change and says whether the power fails in it.
// The caller holds f.mu when it returns.
func (f *FS) begin(o Op) (torn bool, err error) {
	f.mu.Lock()
	if hook := f.hook; hook != nil && !f.crashed {
		f.mu.Unlock()
		err = hook(o)
		f.mu.Lock()
	}
	switch {
	case f.crashed:
		return false, ErrCrashed
	case err != nil:
		return false, err
	case !o.Kind.changes():
		return false, nil
	}
	f.changes++
	if f.changes == f.crashAt {
		f.crashed = true
		return true, ErrCrashed
	}
	return false, nil
}

// Create makes a file that must not exist.
func (f *FS) Create(name string) (*File, error) {
	torn, err := f.begin(Op{Kind: OpCreate, Name: name})
	defer f.mu.Unlock()
	if err != nil && !torn {
		return nil, err
	}
	if f.live[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	nd := &node{live: map[int64]sector{}, durable: map[int64]sector{}}
	f.rename(func(m map[string]*node) { m[name] = nd })
	return &File{fs: f, name: name, node: nd, write: true}, err
}

// Open opens a file.
func (f *FS) Open(name string, write bool) (*File, error) {
	_, err := f.begin(Op{Kind: OpOpen, Name: name})
	defer f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	nd := f.live[name]
	if nd == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &File{fs: f, name: name, node: nd, write: write}, nil
}

// Remove removes a file's name.
func (f *FS) Remove(name string) error {
	torn, err := f.begin(Op{Kind: OpRemove, Name: name})
	defer f.mu.Unlock()
	if err != nil && !torn {
		return err
	}
	if f.live[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	f.rename(func(m map[string]*node) { delete(m, name) })
	return err
}

// Rename gives a file another name and takes that from its former owner.
func (f *FS) Rename(from, to string) error {
	torn, err := f.begin(Op{Kind: OpRename, Name: from})
	defer f.mu.Unlock()
	if err != nil && !torn {
		return err
	}
	nd := f.live[from]
	if nd == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	f.rename(func(m map[string]*node) { m[to] = nd; delete(m, from) })
	return err
}

func (f *FS) rename(change func(map[string]*node)) {
	change(f.live)
	f.pending = append(f.pending, change)
}

// Sync makes the names durable.
func (f *FS) Sync() error {
	_, err := f.begin(Op{Kind: OpSyncDir})
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	for _, change := range f.pending {
		change(f.durable)
	}
	f.pending = nil
	return nil
}

// Names lists the files.
func (f *FS) Names() ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return nil, ErrCrashed
	}
	names := make([]string, 0, len(f.live))
	for name := range f.live {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Close does nothing.
func (f *FS) Close() error { return nil }

type sector [Sector]byte

// node is a file's content. A sector that is not in a map reads zero.
type node struct {
	live, durable map[int64]sector
	size, synced  int64
	// pending are the sectors that changed since the last Sync, each with the
	// versions it had, oldest first; nil is a hole.
	pending map[int64][]*sector
}

func (n *node) set(i int64, s *sector) {
	if s == nil {
		delete(n.live, i)
	} else {
		n.live[i] = *s
	}
	if n.pending == nil {
		n.pending = map[int64][]*sector{}
	}
	n.pending[i] = append(n.pending[i], s)
}

func (n *node) persist(i int64, s *sector) {
	if s == nil {
		delete(n.durable, i)
	} else {
		n.durable[i] = *s
	}
}

func (n *node) sync() {
	for i, versions := range n.pending {
		n.persist(i, versions[len(versions)-1])
	}
	n.pending, n.synced = nil, n.size
}

// lose forgets what a failed flush did not write; reads go on showing it.
func (n *node) lose() { n.pending = nil }

// changed lists the sectors that changed since the last Sync, in order: one
// seed, one outcome.
func (n *node) changed() []int64 {
	changed := make([]int64, 0, len(n.pending))
	for i := range n.pending {
		changed = append(changed, i)
	}
	slices.Sort(changed)
	return changed
}

func (n *node) afterCrash(rng *rand.Rand) *node {
	for _, i := range n.changed() {
		if k := rng.IntN(len(n.pending[i]) + 1); k > 0 {
			n.persist(i, n.pending[i][k-1])
		}
	}
	size := n.synced
	if n.size != n.synced && rng.IntN(2) == 0 {
		size = n.size
	}
	out := &node{live: map[int64]sector{}, durable: map[int64]sector{}, size: size, synced: size}
	for i, s := range n.durable {
		if i*Sector < size {
			out.live[i], out.durable[i] = s, s
		}
	}
	return out
}

// File is an open file.
type File struct {
	fs    *FS
	name  string
	node  *node
	write bool
}

func (f *File) op(kind OpKind, off, n int64) Op {
	return Op{Kind: kind, Name: f.name, Off: off, Len: n}
}

// begin is FS.begin with the check that the file may be written.
func (f *File) begin(kind OpKind, off, n int64) (torn bool, err error) {
	torn, err = f.fs.begin(f.op(kind, off, n))
	if err == nil && !f.write && kind.changes() && kind != OpSync {
		err = &fs.PathError{Op: string(kind), Path: f.name, Err: syscall.EBADF}
	}
	return torn, err
}

// ReadAt is io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	_, err := f.begin(OpRead, off, int64(len(p)))
	defer f.fs.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n := int(max(0, min(int64(len(p)), f.node.size-off)))
	for done := 0; done < n; {
		at := off + int64(done)
		s := f.node.live[at/Sector]
		done += copy(p[done:n], s[at%Sector:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt is io.WriterAt. A crash in it leaves some of its sectors.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	torn, err := f.begin(OpWrite, off, int64(len(p)))
	defer f.fs.mu.Unlock()
	var short *Short
	if errors.As(err, &short) {
		p = p[:min(len(p), short.N)]
	} else if err != nil && !torn {
		return 0, err
	}
	used := f.fs.used()
	for done := 0; done < len(p); {
		at := off + int64(done)
		s, has := f.node.live[at/Sector]
		if !has {
			if used += Sector; used > f.fs.space {
				return done, &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
			}
		}
		done += copy(s[at%Sector:], p[done:])
		f.node.set(at/Sector, &s)
		f.node.size = max(f.node.size, off+int64(done))
	}
	return len(p), err
}

// Punch makes a range a hole; parts of sectors are zeroed.
func (f *File) Punch(off, n int64) error {
	torn, err := f.begin(OpPunch, off, n)
	defer f.fs.mu.Unlock()
	if err != nil && !torn {
		return err
	}
	for end := min(off+n, f.node.size); off < end; {
		i, from := off/Sector, off%Sector
		to := min(Sector, from+end-off)
		s, has := f.node.live[i]
		if from == 0 && to == Sector {
			f.node.set(i, nil)
		} else if has {
			clear(s[from:to])
			f.node.set(i, &s)
		}
		off += to - from
	}
	return err
}

// Truncate sets the size.
func (f *File) Truncate(size int64) error {
	torn, err := f.begin(OpTruncate, size, 0)
	defer f.fs.mu.Unlock()
	if err != nil && !torn {
		return err
	}
	for i := range f.node.live {
		if i*Sector >= size {
			f.node.set(i, nil)
		}
	}
	f.node.size = size
	return err
}

// Sync makes the content and the size durable. When the hook refuses it, the
// writes that it was to save are lost.
func (f *File) Sync() error {
	_, err := f.begin(OpSync, 0, 0)
	defer f.fs.mu.Unlock()
	switch {
	case err == nil:
		f.node.sync()
	case !errors.Is(err, ErrCrashed):
		f.node.lose()
	}
	return err
}

// Size is the file's size.
func (f *File) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.node.size, nil
}

// Extent says whether off lies in data or in a hole, and where that ends.
func (f *File) Extent(off int64) (data bool, end int64, err error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.crashed {
		return false, 0, ErrCrashed
	}
	i := off / Sector
	_, data = f.node.live[i]
	for has := data; has == data && i*Sector < f.node.size; i++ {
		_, has = f.node.live[i+1]
	}
	return data, min(i*Sector, f.node.size), nil
}

// Resident never has anything at hand.
func (f *File) Resident([]byte, int64) bool { return false }

// Cached never has a descriptor.
func (f *File) Cached(int64, int64) (int, bool) { return 0, false }

// Close does nothing: closing a file saves nothing.
func (f *File) Close() error { return nil }
