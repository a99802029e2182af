package session_test

import (
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// RFC 7143 §11.4.5: the residual count of a command that fails is what was not
// transferred, and data that has come was.
func TestResidualOfAWriteThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		blocks, immediate, unasked int
		edit                       func(r *rig, w *Command)
		residual                   uint32
		key                        string
	}{
		"a small one":              {1, 512, 0, nil, 0, "07/27/07"},
		"one on its own goroutine": {1, 512, 0, func(_ *rig, w *Command) { w.CDB[1] = 0x08 }, 0, "07/27/07"},
		"one that was asked for":   {8, 0, 0, nil, 0, "07/27/07"},
		"one that came unasked":    {8, 512, 3584, nil, 0, "07/27/07"},
		"a large one":              {2048, 0, 0, nil, 0, "07/27/07"},
		"beyond the end":           {8, 1024, 0, func(_ *rig, w *Command) { w.CDB[2] = 0x7f }, 3072, "05/21/00"},
		"beyond the end, unasked":  {8, 1024, 3072, func(_ *rig, w *Command) { w.CDB[2] = 0x7f }, 0, "05/21/00"},
		"no data came":             {8, 0, 0, func(_ *rig, w *Command) { w.CDB[2] = 0x7f }, 4096, "05/21/00"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.volumes[0].full.Store(true)
			w := Write10(0, 0, make([]byte, c.blocks*512))
			w.Immediate, w.Unasked = c.immediate, c.unasked
			if c.edit != nil {
				c.edit(r, &w)
			}
			res, err := r.Do(w)
			if err != nil || res.Key() != c.key || res.Overflow || res.Underflow != (c.residual > 0) || res.Residual != c.residual {
				t.Errorf("%v, %s, over %v under %v by %d; want %s, under by %d", err, res.Key(), res.Overflow, res.Underflow, res.Residual, c.key, c.residual)
			}
		})
	}
	t.Run("less than was asked for", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := r.command(0x2a, 8, nil)
		r.send(t, q, nil)
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, make([]byte, 512))
		Expect[*pdu.Reject](t, r.Initiator)
		if p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator); p.Status != 2 || !p.Underflow || p.ResidualCount != 3584 {
			t.Errorf("%+v", p)
		}
	})
}
