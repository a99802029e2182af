package clone

// batch is how many pages are copied before a flush of the data file.
const batch = 256

// Sync makes every write that returned before it durable, states and size
// included. An error is final, but for that of writing a page: it loses
// nothing, and the next Sync tries again. Lost tells one from the other.
func (l *Layer) Sync() error {
	if !l.writable {
		return nil
	}
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	if err := l.Lost(); err != nil {
		return err
	}
	if l.unsure {
		// What is on the disk of these pages may be their other slot alone.
		if err := l.syncMap(); err != nil {
			return err
		}
	}
	l.dirtyMu.Lock()
	work := l.dirty
	l.dirty = l.spare[:0]
	l.dirtyMu.Unlock()
	l.spare = work
	if len(work) == 0 {
		return l.final(l.data.Sync())
	}
	l.unsure = true
	for done := 0; done < len(work); {
		pages := work[done:min(len(work), done+l.batch)]
		done += len(pages)
		if err := l.flushPages(pages); err != nil {
			l.takeBack(pages, work[done:])
			return err
		}
	}
	return l.syncMap()
}

func (l *Layer) syncMap() error {
	if err := l.final(l.file.Sync()); err != nil {
		return err
	}
	l.unsure = false
	return nil
}

// final remembers an error after which nothing may be called durable.
func (l *Layer) final(err error) error {
	if err != nil {
		l.lost.Store(&err)
	}
	return err
}

// Lost returns the error of a flush that was final.
func (l *Layer) Lost() error {
	if lost := l.lost.Load(); lost != nil {
		return *lost
	}
	return nil
}

// takeBack makes pages dirty again that a flush took: those that it had begun
// with, which may be dirty again already, and the rest, which still are.
func (l *Layer) takeBack(begun, rest []int32) {
	for _, i := range begun {
		l.markDirty(int(i), l.loaded(i))
	}
	l.dirtyMu.Lock()
	l.dirty = append(l.dirty, rest...)
	l.dirtyMu.Unlock()
}

// loaded returns a page that was dirty, and so is in memory.
func (l *Layer) loaded(i int32) *page { return (*l.pages.Load())[i].Load() }

// flushPages copies pages, makes the data file durable and writes the copies.
// The order is the proof: see the package's comment.
func (l *Layer) flushPages(numbers []int32) error {
	if need := len(numbers) * slotSize; cap(l.copies) < need {
		l.copies = make([]byte, need)
	}
	for k, i := range numbers {
		p := l.loaded(i)
		p.dirty.Store(false) // before the copy: what comes later is dirty again
		p.states(l.copies[k*slotSize:][:pageWords*8])
	}
	if err := l.final(l.data.Sync()); err != nil {
		return err
	}
	var slot [slotSize]byte
	for k, i := range numbers {
		p := l.loaded(i)
		seq := p.next
		p.next += 2 // the same slot again, unless this succeeds
		encodeSlot(slot[:], l.id.UUID, int(i), seq, p.seq, l.copies[k*slotSize:][:pageWords*8])
		if err := writeFull(l.file, slot[:], slotOffset(int(i), int(seq&1))); err != nil {
			return err
		}
		p.seq, p.next = seq, seq+1
	}
	return nil
}
