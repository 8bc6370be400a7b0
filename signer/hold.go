package signer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/wire"
)

// Claim is by what right a request takes a name.
type Claim int

const (
	// Ask takes a name that is free, or held by the same key.
	Ask Claim = iota
	// Renew repeats what the same key holds, with the same addresses. It is
	// what the key of a live certificate may do by itself.
	Renew
	// Supersede takes the name from whatever key holds it.
	Supersede
)

// Hold is a name in the hands of a certificate key, by the last certificate
// that was issued for it.
type Hold struct {
	Name      string
	Profile   string
	Addresses []wire.Address
	Key       string // fingerprint of the certificate's key
	Serial    string
	NotAfter  time.Time // the latest of the key's certificates for the name

	issued   time.Time
	asker    Asker     // who asked for it
	previous *Hold     // before this one; kept while this one may still be void
	depth    int       // how many are kept behind it
	oldest   time.Time // when the last of those was issued, or this one
}

// A certificate can become void as long as a request takes from its line in the
// ledger to its answer, which is less than voidWindow, while at most voidDepth
// others for its name are issued.
const (
	voidWindow = 10 * time.Minute
	voidDepth  = 16
)

// IsMember says whether a member of etcd holds the name.
func (h *Hold) IsMember() bool { return h.Profile == member.name }

// Source gives the IP address that the last certificate was asked for from.
func (h *Hold) Source() string { return h.asker.Source }

// live says whether a certificate of the hold is still valid.
func (h *Hold) live(now time.Time) bool { return h != nil && !now.After(h.NotAfter) }

// admits says whether the hold's key is a way in at now: a client's while its
// certificate lives, a member's until the hold is ended, so that a cluster
// whose certificates all expired comes back.
func (h *Hold) admits(now time.Time) bool {
	return h.live(now) || h != nil && h.IsMember()
}

// Missed says whether the holder should have renewed by now and did not: two
// thirds of the certificate's life are gone, and it is not forgotten yet. Who
// renews as it should does so when one third is gone.
func (h *Hold) Missed(now time.Time) bool {
	return now.After(h.issued.Add(2*h.NotAfter.Sub(h.issued)/3)) && now.Before(h.NotAfter.Add(forgotten))
}

// forgotten is how long after its expiry a name still counts as one that should
// have been renewed; a node that is gone for good may be released before.
const forgotten = 7 * 24 * time.Hour

// repeats says whether an issue asks again for what the hold has.
func (h *Hold) repeats(e Entry) bool {
	return h.Key == e.Key && h.Profile == e.Profile && slices.Equal(h.Addresses, e.Addresses)
}

// holds is the state that the lines of a ledger add up to: who holds what
// name, and how often each was asked for lately.
type holds struct {
	perHour int // bounds the certificates for one name in an hour; 0: no bound
	byName  map[string]*nameState
	byKey   nameIndex[string] // key fingerprint to names held
	byAsker nameIndex[Asker]  // who asked last to names held

	rotations int // how many were begun or given up
}

type nameState struct {
	hold    *Hold       // nil: released
	recent  []time.Time // the last issues, at most perHour of them
	issuers []issuer    // that certificates live by, or lived; none: released
	fetched fetched     // the last bundle of a rotation that the holder has
}

// fetched is a bundle that was handed out: the new generation in it, in which rotation.
type fetched struct {
	generation string
	rotation   int
}

// issuer is until when a name has certificates by a generation.
type issuer struct {
	generation string
	until      time.Time
}

func newHolds(perHour int) *holds {
	return &holds{perHour: perHour, byName: map[string]*nameState{}, byKey: nameIndex[string]{}, byAsker: nameIndex[Asker]{}}
}

// perNameWindow is the time over which certificates for a name are counted.
const perNameWindow = time.Hour

// check says whether an issue may take its name at its time.
func (h *holds) check(e Entry, claim Claim) error {
	s := h.byName[e.Name]
	if s == nil {
		s = &nameState{}
	}
	switch {
	case claim == Renew && (!s.hold.admits(e.Time) || !s.hold.repeats(e)):
		return fmt.Errorf("%w: this key no longer holds %s; ask with a key that is in authorized_keys", ErrHeld, e.Name)
	case claim == Ask && s.hold.live(e.Time) && s.hold.Key != e.Key:
		return fmt.Errorf("%w: %s is held by another key until %s: use that key, wait, or have it released (release %s)",
			ErrHeld, e.Name, s.hold.NotAfter.Format(time.RFC3339), e.Name)
	}
	if other := h.memberAt(e); claim != Renew && other != "" {
		return fmt.Errorf("%w: an address of the request belongs to the member %s; remove or release that one first", ErrHeld, other)
	}
	// What is more than an hour away was issued by a clock that was ahead.
	if h.perHour > 0 && len(s.recent) == h.perHour && e.Time.Sub(s.recent[0]).Abs() < perNameWindow {
		return fmt.Errorf("%w: %s got %d certificates in the last hour; the next one at %s",
			ErrRetry, e.Name, h.perHour, s.recent[0].Add(perNameWindow).Format(time.RFC3339))
	}
	return nil
}

// memberAt gives another member that has an address of the one that asks.
func (h *holds) memberAt(e Entry) string {
	if e.Profile != member.name {
		return ""
	}
	for name, s := range h.byName {
		if name == e.Name || s.hold == nil || !s.hold.IsMember() {
			continue
		}
		if slices.ContainsFunc(e.Addresses, func(a wire.Address) bool { return slices.Contains(s.hold.Addresses, a) }) {
			return name
		}
	}
	return ""
}

