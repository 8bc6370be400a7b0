// Package report finds out everything on this machine that can expire, or that
// keeps it from being renewed: for signerd status and for monitoring.
package report

import (
	"crypto/x509"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/problems"
)

// State is how bad a finding is.
type State int

// The states, as monitoring numbers them (Monitoring Plugins Development
// Guidelines, 2.3).
const (
	OK State = iota
	Warning
	Critical
)

func (s State) String() string { return [...]string{"ok", "warning", "critical"}[s] }

// MarshalText lets a State stand in JSON as a word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that was looked at.
type Finding struct {
	State    State      `json:"state"`
	What     string     `json:"what"`                // a CA, a certificate, what is served at a port, a name, ...
	Which    string     `json:"which"`               // its name or place
	NotAfter *time.Time `json:"not_after,omitempty"` // when it expires, if it does
	Says     string     `json:"says,omitempty"`      // what is wrong, and what to do
}

// Report is everything that was found.
type Report struct {
	Time     time.Time `json:"time"`
	State    State     `json:"state"` // the worst there is
	Findings []Finding `json:"findings"`
}

// New makes a Report of findings.
func New(now time.Time, findings []Finding) Report {
	r := Report{Time: now.UTC().Truncate(time.Second), Findings: findings}
	for _, f := range findings {
		r.State = max(r.State, f.State)
	}
	return r
}

// found makes a Finding without an expiry. What it says is one line of words.
func found(state State, what, which, says string) Finding {
	return Finding{State: state, What: what, Which: which, Says: strings.Join(strings.Fields(says), " ")}
}

// Broken is a critical Finding for each problem that an error lists, or none.
func Broken(what, which string, err error) []Finding {
	var all []Finding
	for _, problem := range problems.List(err) {
		all = append(all, found(Critical, what, which, problem.Error()))
	}
	return all
}

// expiring makes a Finding of a certificate that should have been renewed before
// one part in so many of its life was left.
func expiring(what, which string, c *x509.Certificate, now time.Time, part int, says string) Finding {
	f := Finding{What: what, Which: which, NotAfter: &c.NotAfter}
	early := c.NotAfter.Sub(c.NotBefore) / time.Duration(part)
	switch left := c.NotAfter.Sub(now); {
	case left < early/3:
		f.State, f.Says = Critical, says
	case left < early:
		f.State, f.Says = Warning, says
	}
	return f
}
