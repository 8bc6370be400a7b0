package soak

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/integration/fleet"
)

// plant is a fault in signerd itself: one place in the source is other, and some promise
// is not kept then.
type plant struct {
	name, path, was, is string
	promises            []string // one of them at least is found to be broken
	befall              func(l *life, t *testing.T, random *rand.Rand, until time.Time) map[string]int
}

var plants = []plant{
	{
		"no fsync", "signer/ledgerfile.go", "if err := unix.Fdatasync(int(f.file.Fd())); err != nil {", "if err := error(nil); err != nil {",
		[]string{ledger, damages},
		func(l *life, t *testing.T, random *rand.Rand, until time.Time) map[string]int {
			for time.Now().Before(until) {
				if err := errors.Join(wait(random, 5, 10), l.powerCut("h1", random)); err != nil {
					t.Fatal(err)
				}
				l.Well(t, 3*time.Minute)
			}
			return nil
		},
	},
	{
		"no hold", "signer/hold.go", "case claim == Ask && s.hold.live(e.Time) && s.hold.Key != e.Key:", "case claim == Ask && s.hold.live(e.Time) && s.hold.Key != e.Key && s.hold.Profile == member.name:",
		[]string{holds}, quiet,
	},
	{
		"no gate for clients", "internal/rotation/gate.go", "need.ofMembers(ports), d.ofClients(need))", "need.ofMembers(ports))",
		[]string{leaves}, quiet,
	},
	{
		"no line for a member's renewal", "signer/issue.go", "} else if err := s.ledger.Take(ctx, entry, order.Claim); err != nil {",
		"} else if order.Subject.profile == member && s.ledger.Repeats(order.Subject, order.Key) {\n\t} else if err := s.ledger.Take(ctx, entry, order.Claim); err != nil {",
		[]string{ledger}, quiet,
	},
	{
		"a goroutine stays", "internal/sshfront/server.go", "\tgrowStack()\n", "\tgrowStack()\n\tgo func() { select {} }()\n",
		[]string{growth}, quiet,
	},
}

// quiet lets nothing happen.
func quiet(_ *life, _ *testing.T, _ *rand.Rand, until time.Time) map[string]int {
	<-time.After(time.Until(until))
	return nil
}

// The checker can fail: a signerd that skips one thing is found out.
func TestPlanted(t *testing.T) {
	if *duration == 0 {
		t.Skip("make soak")
	}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			t.Setenv("GOFLAGS", "-overlay="+p.overlay(t))
			l := begin(t, fleet.Build(t, tags))
			found := l.live(t, 1, time.Now().Add(2*time.Minute), func(t *testing.T, random *rand.Rand, until time.Time) map[string]int {
				return p.befall(l, t, random, until)
			})
			for _, b := range found[:min(3, len(found))] {
				t.Logf("found: %s: %s", b.promise, b.how)
			}
			if !slices.ContainsFunc(promises(found), func(promise string) bool { return slices.Contains(p.promises, promise) }) {
				t.Errorf("the checker found %q, none of %q", promises(found), p.promises)
			}
		})
	}
}

// overlay gives a file for go build -overlay with the plant in its place.
func (p plant) overlay(t *testing.T) string {
	t.Helper()
	source, err := filepath.Abs(filepath.Join("../..", p.path))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), p.was); n != 1 {
		t.Fatalf("%s has the place %d times", p.path, n)
	}
	dir := t.TempDir()
	planted := filepath.Join(dir, "planted.go")
	fleet.Write(t, planted, strings.Replace(string(text), p.was, p.is, 1))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: planted}})
	if err != nil {
		t.Fatal(err)
	}
	fleet.Write(t, filepath.Join(dir, "overlay.json"), string(overlay))
	return filepath.Join(dir, "overlay.json")
}
