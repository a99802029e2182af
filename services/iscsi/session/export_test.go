package session

// Held says how much memory a session has for data: of what all share, and in
// all.
func (s *Session) Held() (pool, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.account.Held()
}

// Free says how much is left of what all sessions share.
func (s *Shared) Free() int { return s.pool.Free() }

// Kept says how many readers commands have kept.
func (s *Session) Kept() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, u := range s.lus {
		n += u.held
	}
	return n
}
