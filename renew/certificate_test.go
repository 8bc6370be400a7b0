package renew

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// authority is a CA that issues members' certificates.
type authority struct {
	*signer.Signer
	ca *x509.Certificate
}

func newAuthority(t *testing.T, now time.Time) *authority {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "authority")
	if _, err := signer.CreateAuthority(dir, "prod-a", "p256", now); err != nil {
		t.Fatal(err)
	}
	a, err := signer.LoadAuthority(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := signer.Open(signer.Parts{Cluster: "prod-a", Identity: signer.DefaultIdentity("prod-a"), Authority: a, Ledger: filepath.Join(t.TempDir(), "ledger")}, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &authority{s, a.Generations()[0].Certificate}
}

// issue makes a member's certificate.
func (a *authority) issue(t *testing.T, now time.Time, key crypto.Signer, addresses ...string) []byte {
	t.Helper()
	list := make([]wire.Address, len(addresses))
	for i, text := range addresses {
		var err error
		if list[i], err = wire.ParseAddress(text); err != nil {
			t.Fatal(err)
		}
	}
	subject, err := signer.MemberSubject("etcd-2", list)
	if err != nil {
		t.Fatal(err)
	}
	public, err := signer.PublicKeyOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Issue(context.Background(), now, signer.Order{Subject: subject, Key: public, Claim: signer.Supersede})
	if err != nil {
		t.Fatal(err)
	}
	return issued.PEM
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newSyncer makes a member with files of its own.
func newSyncer(t *testing.T, now time.Time, key *ecdsa.PrivateKey) *syncer {
	t.Helper()
	dir := t.TempDir()
	address, err := wire.ParseAddress("10.0.0.12")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := config.MemberFiles{Certificate: filepath.Join(dir, "member.crt"), Key: filepath.Join(dir, "member.key"), Trust: filepath.Join(dir, "ca.crt")}
	put(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return &syncer{
		member:  &config.Member{Cluster: "prod-a", Name: "etcd-2", Addresses: []wire.Address{address}, Client: files, Peer: files},
		files:   member.Files(files),
		observe: func(string) {},
		now:     func() time.Time { return now },
	}
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A certificate is due when a third of its life is gone, and at once when it is of
// no use any more.
func TestDue(t *testing.T) {
	now := time.Now()
	a, other := newAuthority(t, now.Add(-time.Hour)), newAuthority(t, now.Add(-time.Hour))
	key := newKey(t)
	s := newSyncer(t, now, key)
	fresh := a.issue(t, now, key, "10.0.0.12")
	leaf, err := signer.ParseCertificates(fresh)
	if err != nil {
		t.Fatal(err)
	}
	third := leaf[0].NotBefore.Add(leaf[0].NotAfter.Sub(leaf[0].NotBefore) / 3)
	for name, test := range map[string]struct {
		chain []byte
		cas   []*x509.Certificate
		at    time.Time
		says  string // empty: it is not due
	}{
		"fresh":                   {fresh, []*x509.Certificate{a.ca}, now, ""},
		"fresh, of two CAs":       {fresh, []*x509.Certificate{a.ca, other.ca}, now, ""},
		"a third is gone":         {fresh, []*x509.Certificate{a.ca}, third.Add(time.Second), "a third of its life"},
		"a third is not gone":     {fresh, []*x509.Certificate{a.ca}, third.Add(-time.Second), ""},
		"expired":                 {fresh, []*x509.Certificate{a.ca}, leaf[0].NotAfter.Add(time.Second), "expired at"},
		"its CA signs no more":    {fresh, []*x509.Certificate{other.ca, a.ca}, now, "its CA signs no more"},
		"its CA is not trusted":   {fresh, []*x509.Certificate{other.ca}, now, "is not trusted here"},
		"for another key":         {a.issue(t, now, newKey(t), "10.0.0.12"), []*x509.Certificate{a.ca}, now, "for another key"},
		"for another address":     {a.issue(t, now, key, "10.0.0.13"), []*x509.Certificate{a.ca}, now, "10.0.0.12"},
		"for a further address":   {a.issue(t, now, key, "10.0.0.12", "10.0.0.13"), []*x509.Certificate{a.ca}, now, "other addresses"},
		"for a further host name": {a.issue(t, now, key, "10.0.0.12", "etcd.example"), []*x509.Certificate{a.ca}, now, "other addresses"},
		"cut in two":              {fresh[:len(fresh)/2], []*x509.Certificate{a.ca}, now, "PEM"},
		"missing":                 {nil, []*x509.Certificate{a.ca}, now, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(s.files.Certificate) // it may not be there
			if test.chain != nil {
				put(t, s.files.Certificate, test.chain)
			}
			got := s.due(test.cas, key, test.at)
			if test.says == "" && got != "" || !strings.Contains(got, test.says) {
				t.Errorf("due since %q, want %q", got, test.says)
			}
		})
	}
}

// A bundle takes the place of the present one only if they have a CA in common.
func TestAcceptable(t *testing.T) {
	now := time.Now()
	a, b := newAuthority(t, now), newAuthority(t, now)
	s := newSyncer(t, now, newKey(t))
	pemOf := func(list ...*authority) (text []byte) {
		for _, x := range list {
			text = append(text, signer.EncodeCertificate(x.ca.Raw)...)
		}
		return text
	}
	put(t, s.files.Trust, pemOf(a))
	for name, test := range map[string]struct {
		bundle []byte
		says   string
	}{
		"the same":      {pemOf(a), ""},
		"one more":      {pemOf(a, b), ""},
		"another first": {pemOf(b, a), ""},
		"another":       {pemOf(b), "none is in"},
		"garbage":       {[]byte("hello\n"), "no PEM certificate"},
		"half":          {pemOf(a, b)[:len(pemOf(a))+40], "was it cut"},
		"nothing":       {nil, "no PEM certificate"},
	} {
		if _, err := s.acceptable(test.bundle); (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Where none is left there is nothing to protect.
	put(t, s.files.Trust, []byte("torn"))
	if _, err := s.acceptable(pemOf(b)); err != nil {
		t.Errorf("in the place of a torn file: %v", err)
	}
}

// A certificate lives by its key, its CAs and the time; whether it has all names is
// another matter, and no reason to throw it away.
func TestLives(t *testing.T) {
	now := time.Now()
	a, other := newAuthority(t, now.Add(-time.Hour)), newAuthority(t, now.Add(-time.Hour))
	key := newKey(t)
	s := newSyncer(t, now, key)
	put(t, s.files.Certificate, a.issue(t, now, key, "10.0.0.99"))
	for name, test := range map[string]struct {
		cas   []*x509.Certificate
		key   crypto.Signer
		at    time.Time
		lives bool
	}{
		"for another address":  {[]*x509.Certificate{a.ca}, key, now, true},
		"its CA signs no more": {[]*x509.Certificate{other.ca, a.ca}, key, now, true},
		"its CA was dropped":   {[]*x509.Certificate{other.ca}, key, now, false},
		"for another key":      {[]*x509.Certificate{a.ca}, newKey(t), now, false},
		"expired":              {[]*x509.Certificate{a.ca}, key, now.AddDate(0, 1, 1), false},
		"not valid yet":        {[]*x509.Certificate{a.ca}, key, now.Add(-time.Hour), false},
		"no CAs":               {nil, key, now, false},
	} {
		if got := s.lives(test.cas, test.key, test.at); got != test.lives {
			t.Errorf("%s: it lives: %v", name, got)
		}
	}
}

// Whatever else goes wrong, a clock that is wrong is told, since nothing may then be
// restarted.
func TestSkewIsTold(t *testing.T) {
	skew, rest := fmt.Errorf("%w: 12:00 and 13:00", ErrClock), errors.New("denied")
	for _, test := range []struct {
		err        error
		only, told bool
	}{{&skewError{skew, nil}, true, true}, {&skewError{skew, rest}, false, true}, {rest, false, false}} {
		listed := multierror.Append(nil, fmt.Errorf("10.0.0.11:22: %w", test.err))
		if only, told := onlyClock(test.err), errors.Is(listed, ErrClock); only != test.only || told != test.told {
			t.Errorf("%v: only the clock %v, told %v", test.err, only, told)
		}
	}
}

// etcd need not load a CA that leads to the one before it while that one lives for long
// and somebody has certificates by it.
func TestNeedNotLoad(t *testing.T) {
	now := time.Now()
	generation := func(role signer.Role, days int, cross bool) wire.GenerationStatus {
		return wire.GenerationStatus{Role: string(role), Fingerprint: string(role), NotAfter: now.AddDate(0, 0, days), Cross: cross}
	}
	for what, test := range map[string]struct {
		generations []wire.GenerationStatus
		want        string
	}{
		"at rest":                         {[]wire.GenerationStatus{generation(signer.Active, 3650, false)}, "[]"},
		"prepared":                        {[]wire.GenerationStatus{generation(signer.Active, 300, false), generation(signer.Passive, 3650, true)}, "[passive]"},
		"activated":                       {[]wire.GenerationStatus{generation(signer.Active, 3650, true), generation(signer.Passive, 300, false)}, "[active]"},
		"the old one is about to expire":  {[]wire.GenerationStatus{generation(signer.Active, 3650, true), generation(signer.Passive, 29, false)}, "[]"},
		"the old one is no longer in use": {[]wire.GenerationStatus{generation(signer.Active, 3650, true), generation(signer.Inactive, 300, false)}, "[]"},
	} {
		o := offer{time: now, generations: test.generations}
		if got := fmt.Sprint(o.needNotLoad()); got != test.want {
			t.Errorf("%s: %s, want %s", what, got, test.want)
		}
	}
}
