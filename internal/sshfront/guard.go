package sshfront

import (
	"errors"
	"net/netip"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Reasons to turn a connection away before a word is spoken.
var (
	errFull         = errors.New("too many connections")
	errUnauthFull   = errors.New("too many connections before login")
	errSourceFull   = errors.New("too many connections from this source")
	errSourceFast   = errors.New("new connections from this source come too fast")
	errSourceUnauth = errors.New("too many connections before login from this source")
)

// guard counts connections, in all and for each source.
type guard struct {
	limits Limits

	mu      sync.Mutex
	count   count
	sources *lru.Cache[netip.Prefix, *source]
	size    int // of sources
}

type count struct{ open, unauth int }

type source struct {
	count
	rate *rate.Limiter
}

func newGuard(limits Limits) (*guard, error) {
	// Room for every source with an open connection, and one more.
	size := max(maxSources, limits.Connections+1)
	sources, err := lru.New[netip.Prefix, *source](size)
	return &guard{limits: limits, sources: sources, size: size}, err
}

// ticket is one admitted connection's share of the counts.
type ticket struct {
	guard  *guard
	source *source // nil: exempt
	unauth bool
	ended  bool
}

// admit counts a new connection, or says why not.
func (g *guard) admit(address netip.Addr) (*ticket, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var from *source
	if !anyContains(g.limits.Exempt, address) {
		from = g.sourceOf(address)
		switch {
		case !from.rate.Allow():
			return nil, errSourceFast
		case from.open >= g.limits.PerSource:
			return nil, errSourceFull
		case from.unauth >= g.limits.PerSourceUnauth:
			return nil, errSourceUnauth
		}
	}
	switch {
	case g.count.open >= g.limits.Connections:
		return nil, errFull
	case g.count.unauth >= g.limits.Unauthenticated:
		return nil, errUnauthFull
	}
	t := &ticket{guard: g, source: from, unauth: true}
	t.add(1, 1)
	return t, nil
}

// sourceOf finds a source's counts. An IPv6 source is a /64: a host has all of
// it.
func (g *guard) sourceOf(address netip.Addr) *source {
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	network := netip.PrefixFrom(address, bits).Masked()
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

// loggedIn moves the connection out of those before login.
func (t *ticket) loggedIn() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	if t.unauth && !t.ended {
		t.unauth = false
		t.add(0, -1)
	}
}

// end gives the connection's share back.
func (t *ticket) end() {
	t.guard.mu.Lock()
	defer t.guard.mu.Unlock()
	if t.ended {
		return
	}
	t.ended = true
	if t.unauth {
		t.add(-1, -1)
	} else {
		t.add(-1, 0)
	}
}
