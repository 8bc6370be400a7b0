package peers

import "time"

// Shepherd knows how long members that join have been away. It begins as its zero value.
type Shepherd struct {
	began  time.Time            // what was before, it did not see
	looked time.Time            // the last time
	seen   map[string]time.Time // when each was reachable last
}

// lookGap is how long nobody may have looked. After more (etcd was away, or the
// machine slept) all have their time again: nobody knows whether they were there.
const lookGap = time.Minute

// Late gives the names of those that nobody has reached for longer than Patience, for
// whoever calls it now and then.
func (s *Shepherd) Late(now time.Time, joining []Joining) []string {
	now = now.Round(0) // by the clock that etcd's times are of; the monotonic one stands still with the machine
	if now.Sub(s.looked).Abs() > lookGap {
		s.began = now
	}
	s.looked = now
	seen := map[string]time.Time{}
	var names []string
	for _, j := range joining {
		last := s.began
		before, known := s.seen[j.Name]
		for _, t := range []time.Time{j.Since, before} {
			switch {
			case t.After(now) && (!known || t.Equal(before)):
				last = now // by a clock that was ahead; from here on it counts
			case t.After(last) && !t.After(now):
				last = t
			}
		}
		if j.Reachable {
			last = now
		}
		seen[j.Name] = last
		if now.Sub(last) >= Patience {
			names = append(names, j.Name)
		}
	}
	s.seen = seen
	return names
}
