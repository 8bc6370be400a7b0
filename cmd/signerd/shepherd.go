package main

import (
	"time"

	"github.com/signerd/signerd/peers"
)

// shepherd knows how long members that join have been away.
type shepherd struct {
	began  time.Time            // what was before, it did not see
	looked time.Time            // the last time
	seen   map[string]time.Time // when each was reachable last
}

// gap is how long nobody may have looked. After more (etcd was away, or the
// machine slept) all have their time again: nobody knows whether they were there.
const gap = time.Minute

// late gives the names of those that nobody has reached for longer than
// patience.
func (s *shepherd) late(now time.Time, joining []peers.Joining) []string {
	if now.Sub(s.looked) > gap {
		s.began = now
	}
	s.looked = now
	seen := map[string]time.Time{}
	var names []string
	for _, j := range joining {
		last := s.began
		for _, t := range []time.Time{j.Since, s.seen[j.Name]} {
			if t.After(last) {
				last = t
			}
		}
		if j.Reachable {
			last = now
		}
		seen[j.Name] = last
		if now.Sub(last) >= patience {
			names = append(names, j.Name)
		}
	}
	s.seen = seen
	return names
}
