package signer

import (
	"slices"
	"strings"
	"time"
)

// Fetch is the trust bundle going out to somebody.
type Fetch struct {
	By  Asker
	Key string // fingerprint of the certificate key that was the way in; empty: another key was
}

// NoteFetch records that a bundle with a generation was handed out, if it is news of
// anybody who holds a name. Nobody waits for it.
func (l *Ledger) NoteFetch(now time.Time, f Fetch, newest *Generation) {
	e := Entry{Event: Fetched, Time: now.UTC().Round(0), Generation: newest.ID, Key: f.Key, SSHKey: f.By.SSHKey, Source: f.By.Source}
	l.mu.RLock()
	news := len(l.holds.unaware(e)) > 0
	l.mu.RUnlock()
	if news {
		l.Note(e)
	}
}

// unaware gives the names that a fetch counts for and that had not fetched as much:
// those of the certificate key that it was made with, or those whose last certificate
// was asked for by the same SSH key from the same source.
func (h *holds) unaware(e Entry) []string {
	var names []string
	if e.Key != "" {
		names = h.byKey.names(e.Key)
	} else {
		names = h.byAsker.names(Asker{e.SSHKey, e.Source})
	}
	return slices.DeleteFunc(names, func(name string) bool { return h.byName[name].fetched == h.has(e.Generation) })
}

// has is the bundle of this rotation with a generation.
func (h *holds) has(generation string) fetched { return fetched{generation, h.rotations} }

// fetch adds a line of a fetch. What it gives undoes it.
func (h *holds) fetch(e Entry) (undo func()) {
	names := h.unaware(e)
	before := make([]*nameState, len(names))
	for i, name := range names {
		before[i] = h.byName[name]
		after := *before[i]
		after.fetched = h.has(e.Generation)
		h.byName[name] = &after
	}
	return func() {
		for i, name := range names {
			h.byName[name] = before[i]
		}
	}
}

// Lasting is a name that is in the way of a step of a rotation, and until when.
type Lasting struct {
	Name  string
	Until time.Time
}

// Unexpired gives the clients that have certificates by a generation at now, by name.
// A void one counts too, as long as somebody holds the name.
func (l *Ledger) Unexpired(g *Generation, now time.Time) []Lasting {
	return l.clients(now, func(s *nameState) time.Time {
		for _, i := range s.issuers {
			if i.generation == g.ID {
				return i.until
			}
		}
		return time.Time{}
	})
}

// Unfetched gives the clients that have not fetched a bundle with a generation in this
// rotation, by name: those whose certificates live, or have expired so lately that they
// may come back.
func (l *Ledger) Unfetched(g *Generation, now time.Time) []Lasting {
	return l.clients(now, func(s *nameState) time.Time {
		if s.fetched == l.holds.has(g.ID) {
			return time.Time{}
		}
		return s.hold.NotAfter.Add(forgotten)
	})
}

// clients gives the clients for which a time is after now, by name.
func (l *Ledger) clients(now time.Time, until func(*nameState) time.Time) []Lasting {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var found []Lasting
	for name, s := range l.holds.byName {
		if s.hold == nil || s.hold.Profile != client.name {
			continue
		}
		if t := until(s); t.After(now) {
			found = append(found, Lasting{name, t})
		}
	}
	slices.SortFunc(found, func(a, b Lasting) int { return strings.Compare(a.Name, b.Name) })
	return found
}
