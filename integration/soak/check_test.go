package soak

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
	"github.com/signerd/signerd/integration/lab"
	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

// broken is a promise that was not kept.
type broken struct{ promise, how string }

// The promises.
const (
	writes  = "no acknowledged write is lost"
	ledger  = "no certificate is outside the ledger"
	holds   = "no name has two live keys without a release"
	active  = "one CA is active, and everybody knows which"
	leaves  = "every leaf is accepted where it should be"
	growth  = "nothing grows"
	damages = "the ledger verifies"
)

// check looks whether the promises were kept, when all is at rest.
func (l *life) check(t *testing.T) (all []broken) {
	t.Helper()
	add := func(promise, format string, args ...any) {
		all = append(all, broken{promise, fmt.Sprintf(format, args...)})
	}
	if out, err := l.Bed.Exec("h1", "signerd", "ledger", "verify"); err != nil {
		add(damages, "%s %v", out, err)
	}
	l.look(t.Context())
	recorded := map[string]signer.Entry{}
	lines := 0
	for line := range strings.Lines(l.On(t, "h1", "sh", "-c", "cat /var/lib/signerd/ledger/*.jsonl")) {
		var e signer.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			add(damages, "%q: %v", line, err)
			continue
		}
		lines++
		switch serial := strings.TrimLeft(e.Serial, "0"); e.Event {
		case signer.Issued:
			recorded[serial] = e
		case signer.Voided: // it says that nobody has it
			delete(recorded, serial)
		}
	}
	certificates := 0
	for _, n := range l.nodes {
		certificates += len(n.given)
		for _, g := range n.given {
			if _, there := recorded[g.serial]; !there {
				add(ledger, "%s got %s at %s", n.name, g.serial, g.at.Format(time.TimeOnly))
			}
		}
		for _, how := range n.twoKeys() {
			add(holds, "%s %s", n.name, how)
		}
	}
	for serial, port := range l.shown {
		if recorded[serial].Profile != "member" {
			add(ledger, "%s has shown %s", port, serial)
		}
	}
	l.checkActive(t, add)
	for _, n := range l.nodes {
		err := n.renewOwn()
		if lab.ExitCode(err) == 77 && !n.steady { // a clock that was ahead gave it to somebody for long
			n.release()
			err = n.renewOwn()
		}
		if err != nil {
			add(leaves, "%s gets none at the end: %v", n.name, err)
			continue
		}
		for _, port := range l.Ports("2379") {
			if admitted, err := n.admitted(t.Context(), port, false); err != nil || !admitted {
				add(leaves, "%s admits %s: %v, %v", port, n.name, admitted, err)
			}
		}
	}
	t.Logf("%d lines in the ledger, %d certificates of clients, %d of members seen; clients were admitted at %d looks", lines, certificates, len(l.shown), l.admitted)
	return all
}

// twoKeys gives the certificates that a node was given for a key while one for another
// key was valid, and the name had not been released in between.
func (n *node) twoKeys() (all []string) {
	given := slices.SortedFunc(slices.Values(n.given), func(a, b given) int { return a.at.Compare(b.at) })
	for i, later := range given {
		for _, before := range given[:i] {
			if before.key == later.key || before.until.Before(later.from) || later.until.Before(before.from) {
				continue
			}
			if !slices.ContainsFunc(n.released, func(r time.Time) bool { return r.After(before.at) && r.Before(later.at) }) {
				all = append(all, fmt.Sprintf("got a certificate for another key at %s, and had one until %s", later.at.Format(time.TimeOnly), before.until.Format(time.TimeOnly)))
			}
		}
	}
	return all
}