// apply adds one line. What it gives undoes it.
func (h *holds) apply(e Entry) (undo func()) {
	switch {
	case e.Event == Fetched:
		return h.fetch(e)
	case e.Event == Rotated && (e.Step == Prepare || e.Step == Abort):
		// What was fetched before counts for nothing.
		h.rotations++
		return func() { h.rotations-- }
	}
	if e.Name == "" || internal(e.Profile) {
		return func() {}
	}
	before, known := h.byName[e.Name]
	after := &nameState{}
	if known {
		*after = *before
	}
	switch e.Event {
	case Issued:
		after.issue(e)
		// What undo goes back to ends before the place that this takes.
		after.recent = append(after.recent, e.Time)
		after.recent = after.recent[max(0, len(after.recent)-h.perHour):]
	case Voided:
		after.hold = after.hold.without(e.Serial)
	case Released:
		after.hold, after.issuers, after.fetched = nil, nil, fetched{}
	}
	h.set(e.Name, after)
	return func() {
		if !known {
			before = &nameState{}
		}
		h.set(e.Name, before)
	}
}

func (s *nameState) issue(e Entry) {
	hold := &Hold{Name: e.Name, Profile: e.Profile, Addresses: e.Addresses, Key: e.Key, Serial: e.Serial, NotAfter: e.NotAfter,
		issued: e.Time, asker: Asker{e.SSHKey, e.Source}}
	if s.hold == nil || s.hold.Key != hold.Key && s.hold.asker != hold.asker {
		s.fetched = fetched{} // it is another machine
	}
	hold.follow(s.hold)
	// A clock that went back must not shorten what is out already.
	if s.hold != nil && s.hold.Key == e.Key && s.hold.NotAfter.After(e.NotAfter) {
		hold.NotAfter = s.hold.NotAfter
	}
	s.hold = hold
	s.issuers = withIssuer(s.issuers, e)
}

// withIssuer adds the issuer of a certificate. Those whose certificates have all expired
// a week ago are left out: a clock that was ahead by less must not forget what lives.
func withIssuer(issuers []issuer, e Entry) []issuer {
	added := issuer{e.Generation, e.NotAfter}
	var kept []issuer
	for _, i := range issuers {
		switch {
		case i.generation == e.Generation:
			added.until = latest(added.until, i.until)
		case i.until.Add(forgotten).After(e.Time):
			kept = append(kept, i)
		}
	}
	return append(kept, added)
}

// without gives a hold as it is without one certificate, which was void.
func (h *Hold) without(serial string) *Hold {
	switch {
	case h == nil:
		return nil
	case h.Serial == serial:
		return h.previous
	}
	rest := *h
	rest.keep(h.previous.without(serial))
	return &rest
}

// follow sets what came before a hold, as far as it can still matter. Most often
// that is kept as it is: it is not copied for each certificate.
func (h *Hold) follow(previous *Hold) {
	if previous.length() > voidDepth+voidDepth/4 || previous != nil && !previous.oldest.After(h.issued.Add(-voidWindow)) {
		previous = previous.trimmed(h.issued, voidDepth)
	}
	h.keep(previous)
}

func (h *Hold) keep(previous *Hold) {
	h.previous, h.depth, h.oldest = previous, previous.length(), h.issued
	if previous != nil {
		h.oldest = previous.oldest
	}
}

// length is how many holds one is with those before it.
func (h *Hold) length() int {
	if h == nil {
		return 0
	}
	return h.depth + 1
}

// trimmed gives a hold with at most depth-1 of those before it, and none before
// one that can no longer become void.
func (h *Hold) trimmed(now time.Time, depth int) *Hold {
	if h == nil || depth == 0 {
		return nil
	}
	kept := *h
	kept.keep(nil)
	if h.issued.After(now.Add(-voidWindow)) {
		kept.keep(h.previous.trimmed(now, depth-1))
	}
	return &kept
}

// list gives the holds that are wanted, by name.
func (h *holds) list(wanted func(*Hold) bool) []*Hold {
	var found []*Hold
	for _, s := range h.byName {
		if s.hold != nil && wanted(s.hold) {
			found = append(found, s.hold)
		}
	}
	slices.SortFunc(found, func(a, b *Hold) int { return strings.Compare(a.Name, b.Name) })
	return found
}

func (h *holds) expected(now time.Time) []*Hold {
	return h.list(func(hold *Hold) bool { return hold.live(now) || hold.Missed(now) })
}

// set replaces a name's state and keeps the indexes with it.
func (h *holds) set(name string, s *nameState) {
	before, after := &Hold{}, &Hold{}
	if old := h.byName[name]; old != nil && old.hold != nil {
		before = old.hold
	}
	if s.hold != nil {
		after = s.hold
	}
	h.byName[name] = s
	h.byKey.move(name, before.Key, after.Key)
	h.byAsker.move(name, before.asker, after.asker)
}

// sweep forgets names that nobody holds and nobody asked for lately, so that
// memory follows the living.
func (h *holds) sweep(now time.Time) {
	for name, s := range h.byName {
		lately := len(s.recent) > 0 && s.recent[len(s.recent)-1].After(now.Add(-perNameWindow))
		missed := s.hold != nil && s.hold.Missed(now)
		if !s.hold.admits(now) && !lately && !missed {
			h.set(name, &nameState{})
			delete(h.byName, name)
		}
	}
}
