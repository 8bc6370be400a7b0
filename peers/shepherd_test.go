package peers

import (
	"slices"
	"testing"
	"time"
)

// A join is given up when its member was away for longer than Patience, counted
// from when it was seen last, registered, or the daemon looked again after it had
// not for a while, whichever is latest.
func TestShepherd(t *testing.T) {
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	long := began.Add(-time.Hour)
	away := func(since time.Time) Joining { return Joining{Name: "etcd-2", Since: since} }
	there := Joining{Name: "etcd-2", Since: long, Reachable: true}
	for what, test := range map[string]struct {
		at   func(after time.Duration) []Joining // what is seen; nil: nobody looks
		late time.Duration                       // when it is given up; 0: never
	}{
		"away since before the start": {func(time.Duration) []Joining { return []Joining{away(long)} }, Patience},
		"registered later":            {func(time.Duration) []Joining { return []Joining{away(began.Add(lookGap))} }, lookGap + Patience},
		"seen for a while": {func(after time.Duration) []Joining {
			if after <= 10*lookGap {
				return []Joining{there}
			}
			return []Joining{away(long)}
		}, 10*lookGap + Patience},
		"always there": {func(time.Duration) []Joining { return []Joining{there} }, 0},
		"nobody looked for a while": {func(after time.Duration) []Joining {
			if after > lookGap && after < 4*lookGap {
				return nil
			}
			return []Joining{away(long)}
		}, 4*lookGap + Patience},
		"registered by a clock that was ahead": {func(time.Duration) []Joining { return []Joining{away(began.Add(24 * time.Hour))} }, Patience},
		"it left, and joined anew": {func(after time.Duration) []Joining {
			switch {
			case after < Patience/2:
				return []Joining{away(long)}
			case after < Patience/2+lookGap:
				return []Joining{}
			}
			return []Joining{away(began.Add(Patience/2 + lookGap))}
		}, Patience/2 + lookGap + Patience},
	} {
		s := Shepherd{}
		given := time.Duration(0)
		const step = 10 * time.Second
		for after := time.Duration(0); after < 3*Patience && given == 0; after += step {
			seen := test.at(after)
			if seen == nil {
				continue
			}
			if late := s.Late(began.Add(after), seen); slices.Contains(late, "etcd-2") {
				given = after
			}
		}
		if given < test.late || given > test.late+step || test.late == 0 && given != 0 {
			t.Errorf("%s: given up after %s, want %s", what, given, test.late)
		}
	}
}

// A clock that jumps, either way, gives all their time again.
func TestShepherdJump(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		s := Shepherd{}
		now := time.Now() // with the monotonic clock, as it is called
		joining := []Joining{{Name: "etcd-2", Since: now.Add(-time.Minute)}}
		for _, at := range []time.Time{now, now.Round(0).Add(jump), now.Round(0).Add(jump + lookGap)} {
			if late := s.Late(at, joining); len(late) > 0 {
				t.Errorf("after a jump of %s %v is late at %s", jump, late, at)
			}
		}
	}
}

// A clock that is set back by little costs nobody the time that it has.
func TestShepherdStepBack(t *testing.T) {
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := Shepherd{}
	now := began
	look := func(joining ...Joining) []string {
		return s.Late(now, joining)
	}
	for ; now.Before(began.Add(2 * Patience)); now = now.Add(10 * time.Second) {
		look()
	}
	registered := Joining{Name: "etcd-2", Since: now.Add(30 * time.Second)} // the clock is set back before the next look
	if late := look(registered); late != nil {
		t.Errorf("%v is late when it is seen first", late)
	}
	now = now.Add(10 * time.Second)
	look(Joining{Name: "etcd-2", Since: registered.Since, Reachable: true})
	now = now.Add(-30 * time.Second)
	if late := look(registered); late != nil {
		t.Errorf("%v is late, seen 30 s from now", late)
	}
	for given := registered.Since.Add(Patience + 20*time.Second); now.Before(given); now = now.Add(10 * time.Second) {
		if late := look(registered); late != nil {
			return
		}
	}
	t.Error("it is never late")
}
