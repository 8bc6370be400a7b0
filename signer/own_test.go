package signer

import (
	"crypto/x509"
	"testing"
	"time"
)

// signerd's own certificate is a client's, is made anew when it ages, and the ledger has
// each, and no hold.
func TestSelf(t *testing.T) {
	s := newTestSigner(t, "")
	now := noon
	self := s.Self(func() time.Time { return now })
	first := must(self.Certificate(t.Context()))
	if first.Leaf.Subject.CommonName != SelfName || len(first.Leaf.ExtKeyUsage) != 1 || first.Leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is %v for %v", first.Leaf.Subject, first.Leaf.ExtKeyUsage)
	}
	for _, test := range []struct {
		after time.Duration
		same  bool
	}{{15 * time.Hour, true}, {17 * time.Hour, false}, {0, false}} {
		now = noon.Add(test.after)
		c := must(self.Certificate(t.Context()))
		if (c == first) != test.same {
			t.Errorf("after %s it is the same: %v", test.after, c == first)
		}
		first = c
	}
	if s.Ledger().Hold(SelfName) != nil {
		t.Error("signerd holds a name")
	}
	// What is asked for later is on disk later.
	if err := take(t, s.ledger, issue("a", "k", noon), Ask); err != nil {
		t.Fatal(err)
	}
	recorded := 0
	if _, err := Verify(s.ledger.dir, func(e Entry) {
		if e.Event == Issued && e.Name == SelfName {
			recorded++
		}
	}); err != nil || recorded != 3 {
		t.Errorf("the ledger has %d of them, %v", recorded, err)
	}
}
