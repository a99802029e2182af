package stage

import (
	"context"
	"os"

	"lunboot/store"
)

// Image is a whole upload that is being made a volume.
type Image struct {
	store.Upload
	File *os.File
	Path string // of File, from where it may be moved away

	shelf *Shelf
	u     *upload
}

// Take gives out a whole upload to be made a volume of. One whose SHA-256 is
// not the announced one is refused and removed: a part of it is wrong, and
// nobody knows which. The caller owes Image.Done.
func (s *Shelf) Take(ctx context.Context, id string) (*Image, error) {
	u, err := s.hold(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { <-u.turn }()
	if !u.state.Whole() {
		return nil, store.Conflict("offset", "%d of %d bytes have arrived; send the rest first", u.state.Offset, u.state.Size)
	}
	if u.want != "" && u.want != u.state.SHA256 {
		got := u.state.SHA256
		s.drop(u)
		return nil, store.Invalid("sha256", "what arrived has the SHA-256 %s, not the announced %s; it is removed, send it again", got, u.want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.taken = true
	return &Image{Upload: u.state, File: u.file, Path: s.path(id + partEnd), shelf: s, u: u}, nil
}

// Done ends what Take began. An image that could not become a volume now, but
// can later, is kept with the reason; every other one is removed.
func (i *Image) Done(keep bool, problem string) {
	i.u.turn <- struct{}{}
	defer func() { <-i.u.turn }()
	if _, err := os.Stat(i.Path); !keep || err != nil { // moved away is gone, too
		i.shelf.drop(i.u)
		return
	}
	state := i.Upload
	state.Problem, state.Touched = problem, i.shelf.now()
	if err := i.shelf.write(state, i.u.want, i.u.sum); err != nil {
		i.shelf.log.Warn("an upload's record could not be written", "upload", state.ID, "err", err)
	}
	i.shelf.mu.Lock()
	defer i.shelf.mu.Unlock()
	i.u.state, i.u.taken = state, false
}
