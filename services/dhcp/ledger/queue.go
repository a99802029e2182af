package ledger

// queue is a heap of numbers below a bound, by when each is due. It knows where
// every number is, so that any can be changed or removed.
type queue struct {
	heap  []due
	place []int32 // of each number in heap, from 1; 0 for none
}

type due struct {
	at int64
	i  int
}

func newQueue(size int) queue { return queue{place: make([]int32, size)} }

func (q *queue) len() int { return len(q.heap) }

func (q *queue) has(i int) bool { return q.place[i] != 0 }

// first returns what is due first.
func (q *queue) first() (i int, at int64, ok bool) {
	if len(q.heap) == 0 {
		return 0, 0, false
	}
	return q.heap[0].i, q.heap[0].at, true
}

// put adds a number, or changes when it is due.
func (q *queue) put(i int, at int64) {
	k := int(q.place[i]) - 1
	if k < 0 {
		k = len(q.heap)
		q.heap = append(q.heap, due{})
	}
	q.set(k, due{at, i})
	q.mend(k)
}

func (q *queue) remove(i int) {
	k := int(q.place[i]) - 1
	if k < 0 {
		return
	}
	last := len(q.heap) - 1
	moved := q.heap[last]
	q.heap = q.heap[:last]
	q.place[i] = 0
	if k < last {
		q.set(k, moved)
		q.mend(k)
	}
}

func (q *queue) set(k int, d due) {
	q.heap[k] = d
	q.place[d.i] = int32(k + 1)
}

// before orders by time, and what is due together by number.
func (q *queue) before(a, b int) bool {
	x, y := q.heap[a], q.heap[b]
	return x.at < y.at || x.at == y.at && x.i < y.i
}

func (q *queue) swap(a, b int) {
	x, y := q.heap[a], q.heap[b]
	q.set(a, y)
	q.set(b, x)
}

// mend moves what is at k to where it belongs.
func (q *queue) mend(k int) {
	for k > 0 && q.before(k, (k-1)/2) {
		q.swap(k, (k-1)/2)
		k = (k - 1) / 2
	}
	for {
		least := k
		for child := 2*k + 1; child <= 2*k+2 && child < len(q.heap); child++ {
			if q.before(child, least) {
				least = child
			}
		}
		if least == k {
			return
		}
		q.swap(k, least)
		k = least
	}
}

// firstThat returns the first number, in the order in which they are due, of
// which ok holds; -1 when there is none. It looks at no more of the heap than
// lies before that one.
func (q *queue) firstThat(ok func(i int) bool) int {
	if len(q.heap) == 0 {
		return -1
	}
	// The places whose parents were looked at, themselves a small heap.
	look := queueOfPlaces{q: q}
	look.push(0)
	for len(look.places) > 0 {
		k := look.pop()
		if i := q.heap[k].i; ok(i) {
			return i
		}
		for child := 2*k + 1; child <= 2*k+2 && child < len(q.heap); child++ {
			look.push(child)
		}
	}
	return -1
}

// queueOfPlaces orders places of a queue's heap by what is due there.
type queueOfPlaces struct {
	q      *queue
	places []int
}

func (h *queueOfPlaces) push(p int) {
	h.places = append(h.places, p)
	for k := len(h.places) - 1; k > 0 && h.q.before(h.places[k], h.places[(k-1)/2]); k = (k - 1) / 2 {
		h.places[k], h.places[(k-1)/2] = h.places[(k-1)/2], h.places[k]
	}
}

func (h *queueOfPlaces) pop() int {
	top := h.places[0]
	last := len(h.places) - 1
	h.places[0] = h.places[last]
	h.places = h.places[:last]
	for k := 0; ; {
		least := k
		for child := 2*k + 1; child <= 2*k+2 && child < last; child++ {
			if h.q.before(h.places[child], h.places[least]) {
				least = child
			}
		}
		if least == k {
			return top
		}
		h.places[k], h.places[least] = h.places[least], h.places[k]
		k = least
	}
}
