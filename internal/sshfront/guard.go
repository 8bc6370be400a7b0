package sshfront

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Reasons to turn a connection away.
var (
	errFull         = errors.New("too many connections")
	errUnauthFull   = errors.New("too many connections before login")
	errSourceFull   = errors.New("too many connections from this source")
	errSourceFast   = errors.New("new connections from this source come too fast")
	errSourceUnauth = errors.New("too many connections before login from this source")
)

// errMadeRoom is why a connection was ended that had not logged in.
var errMadeRoom = errors.New("it had not logged in, and made room for another connection")

// patience is how long the server waits for a client that has not offered a key before its
// connection has to make room for one that is no better. What the server itself takes does
// not count: under load nobody would ever come to an end.
const patience = time.Second

// guard counts connections, in all and for each source.
type guard struct {
	limits Limits

	mu      sync.Mutex
	count   count
	sources *lru.Cache[netip.Prefix, *source]
	size    int                                // of sources
	known   *lru.Cache[netip.Prefix, struct{}] // sources from which somebody has logged in
	waiting []*ticket                          // of connections before login, the oldest first
	leaving int                                // connections that were ended to make room, and are not over yet
	now     func() time.Time
}

type count struct{ open, unauth int }

type source struct {
	count
	rate *rate.Limiter
}

// newGuard makes a guard that can know so many sources at least.
func newGuard(limits Limits, known int) (*guard, error) {
	// Room for every source with an open connection, and one more.
	size := max(maxSources, limits.Connections+1)
	sources, err := lru.New[netip.Prefix, *source](size)
	if err != nil {
		return nil, err
	}
	remembered, err := lru.New[netip.Prefix, struct{}](max(maxSources, 2*known))
	return &guard{limits: limits, sources: sources, size: size, known: remembered, now: time.Now}, err
}

// know makes a source one from which somebody has logged in.
func (g *guard) know(address netip.Addr) { g.known.Add(networkOf(address), struct{}{}) }

// stage is how far a connection before login has come.
type stage int

const (
	silent   stage = iota
	talking        // it has sent something
	offering       // it has exchanged keys, and offers one
)

// ticket is one admitted connection's share of the counts.
type ticket struct {
	guard   *guard
	network netip.Prefix
	source  *source   // nil: exempt
	known   bool      // exempt, or somebody has logged in from there
	idle    time.Time // since when the server waits for the client's bytes; zero: it does not
	hangUp  func()
	stage   stage
	unauth  bool
	evicted bool // it was ended to make room, and has no share any more
	ended   bool
}

// admit counts a new connection, or says why not. Where there are too many, another one
// may have to make room for it: hangUp ends that one.
func (g *guard) admit(address netip.Addr, hangUp func()) (*ticket, error) {
	g.mu.Lock()
	t, victim, err := g.decide(address, hangUp)
	g.mu.Unlock()
	if victim != nil {
		victim.hangUp()
	}
	return t, err
}

func (g *guard) decide(address netip.Addr, hangUp func()) (t, victim *ticket, err error) {
	t = &ticket{guard: g, network: networkOf(address), hangUp: hangUp, unauth: true}
	if !anyContains(g.limits.Exempt, address) {
		from := g.sourceOf(t.network)
		switch {
		case !from.rate.Allow():
			return nil, nil, errSourceFast
		case from.open >= g.limits.PerSource:
			return nil, nil, errSourceFull
		case from.unauth >= g.limits.PerSourceUnauth:
			return nil, nil, errSourceUnauth
		}
		t.source = from
	}
	t.known = t.source == nil || g.known.Contains(t.network)
	var full error
	switch {
	case g.count.open >= g.limits.Connections:
		full = errFull
	case g.count.unauth >= g.limits.Unauthenticated:
		full = errUnauthFull
	}
	if full != nil {
		if victim = g.roomFor(t); victim == nil {
			return nil, nil, full
		}
		victim.evict()
	}
	t.add(1, 1)
	g.waiting = append(g.waiting, t)
	return t, victim, nil
}

// roomFor gives the connection before login that has to make room for another one: for a
// known source any that is not, and else one whose client takes its time; of these the one
// that has come least far, and the oldest. It is nil if there is none, or if so many are
// leaving already that the limits would mean nothing.
func (g *guard) roomFor(newcomer *ticket) (victim *ticket) {
	if g.leaving >= g.limits.Unauthenticated {
		return nil
	}
	now := g.now()
	for _, t := range g.waiting {
		late := t.known == newcomer.known && t.stage < offering && !t.idle.IsZero() && now.Sub(t.idle) >= patience
		if better := newcomer.known && !t.known; !better && !late {
			continue
		}
		if victim == nil || t.before(victim) {
			victim = t
		}
	}
	return victim
}

// before says whether a connection has to make room before an older one.
func (t *ticket) before(older *ticket) bool {
	if t.known != older.known {
		return older.known
	}
	return t.stage < older.stage
}

// networkOf gives what counts as one source. An IPv6 source is a /64: a host has all of
// it.
func networkOf(address netip.Addr) netip.Prefix {
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// sourceOf finds a source's counts.
func (g *guard) sourceOf(network netip.Prefix) *source {
	if s, ok := g.sources.Get(network); ok {
		return s
	}
	// A source with an open connection is not the one to be forgotten.
	for g.sources.Len() == g.size {
		key, oldest, _ := g.sources.GetOldest()
		if oldest.open == 0 {
			break
		}
		g.sources.Get(key)
	}
	s := &source{rate: rate.NewLimiter(rate.Limit(g.limits.PerSourcePerSecond), g.limits.PerSourcePerSecond)}
	g.sources.Add(network, s)
	return s
}

func (t *ticket) add(open, unauth int) {
	t.guard.count.open += open
	t.guard.count.unauth += unauth
	if t.source != nil {
		t.source.open += open
		t.source.unauth += unauth
	}
}

// waits notes that the server waits for the client from now on.
func (t *ticket) waits() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	if t.unauth {
		t.idle = t.guard.now()
	}
}

// got notes that the wait is over, with so many bytes.
func (t *ticket) got(bytes int) {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	t.idle = time.Time{}
	if bytes > 0 {
		t.stage = max(t.stage, talking)
	}
}

// offers notes that the client offers a key.
func (t *ticket) offers() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	t.stage = offering
}

// wasSilent says whether the client has not sent anything.
func (t *ticket) wasSilent() bool {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	return t.stage == silent
}

// loggedIn moves the connection out of those before login.
func (t *ticket) loggedIn() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	t.guard.known.Add(t.network, struct{}{})
	if t.unauth && !t.evicted && !t.ended {
		t.unauth = false
		t.add(0, -1)
		t.stopWaiting()
	}
}

// evict gives the connection's share to another one, before it is over.
func (t *ticket) evict() {
	t.evicted = true
	t.add(-1, -1)
	t.stopWaiting()
	t.guard.leaving++
}

// end gives the connection's share back.
func (t *ticket) end() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	switch {
	case t.ended:
	case t.evicted:
		t.guard.leaving--
	case t.unauth:
		t.add(-1, -1)
		t.stopWaiting()
	default:
		t.add(-1, 0)
	}
	t.ended = true
}

// madeRoom says whether the connection was ended for another one.
func (t *ticket) madeRoom() bool {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	return t.evicted
}

func (t *ticket) stopWaiting() {
	g := t.guard
	g.waiting = slices.DeleteFunc(g.waiting, func(other *ticket) bool { return other == t })
}
