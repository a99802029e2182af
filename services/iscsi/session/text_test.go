package session_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// ask sends a Text Request.
func (r *rig) ask(t testing.TB, q pdu.TextRequest, text []byte) {
	t.Helper()
	q.Immediate, q.CmdSN = true, r.CmdSN
	r.send(t, &q, text)
}

func (r *rig) rejected(t testing.TB, reason pdu.RejectReason) {
	t.Helper()
	if p, h := Expect[*pdu.Reject](t, r.Initiator); p.Reason != reason || len(h) != pdu.BHSLength || pdu.Opcode(h[0]&0x3f) != pdu.OpTextRequest {
		t.Errorf("rejected for %s with %d bytes, want %s", p.Reason, len(h), reason)
	}
}

// RFC 7143 §6.2: an answer that does not fit what the initiator takes goes out
// in several PDUs, each asked for by an empty request.
func TestTextAnswerOverSeveralPDUs(t *testing.T) {
	p := params()
	p.MaxRecvDataSegmentLength = 512
	r := newRig(t, p).ready(t)
	var text []byte
	var want []pdu.Pair
	for n := range 40 {
		k := fmt.Sprintf("X-com.example.%02d", n)
		text = pdu.AppendText(text, k, "1")
		want = append(want, pdu.Pair{Key: k, Value: "NotUnderstood"})
	}
	q := pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}
	r.ask(t, q, text)
	var all []byte
	parts := 0
	for {
		a, data := Expect[*pdu.TextResponse](t, r.Initiator)
		all = append(all, data...)
		parts++
		if len(data) > 512 || a.InitiatorTaskTag != 7 || a.Final == a.Continue || a.Final != (a.TargetTransferTag == pdu.ReservedTag) {
			t.Fatalf("part %d: %+v with %d bytes", parts, a, len(data))
		}
		if a.Final {
			break
		}
		if len(data) != 512 {
			t.Errorf("part %d has %d bytes", parts, len(data))
		}
		q.TargetTransferTag = a.TargetTransferTag
		r.ask(t, q, nil)
	}
	if pairs, err := pdu.ParseText(all); err != nil || !slices.Equal(pairs, want) || parts != (len(all)+511)/512 {
		t.Errorf("%d parts make %v, %v", parts, pairs, err)
	}
	r.Must(t, Ready(0))
}

// A negotiation has one thread: what does not follow is rejected, and ends it.
func TestTextThatDoesNotFollow(t *testing.T) {
	long := bytes.Repeat([]byte("X-com.example.key=1\x00"), 60)
	more := pdu.TextRequest{Continue: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}
	final := pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}
	for _, c := range []struct {
		name   string
		first  pdu.TextRequest
		text   []byte
		edit   func(q *pdu.TextRequest)
		then   []byte
		reason pdu.RejectReason
	}{
		{"another transfer tag", more, []byte("X-a"), func(q *pdu.TextRequest) { q.TargetTransferTag++ }, []byte("=1\x00"), pdu.ReasonInvalidPDUField},
		{"another task tag", more, []byte("X-a"), func(q *pdu.TextRequest) { q.InitiatorTaskTag++ }, []byte("=1\x00"), pdu.ReasonInvalidPDUField},
		{"text while the answer is not complete", final, long, func(*pdu.TextRequest) {}, []byte("X-b=1\x00"), pdu.ReasonProtocolError},
		{"more to come while the answer is not complete", final, long, func(q *pdu.TextRequest) { q.Final, q.Continue = false, true }, nil, pdu.ReasonProtocolError},
		{"text without an end", more, []byte("X-a=1"), func(q *pdu.TextRequest) { q.Final, q.Continue = true, false }, []byte("23"), pdu.ReasonProtocolError},
		{"F and C", more, []byte("X-a"), func(q *pdu.TextRequest) { q.Final = true }, []byte("=1\x00"), pdu.ReasonInvalidPDUField},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			p.MaxRecvDataSegmentLength = 512
			r := newRig(t, p).ready(t)
			r.ask(t, c.first, c.text)
			a, _ := Expect[*pdu.TextResponse](t, r.Initiator)
			if a.Final || a.TargetTransferTag == pdu.ReservedTag {
				t.Fatalf("the negotiation does not go on: %+v", a)
			}
			q := c.first
			q.TargetTransferTag = a.TargetTransferTag
			c.edit(&q)
			r.ask(t, q, c.then)
			r.rejected(t, c.reason)
			// A new negotiation begins from nothing.
			r.ask(t, final, pdu.AppendText(nil, "X-c", "1"))
			if _, data := Expect[*pdu.TextResponse](t, r.Initiator); string(data) != "X-c=NotUnderstood\x00" {
				t.Errorf("answered %q", data)
			}
		})
	}
	t.Run("nothing was begun", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		for _, ttt := range []pdu.TaskTag{0, 1, 12345} {
			r.ask(t, pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: ttt}, nil)
			r.rejected(t, pdu.ReasonInvalidPDUField)
		}
	})
	t.Run("without end", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := more
		for range 2 {
			r.ask(t, q, make([]byte, 8192))
			a, _ := Expect[*pdu.TextResponse](t, r.Initiator)
			q.TargetTransferTag = a.TargetTransferTag
		}
		r.ask(t, q, make([]byte, 8192))
		r.rejected(t, pdu.ReasonInvalidPDUField)
	})
}

