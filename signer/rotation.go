package signer

import (
	"fmt"
	"slices"
)

// A rotation replaces the CA's key while etcd serves. Its steps change the roles of
// two generations, the old one and the new one, as a whole set:
//
//	              old       new
//	              active              what is signed leads to the old CA
//	prepare       active    passive   the trust bundle has both
//	activate      passive   active    what is signed leads to both, by the cross certificate
//	retire        inactive  active    the trust bundle has only the new one
//	finish                  active    the old key is erased
//
// rollback leads back from activate, and abort from prepare.

// Step is a step of a rotation.
type Step string

// The steps there are.
const (
	Prepare  Step = "prepare"
	Activate Step = "activate"
	Retire   Step = "retire"
	Finish   Step = "finish"
	Rollback Step = "rollback"
	Abort    Step = "abort"
)

// Phase is where a rotation stands: it has the roles of the old and of the new
// generation.
type Phase string

// The phases, in the order in which a rotation goes through them.
const (
	Resting   Phase = "resting" // no rotation goes on
	Prepared  Phase = "prepared"
	Activated Phase = "activated"
	Retired   Phase = "retired"
)

// Next gives the step that leads on from a phase.
func (p Phase) Next() Step { return forward[slices.Index(phases, p)] }

var (
	phases  = []Phase{Resting, Prepared, Activated, Retired}
	forward = []Step{Prepare, Activate, Retire, Finish}
)

// transitions say from which phase to which each step leads.
var transitions = map[Step]struct{ from, to Phase }{
	Prepare:  {Resting, Prepared},
	Activate: {Prepared, Activated},
	Retire:   {Activated, Retired},
	Finish:   {Retired, Resting},
	Rollback: {Activated, Prepared},
	Abort:    {Prepared, Resting},
}

// Done says whether a step needs not be done in a phase, since the rotation is
// beyond it.
func (p Phase) Done(step Step) bool {
	t := transitions[step]
	if i := slices.Index(forward, step); i >= 0 && t.to != Resting {
		return slices.Index(phases, p) > i
	}
	return p == t.to
}

// Check says why a step does not lead on from a phase. The error wraps ErrRetry and
// says what does.
func (p Phase) Check(step Step) error {
	switch {
	case transitions[step].from == p:
		return nil
	case p == Resting:
		return fmt.Errorf("%w: no rotation goes on; it begins with rotate prepare", ErrRetry)
	case step == Abort && p == Activated:
		return fmt.Errorf("%w: the new CA is active: rotate rollback comes before rotate abort", ErrRetry)
	case step == Abort || step == Rollback:
		return fmt.Errorf("%w: members do not trust the old CA any more, there is no way back: go on with rotate %s", ErrRetry, p.Next())
	}
	return fmt.Errorf("%w: the rotation is %s: rotate %s comes before rotate %s", ErrRetry, p, p.Next(), step)
}

// set is the generations there are, in the order in which they were made. It is
// never changed.
type set []*Generation

// active gives the one that signs.
func (s set) active() *Generation {
	return s[slices.IndexFunc(s, func(g *Generation) bool { return g.Role == Active })]
}

// roles are the roles of the old and of the new generation in each phase; at rest
// there is only one.
var roles = map[Phase][]Role{
	Resting:   {Active},
	Prepared:  {Active, Passive},
	Activated: {Passive, Active},
	Retired:   {Inactive, Active},
}

func (s set) ids() []string {
	var all []string
	for _, g := range s {
		all = append(all, g.ID)
	}
	return all
}

func (s set) roles() []Role {
	var all []Role
	for _, g := range s {
		all = append(all, g.Role)
	}
	return all
}

// phase gives where a rotation stands; empty: the roles are none that one has.
func (s set) phase() Phase {
	for _, p := range phases {
		if slices.Equal(s.roles(), roles[p]) {
			return p
		}
	}
	return ""
}

// check holds a set to the invariant of roles: exactly one is active, at most one
// passive, and no two bear the same name, since TLS announces trust by name
// (RFC 8446, 4.2.4), or have the same key.
func (s set) check() error {
	count := map[Role]int{}
	names, keys, ids := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, g := range s {
		switch g.Role {
		case Active, Passive, Inactive:
			count[g.Role]++
		default:
			return fmt.Errorf("generation %s has the unknown role %q", g.ID, g.Role)
		}
		subject := string(g.Certificate.RawSubject)
		if names[subject] {
			return fmt.Errorf("two generations are called %q", g.Certificate.Subject)
		}
		names[subject] = true
		key := string(g.Certificate.RawSubjectPublicKeyInfo)
		if keys[key] || ids[g.ID] {
			return fmt.Errorf("two generations have one key, or one key identifier (%s): a rotation is to another key", g.ID)
		}
		keys[key], ids[g.ID] = true, true
	}
	if count[Active] != 1 || count[Passive] > 1 {
		return fmt.Errorf("%d generations are active and %d passive; one is active and at most one passive", count[Active], count[Passive])
	}
	if s.phase() == "" {
		return fmt.Errorf("the generations are %v, oldest first: no rotation leads there", s.roles())
	}
	return nil
}

// after gives the set that a step leads to; next is the generation that prepare
// brings.
func (s set) after(step Step, next *Generation) (set, error) {
	if err := s.phase().Check(step); err != nil {
		return nil, err
	}
	var to set
	switch step {
	case Prepare:
		to = set{s[0], next.as(Passive)}
		if err := to.check(); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrRequest, err)
		}
	case Finish:
		rest := s[1].as(Active)
		rest.Cross = nil
		to = set{rest}
	case Abort:
		to = set{s[0]}
	default:
		for i, role := range roles[transitions[step].to] {
			to = append(to, s[i].as(role))
		}
	}
	return to, to.check()
}
