package events

import "lunboot/store"

// queue holds events with consecutive numbers in chunks of a batch each, so
// that growing copies nothing and forgetting frees whole chunks.
type queue struct {
	first  int64 // the number of the first event that is held, or of the next one
	skip   int   // events of the first chunk that are forgotten
	chunks [][]store.Event
}

// push adds the next event; its number follows the last one's. It is never
// written again. Events are large, so that they travel by pointer until here.
func (q *queue) push(e *store.Event) {
	n := len(q.chunks)
	if n == 0 || len(q.chunks[n-1]) == batchSize {
		q.chunks = append(q.chunks, make([]store.Event, 0, batchSize))
		n++
	}
	q.chunks[n-1] = append(q.chunks[n-1], *e)
}

// run returns up to limit events that follow seq, for reading only: as many as
// lie in one chunk, where they lie.
func (q *queue) run(seq int64, limit int) []store.Event {
	at := max(seq+1-q.first, 0) + int64(q.skip)
	c, i := int(at/batchSize), int(at%batchSize)
	if c >= len(q.chunks) || i >= len(q.chunks[c]) {
		return nil
	}
	n := min(i+limit, len(q.chunks[c]))
	return q.chunks[c][i:n:n]
}

// after returns up to limit events that follow seq, for reading only.
func (q *queue) after(seq int64, limit int) []store.Event {
	out := q.run(seq, limit)
	for len(out) > 0 && len(out) < limit {
		more := q.run(out[len(out)-1].Seq, limit-len(out))
		if len(more) == 0 {
			break
		}
		out = append(out, more...) // of two chunks: a copy
	}
	return out
}

// dropBefore forgets the events with smaller numbers than seq.
func (q *queue) dropBefore(seq int64) {
	if seq <= q.first {
		return
	}
	q.skip += int(seq - q.first)
	q.first = seq
	for len(q.chunks) > 0 && q.skip >= batchSize {
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
		q.skip -= batchSize
	}
}