// §7.12: what is declared in a negotiation holds from its end on, and not at all
// when it fails.
func TestADeclarationHoldsWhenItsNegotiationHasEnded(t *testing.T) {
	declare := pdu.AppendText(nil, "MaxRecvDataSegmentLength", "512")
	parts := func(t *testing.T, r *rig, want int) {
		t.Helper()
		if res := r.Must(t, Read10(0, 0, 4)); res.DataIns != want {
			t.Errorf("2048 bytes came in %d PDUs, want %d", res.DataIns, want)
		}
	}
	for name, last := range map[string]struct {
		q    pdu.TextRequest
		text []byte
		end  func(t *testing.T, r *rig)
		want int
	}{
		"ended well": {pdu.TextRequest{Final: true, InitiatorTaskTag: 7}, nil, func(t *testing.T, r *rig) {
			if p, _ := Expect[*pdu.TextResponse](t, r.Initiator); !p.Final {
				t.Errorf("%+v", p)
			}
		}, 4},
		"failed": {pdu.TextRequest{Final: true, InitiatorTaskTag: 7}, []byte("nonsense"), func(t *testing.T, r *rig) {
			r.rejected(t, pdu.ReasonProtocolError)
		}, 1},
		"given up for another": {pdu.TextRequest{Final: true, InitiatorTaskTag: 8, TargetTransferTag: pdu.ReservedTag}, nil, func(t *testing.T, r *rig) {
			Expect[*pdu.TextResponse](t, r.Initiator)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.ask(t, pdu.TextRequest{InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}, declare)
			a, _ := Expect[*pdu.TextResponse](t, r.Initiator)
			if a.Final || a.Continue {
				t.Fatalf("%+v", a)
			}
			parts(t, r, 1)
			if last.q.TargetTransferTag == 0 {
				last.q.TargetTransferTag = a.TargetTransferTag
			}
			r.ask(t, last.q, last.text)
			last.end(t, r)
			parts(t, r, last.want)
		})
	}
}

// Appendix C: whom SendTargets lists in a normal session.
func TestSendTargetsInANormalSession(t *testing.T) {
	const own = "iqn.2026-11.lunboot:t"
	r := newRig(t, params()).ready(t)
	for value, want := range map[string]int{"": 2, own: 2, strings.ToUpper(own): 2, "iqn.2026-11.lunboot:other": 0} {
		r.ask(t, pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}, pdu.AppendText(nil, "SendTargets", value))
		_, data := Expect[*pdu.TextResponse](t, r.Initiator)
		pairs, err := pdu.ParseText(data)
		if err != nil || len(pairs) != want {
			t.Errorf("SendTargets=%q: %v, %v", value, pairs, err)
		}
	}
}

// RFC 7143 §11.18: a ping comes back with its own data, cut to what the
// initiator takes; an answer to a ping of the target's is answered by nothing.
func TestPings(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, want int
		immediate  bool
		digests    bool
	}{
		{"empty", 0, 0, true, false}, {"one byte", 1, 1, true, false}, {"a word", 4, 4, false, false}, {"odd", 511, 511, false, true},
		{"as much as the initiator takes", 4096, 4096, true, true}, {"more than that", 4097, 4096, true, false}, {"far more", 200 << 10, 4096, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := params()
			p.MaxRecvDataSegmentLength, p.HeaderDigest, p.DataDigest = 4096, c.digests, c.digests
			r := newRig(t, p).ready(t)
			data := bytes.Repeat([]byte("ping"), c.size/4+1)[:c.size]
			q := &pdu.NOPOut{Immediate: c.immediate, LUN: LUN(1), InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
			if !c.immediate {
				r.CmdSN++
			}
			r.send(t, q, data)
			a, got := Expect[*pdu.NOPIn](t, r.Initiator)
			if a.InitiatorTaskTag != q.InitiatorTaskTag || a.TargetTransferTag != pdu.ReservedTag || a.SN.ExpCmdSN != r.CmdSN || !bytes.Equal(got, data[:c.want]) {
				t.Errorf("%+v with %d bytes", a, len(got))
			}
			r.Must(t, Ready(0))
		})
	}
	t.Run("an answer", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.session.Ping()
		ping, data := Expect[*pdu.NOPIn](t, r.Initiator)
		if ping.InitiatorTaskTag != pdu.ReservedTag || ping.TargetTransferTag == pdu.ReservedTag || len(data) != 0 {
			t.Fatalf("%+v", ping)
		}
		r.send(t, &pdu.NOPOut{Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ping.TargetTransferTag, CmdSN: r.CmdSN}, nil)
		r.quiet(t)
		r.send(t, &pdu.NOPOut{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ping.TargetTransferTag, CmdSN: r.CmdSN}, nil) // not immediate
		if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonInvalidPDUField {
			t.Errorf("rejected for %s", p.Reason)
		}
	})
}
