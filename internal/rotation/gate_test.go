package rotation

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signerd/signerd/peers"
	"github.com/signerd/signerd/signer"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func generation(id string, crossed bool) *signer.Generation {
	g := &signer.Generation{ID: id, Certificate: &x509.Certificate{Raw: []byte(id), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}}
	if crossed {
		g.Cross = g.Certificate
	}
	return g
}

// Each step needs what DESIGN says of it, and no other step needs anything.
func TestNeeds(t *testing.T) {
	old, next, uncrossed := generation("old", false), generation("next", true), generation("next", false)
	for _, test := range []struct {
		step signer.Step
		next *signer.Generation
		now  time.Time
		want *needed
	}{
		{signer.Prepare, nil, noon, nil},
		{signer.Activate, next, noon, &needed{admits: next, absent: true}},
		{signer.Activate, next, noon.Add(-48 * time.Hour), &needed{begun: next, absent: true}},
		{signer.Activate, nil, noon, nil}, // an abort came before it; the step is refused later
		{signer.Activate, uncrossed, noon, &needed{admits: uncrossed, fetched: uncrossed}},
		{signer.Retire, next, noon, &needed{serves: next, admits: next, expired: old}},
		{signer.Finish, next, noon, &needed{refuses: old, admits: next, fetched: next}},
		{signer.Finish, next, noon.Add(2 * time.Hour), &needed{refuses: old, admits: next}},
		{signer.Rollback, next, noon, nil},
		{signer.Abort, next, noon, &needed{serves: old, admits: old, expired: next}},
	} {
		switch got := needs(test.step, old, test.next, test.now); {
		case (got == nil) != (test.want == nil):
			t.Errorf("%s needs %+v, want %+v", test.step, got, test.want)
		case got != nil && *got != *test.want:
			t.Errorf("%s needs %+v, want %+v", test.step, *got, *test.want)
		}
	}
}

// A port is in the way unless it was seen to do all that is needed.
func TestPortsInTheWay(t *testing.T) {
	old, next := generation("old", false), generation("next", true)
	activate, retire, finish := needs(signer.Activate, old, next, noon), needs(signer.Retire, old, next, noon), needs(signer.Finish, old, next, noon)
	both, onlyNew, onlyOld := map[string]bool{"old": true, "next": true}, map[string]bool{"next": true}, map[string]bool{"old": true}
	for _, test := range []struct {
		need *needed
		port port
		says string // none: it is not in the way
	}{
		{activate, port{serves: "old", admits: both}, ""},
		{activate, port{serves: "old", admits: onlyOld}, "does not accept certificates by next"},
		{activate, port{trouble: errors.New("off")}, ""},
		{activate, port{trouble: errJoining}, ""},
		{activate, port{trouble: peers.ErrClock}, "takes a new certificate for one that is not valid"},
		{retire, port{serves: "next", admits: both}, ""},
		{retire, port{serves: "next", admits: onlyNew}, ""},
		{retire, port{serves: "next", admits: onlyOld}, "does not accept certificates by next"},
		{retire, port{serves: "old", admits: both}, "does not serve a certificate by next"},
		{retire, port{serves: "", admits: both}, "does not serve a certificate by next"},
		{retire, port{serves: "next", admits: both, trouble: errors.New("off")}, "cannot be seen: off"},
		{retire, port{trouble: peers.ErrClock}, "takes a new certificate for one that is not valid"},
		{finish, port{serves: "next", admits: onlyNew}, ""},
		{finish, port{serves: "old", admits: onlyNew}, ""},
		{finish, port{serves: "next", admits: both}, "still accepts certificates by old"},
		{finish, port{serves: "next", admits: onlyOld}, "does not accept certificates by next"},
		{finish, port{serves: "next"}, "does not accept certificates by next"},
		{finish, port{trouble: errJoining}, "it is joining"},
	} {
		test.port.member = "etcd-1"
		all := test.need.ofMembers([]port{{member: "etcd-2", serves: "next", admits: onlyNew}, test.port})
		if test.says == "" && len(all) > 0 || test.says != "" && (len(all) != 1 || all[0].who != "etcd-1" || !strings.Contains(all[0].why, test.says)) {
			t.Errorf("%+v: %+v, want %q", test.port, all, test.says)
		}
	}
}

// Who signs by etcd is this signer, one before it, one after it, or a stranger.
func TestJudge(t *testing.T) {
	mine, lost := generation("mine", false), generation("lost", false)
	next := generation("next", true)
	ours := peers.Signing{Fingerprint: mine.Fingerprint(), Epoch: 2, Signer: "a"}
	for what, test := range map[string]struct {
		there peers.Signing
		want  error
	}{
		"another generation of ours":      {peers.Signing{Fingerprint: next.Fingerprint(), Epoch: 2, Signer: "a"}, nil},
		"the CA of a lost key":            {peers.Signing{Fingerprint: lost.Fingerprint(), Epoch: 3, Signer: "b"}, nil},
		"a signer before this one":        {peers.Signing{Fingerprint: mine.Fingerprint(), Epoch: 1, Signer: "b"}, nil},
		"a signer after this one":         {peers.Signing{Fingerprint: mine.Fingerprint(), Epoch: 3, Signer: "b"}, ErrSuperseded},
		"a twin":                          {peers.Signing{Fingerprint: mine.Fingerprint(), Epoch: 2, Signer: "b"}, ErrSuperseded},
		"a stranger":                      {peers.Signing{Fingerprint: "00", Epoch: 1, Signer: "b"}, ErrForeign},
		"a stranger after this one":       {peers.Signing{Fingerprint: "00", Epoch: 3, Signer: "b"}, ErrForeign},
		"something that is not signerd's": {peers.Signing{}, ErrForeign},
	} {
		if err := judge(test.there, ours, []*signer.Generation{mine, next}, []*x509.Certificate{lost.Certificate}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
}

// A CA that was made while the clock was ahead is not let sign, and what to do is said.
func TestNotBegun(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	if _, err := signer.CreateAuthority(filepath.Join(dir, "authority"), "prod-a", "p256", now); err != nil {
		t.Fatal(err)
	}
	authority, err := signer.LoadAuthority(filepath.Join(dir, "authority"), now)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := signer.Open(signer.Parts{Cluster: "prod-a", Identity: signer.DefaultIdentity("prod-a"), Authority: authority, Ledger: filepath.Join(dir, "ledger")}, now)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ahead := now.Add(time.Hour)
	next, err := s.Successor(ahead)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Rotate(t.Context(), ahead, signer.Change{Step: signer.Prepare, Version: authority.Rotation().Version, Next: next, Agree: func(*signer.Generation) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	d := New(s, nil, nil)
	_, err = d.Do(t.Context(), signer.Activate, nil, signer.Asker{})
	if !errors.Is(err, ErrBlocked) || !strings.Contains(err.Error(), "is not valid before") {
		t.Errorf("activate: %v", err)
	}
	blockers, err := d.blockers(t.Context(), signer.Activate, authority.Rotation())
	if err != nil || len(blockers) != 1 || !strings.Contains(blockers[0].helps, "rotate abort") {
		t.Errorf("%+v, %v", blockers, err)
	}
}
