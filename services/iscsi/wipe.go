package iscsi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lunboot/services"
	"lunboot/store"
)

// finishWipes goes on with the wipes that the end of the last run has interrupted:
// nobody may ever log in to such a volume again, and what it held was to be gone. One
// goes on at a time, since each keeps a disk busy; whoever logs in to another one of
// those volumes meanwhile lets it go on at once, and finds it as it is.
func (s *Server) finishWipes(ctx context.Context) {
	if s.cfg.Wipes == nil {
		return
	}
	volumes, err := s.cfg.Wipes.UnfinishedWipes(ctx)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Error("cannot look up which wipes of volumes are unfinished; each goes on when a machine logs in to its volume", "error", err)
	}
	for _, id := range volumes {
		err := services.Guard(s.cfg.Log, "iSCSI wipe", func() error { return s.finishWipe(ctx, id) })
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.cfg.Log.Error("an unfinished wipe of a volume does not go on; it is looked at again when a machine logs in to the volume", "volume", id, "error", err)
		}
	}
}

// leaveWipes writes down how the appliance leaves the files whose wipes are unfinished,
// when nothing changes them any more: the next one knows whether somebody else has.
func (s *Server) leaveWipes() {
	if s.cfg.Wipes == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
	defer cancel()
	volumes, err := s.cfg.Wipes.UnfinishedWipes(ctx)
	for _, id := range volumes {
		err = errors.Join(err, s.leaveWipe(ctx, id))
	}
	if err != nil {
		s.cfg.Log.Warn("it cannot be written down how volumes are left that are not wiped to the end; do not change their files before they are", "error", err)
	}
}

// leavePatience is for all of that: it is a precaution.
const leavePatience = 5 * time.Second

func (s *Server) leaveWipe(ctx context.Context, id store.VolumeID) error {
	w, err := s.cfg.Wipes.Wipe(ctx, id)
	if err != nil || w == nil {
		return err
	}
	m, err := s.cfg.Catalog.Volume(ctx, id)
	if err != nil {
		return err
	}
	if m.Release != nil {
		defer m.Release()
	}
	left := *w
	for _, e := range m.LUNs {
		if e.Bytes != w.Bytes || !w.Left.IsZero() { // it did not go on
			return nil
		}
		left.Left = e.Changed
	}
	return s.cfg.Wipes.BeginWipe(ctx, id, left)
}

// finishWipe goes on with one, and waits for its end.
func (s *Server) finishWipe(ctx context.Context, id store.VolumeID) error {
	m, err := s.cfg.Catalog.Volume(ctx, id)
	if err != nil {
		return err
	}
	entries, l, err := s.units.open(ctx, m)
	if err != nil {
		if m.Release != nil {
			m.Release()
		}
		return err
	}
	defer l.close()
	for _, e := range entries {
		s.cfg.Log.Info("an unfinished wipe of a volume is looked at", "volume", e.Unit.Name())
		switch {
		case e.Unit.Rest(ctx):
			s.cfg.Log.Info("a volume has been wiped to the end", "volume", e.Unit.Name())
		case ctx.Err() == nil:
			return fmt.Errorf("the wipe of volume %s has failed, or its file is another one or was changed since; wipe it again, or forbid that with 'lunboot volume set %s --no-sanitize'", e.Unit.Name(), e.Unit.Name())
		}
	}
	return nil
}
