package main

import (
	"slices"
	"testing"
	"time"

	"github.com/signerd/signerd/peers"
)

// A join is given up when its member was away for longer than patience, counted
// from when it was seen last, registered, or the daemon looked again after it had
// not for a while, whichever is latest.
func TestShepherd(t *testing.T) {
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	long := began.Add(-time.Hour)
	away := func(since time.Time) peers.Joining { return peers.Joining{Name: "etcd-2", Since: since} }
	there := peers.Joining{Name: "etcd-2", Since: long, Reachable: true}
	for what, test := range map[string]struct {
		at   func(after time.Duration) []peers.Joining // what is seen; nil: nobody looks
		late time.Duration                             // when it is given up; 0: never
	}{
		"away since before the start": {func(time.Duration) []peers.Joining { return []peers.Joining{away(long)} }, patience},
		"registered later":            {func(time.Duration) []peers.Joining { return []peers.Joining{away(began.Add(gap))} }, gap + patience},
		"seen for a while": {func(after time.Duration) []peers.Joining {
			if after <= 10*gap {
				return []peers.Joining{there}
			}
			return []peers.Joining{away(long)}
		}, 10*gap + patience},
		"always there": {func(time.Duration) []peers.Joining { return []peers.Joining{there} }, 0},
		"nobody looked for a while": {func(after time.Duration) []peers.Joining {
			if after > gap && after < 4*gap {
				return nil
			}
			return []peers.Joining{away(long)}
		}, 4*gap + patience},
		"it left, and joined anew": {func(after time.Duration) []peers.Joining {
			switch {
			case after < patience/2:
				return []peers.Joining{away(long)}
			case after < patience/2+gap:
				return []peers.Joining{}
			}
			return []peers.Joining{away(began.Add(patience/2 + gap))}
		}, patience/2 + gap + patience},
	} {
		s := shepherd{}
		given := time.Duration(0)
		const step = 10 * time.Second
		for after := time.Duration(0); after < 3*patience && given == 0; after += step {
			seen := test.at(after)
			if seen == nil {
				continue
			}
			if late := s.late(began.Add(after), seen); slices.Contains(late, "etcd-2") {
				given = after
			}
		}
		if given < test.late || given > test.late+step || test.late == 0 && given != 0 {
			t.Errorf("%s: given up after %s, want %s", what, given, test.late)
		}
	}
}