// checkActive looks at who signs, by everybody who knows it.
func (l *life) checkActive(t *testing.T, add func(promise, format string, args ...any)) {
	t.Helper()
	var state struct {
		Generations []struct{ ID, Role string }
	}
	if err := json.Unmarshal([]byte(l.On(t, "h1", "cat", "/var/lib/signerd/authority/state.json")), &state); err != nil {
		t.Fatal(err)
	}
	if len(state.Generations) != 1 || state.Generations[0].Role != "active" {
		add(active, "at rest the state has %+v", state.Generations)
	}
	own, err := signer.ParseCertificates([]byte(l.On(t, "h1", "cat", "/var/lib/signerd/authority/active.crt")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range fleet.Names {
		if cas, err := signer.ParseCertificates([]byte(l.On(t, name, "cat", "/etc/etcd/pki/ca.crt"))); err != nil || len(cas) != 1 || !cas[0].Equal(own[0]) {
			add(active, "%s trusts %d CAs, %v", name, len(cas), err)
		}
	}
	if said, err := l.Ctl("h1", "get", "--print-value-only", "/signerd/ca"); err != nil || !strings.Contains(said, signer.Fingerprint(own[0])) {
		add(active, "etcd says %s, %v", said, err)
	}
}

// size is what of a signerd might grow.
type size struct {
	process                      float64 // when it was started, in seconds since 1970
	goroutines, files, megabytes int
}

// size asks signerd for its size; false: it is off, or in the middle of something.
func (l *life) size() (s size, ok bool) {
	page, err := l.Bed.Exec("h1", "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9289; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; timeout 5 cat <&3`)
	if err != nil {
		return size{}, false
	}
	for line := range strings.Lines(page) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch name {
		case "process_start_time_seconds":
			s.process = value
		case "go_goroutines":
			s.goroutines = int(value)
		case "process_open_fds":
			s.files = int(value)
		case "process_resident_memory_bytes":
			s.megabytes = int(value) >> 20
		}
	}
	return s, s.process > 0 && s.goroutines > 0 && s.files > 0 && s.megabytes > 0
}

// sizes asks every few seconds, until ctx ends.
func (l *life) sizes(ctx context.Context) (all []size) {
	for ctx.Err() == nil {
		if s, ok := l.size(); ok {
			all = append(all, s)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
	return all
}

// grown compares the last size of each process with its first one, beyond what comes and
// goes.
func grown(all []size) (found []broken) {
	first, last := map[float64]size{}, map[float64]size{}
	for _, s := range all {
		if _, there := first[s.process]; !there {
			first[s.process] = s
		}
		last[s.process] = s
	}
	for process, now := range last {
		then := first[process]
		for _, of := range []struct {
			what             string
			now, then, slack int
		}{{"goroutines", now.goroutines, then.goroutines, 20}, {"files", now.files, then.files, 10}, {"megabytes", now.megabytes, then.megabytes, 20}} {
			if of.now > of.then+of.slack {
				found = append(found, broken{growth, fmt.Sprintf("%d %s, and %d at the beginning", of.now, of.what, of.then)})
			}
		}
	}
	return found
}

// watch asks members with what nodes have, and looks at what they show, all the time. What
// is refused is a promise not kept.
func (l *life) watch(ctx context.Context) {
	l.shown = map[string]string{}
	for i := 0; ctx.Err() == nil; i++ {
		n := l.nodes[i%len(l.nodes)]
		ports := l.Ports("2379")
		admitted, err := n.admitted(ctx, ports[i/len(l.nodes)%len(ports)], true)
		if err != nil && ctx.Err() == nil {
			l.report(broken{leaves, err.Error()})
		}
		if admitted {
			l.admitted++
		}
		if i%len(l.nodes) == 0 {
			l.look(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// look remembers which certificates members show by now, those that can be reached.
func (l *life) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ports := slices.Concat(l.Ports("2379"), l.Ports("2380"))
	shown := make([]*peers.Served, len(ports))
	var group sync.WaitGroup
	for i, port := range ports {
		group.Go(func() { shown[i], _ = peers.Inspect(ctx, port, nil) })
	}
	group.Wait()
	for i, s := range shown {
		if s != nil {
			l.shown[s.Chain[0].SerialNumber.Text(16)] = ports[i]
		}
	}
}

// promises gives which were not kept.
func promises(all []broken) []string {
	var which []string
	for _, b := range all {
		which = append(which, b.promise)
	}
	slices.SortFunc(which, cmp.Compare[string])
	return slices.Compact(which)
}
