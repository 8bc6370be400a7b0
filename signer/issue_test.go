package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
)

// What fails its lint never leaves, and the ledger says so; nor does what a
// client is no longer there for. Neither holds a name.
func TestWhatNeverLeaves(t *testing.T) {
	s := newTestSigner(t, "")
	key := must(PublicKeyOf(p256Key.Public()))
	order := func(name string) Order { return Order{Subject: must(everyClient.Subject(name)), Key: key} }
	saved := lints
	lints = append(slices.Clone(lints), lint{"is blue", func(_, _, _ *x509.Certificate) bool { return false }})
	issued, err := s.Issue(t.Context(), noon, order("kubemaster-01"))
	lints = saved
	if issued != nil || err == nil || !strings.Contains(err.Error(), "is blue") || errors.Is(err, ErrRetry) || errors.Is(err, ErrRequest) {
		t.Errorf("a certificate that fails a lint: %v, %v", issued, err)
	}
	if issued, err := s.Issue(&goneAfter{t.Context(), 1}, noon, order("kubemaster-02")); issued != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("a certificate for a client that went away: %v, %v", issued, err)
	}
	if _, err := s.Issue(t.Context(), noon, order("kubemaster-03")); err != nil { // the notes are before it
		t.Fatal(err)
	}
	for name, held := range map[string]bool{"kubemaster-01": false, "kubemaster-02": false, "kubemaster-03": true} {
		if (s.ledger.Hold(name) != nil) != held {
			t.Errorf("%s is held: %v, want %v", name, !held, held)
		}
	}
	var reasons []string
	if _, err := Verify(s.ledger.dir, func(e Entry) {
		if e.Event == Voided {
			reasons = append(reasons, e.Name+" "+e.Reason)
		}
	}); err != nil || len(reasons) != 2 || !strings.Contains(reasons[0], "is blue") {
		t.Errorf("the void lines say %q, %v", reasons, err)
	}
}

// goneAfter is a context that is canceled after its error was asked for a
// number of times.
type goneAfter struct {
	context.Context
	asked int
}

func (g *goneAfter) Err() error {
	if g.asked--; g.asked < 0 {
		return context.Canceled
	}
	return nil
}

// A client that is gone before its turn takes no name.
func TestGoneBeforeItsTurn(t *testing.T) {
	s := newTestSigner(t, "")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Issue(gone, noon, Order{Subject: must(everyClient.Subject("kubemaster-01")), Key: must(PublicKeyOf(p256Key.Public()))})
	if !errors.Is(err, context.Canceled) || s.ledger.Hold("kubemaster-01") != nil || s.ledger.Head().Seq != 0 {
		t.Errorf("%v; the name is held by %v", err, s.ledger.Hold("kubemaster-01"))
	}
}
