package signer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var allSteps = []Step{Prepare, Activate, Retire, Finish, Rollback, Abort}

// agreed is an Agree that agrees.
func agreed(*Generation) error { return nil }

// newRotating makes a signer with a CA of its own, and gives the CA's directory.
func newRotating(t *testing.T) (*Signer, string) {
	t.Helper()
	dir, _ := newAuthority(t)
	s, _, err := Open(Parts{
		Cluster: "prod-a", Identity: DefaultIdentity("prod-a"), Authority: must(LoadAuthority(dir, noon)), Ledger: filepath.Join(t.TempDir(), "ledger"),
	}, noon)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

// step does a step that must be done.
func (s *Signer) step(t *testing.T, step Step) {
	t.Helper()
	if err := s.try(step, agreed); err != nil {
		t.Fatalf("%s: %v", step, err)
	}
}

func (s *Signer) try(step Step, agree func(*Generation) error) error {
	c := Change{Step: step, Version: s.authority.Rotation().Version, Agree: agree}
	if step == Prepare {
		c.Next = must(s.Successor(noon))
	}
	return s.Rotate(context.Background(), noon, c)
}

// issued gives a certificate of a client, with what comes with it.
func (s *Signer) issued(t *testing.T, name string) []*x509.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c, err := s.Issue(context.Background(), noon, Order{Subject: Subject{profile: client, name: name}, Key: must(PublicKeyOf(key.Public())), Claim: Supersede})
	if err != nil {
		t.Fatal(err)
	}
	return must(ParseCertificates(c.PEM))
}

// accepts says whether whoever trusts a bundle accepts a chain.
func accepts(bundle []byte, chain []*x509.Certificate) bool {
	roots, below := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, c := range chain[1:] {
		below.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: below, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// Every step in every phase leads where it should, or is refused and changes nothing,
// also where it has been refused in the phase before; and whoever holds a bundle that
// was handed out since the last step that its gate waits for accepts what is signed.
func TestEveryPairOfSteps(t *testing.T) {
	ways := map[Phase][]Step{Resting: nil, Prepared: {Prepare}, Activated: {Prepare, Activate}, Retired: {Prepare, Activate, Retire}}
	for phase, way := range ways {
		for _, first := range allSteps {
			for _, second := range allSteps {
				s, dir := newRotating(t)
				bundles := [][]byte{s.authority.Bundle()} // that somebody may still have
				var chains [][]*x509.Certificate          // that somebody may still show
				for _, step := range slices.Concat(way, []Step{first, second}) {
					before := s.authority.Rotation().Phase
					files := listing(t, dir)
					err := s.try(step, agreed)
					want, leads := transitions[step], transitions[step].from == before
					if (err == nil) != leads || err != nil && !errors.Is(err, ErrRetry) {
						t.Fatalf("%s, %s, %s: %s in %s: %v", phase, first, second, step, before, err)
					}
					if !leads {
						if listing(t, dir) != files {
							t.Errorf("%s in %s was refused and changed the files", step, before)
						}
						continue
					}
					if got := s.authority.Rotation().Phase; got != want.to {
						t.Fatalf("%s in %s leads to %s, want %s", step, before, got, want.to)
					}
					if err := s.authority.current().check(); err != nil {
						t.Error(err)
					}
					// The gates: retire and abort wait until nothing is left that the CA
					// that goes has signed, finish until everybody has the new bundle.
					switch step {
					case Retire, Abort:
						active := s.authority.Active().Certificate
						chains = slices.DeleteFunc(chains, func(c []*x509.Certificate) bool { return c[0].CheckSignatureFrom(active) != nil })
						bundles = append(bundles, s.authority.Bundle())
					case Finish:
						bundles = [][]byte{s.authority.Bundle()}
					default:
						bundles = append(bundles, s.authority.Bundle())
					}
					chains = append(chains, s.issued(t, "kubemaster-01"))
					for i, bundle := range bundles {
						for j, chain := range chains {
							if !accepts(bundle, chain) {
								t.Errorf("%s, %s, %s: after %s bundle %d does not accept chain %d", phase, first, second, step, i, j)
							}
						}
					}
					reloaded := must(LoadAuthority(dir, noon))
					if !slices.Equal(reloaded.current().roles(), s.authority.current().roles()) {
						t.Errorf("after %s the disk has %v", step, reloaded.current().roles())
					}
				}
			}
		}
	}
}

// listing gives the files of a directory with what they hold.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, entry := range must(os.ReadDir(dir)) {
		if entry.Type().IsRegular() {
			fmt.Fprintf(&b, "%s %x\n", entry.Name(), must(os.ReadFile(filepath.Join(dir, entry.Name()))))
		} else {
			fmt.Fprintf(&b, "%s %s\n", entry.Name(), must(os.Readlink(filepath.Join(dir, entry.Name()))))
		}
	}
	return b.String()
}

// What is not agreed to is not done, and leaves nothing behind.
func TestStepIsNotAgreedTo(t *testing.T) {
	s, dir := newRotating(t)
	for _, step := range []Step{Prepare, Activate, Retire, Finish} {
		before := listing(t, dir)
		refusal := errors.New("no")
		if err := s.try(step, func(*Generation) error { return refusal }); !errors.Is(err, refusal) {
			t.Errorf("%s: %v", step, err)
		}
		if listing(t, dir) != before {
			t.Errorf("%s was not agreed to, and left something", step)
		}
		s.step(t, step)
	}
	if n := len(must(os.ReadDir(dir))); n != 5 { // state, certificate, key, two links
		t.Errorf("%d files are left at the end", n)
	}
}

// A crash at any point of a step leaves it done or not done, and the next start
// brings the directory in line: no key more or less than there are generations.
func TestStepIsInterrupted(t *testing.T) {
	steps := []Step{Prepare, Activate, Rollback, Abort, Prepare, Activate, Retire, Finish}
	for last := range steps {
		s, dir := newRotating(t)
		for _, step := range steps[:last] {
			s.step(t, step)
		}
		step := steps[last]
		from := s.authority.current()
		for _, point := range []string{"begun", "some of the files", "all files", "counted", "linked", "some erased"} {
			interrupted := filepath.Join(t.TempDir(), "authority")
			if out, err := exec.Command("cp", "-a", dir, interrupted).CombinedOutput(); err != nil {
				t.Fatal(string(out))
			}
			a := must(LoadAuthority(interrupted, noon))
			var next *Generation
			if step == Prepare {
				next = must(must(s.Successor(noon)).crossSigned(from.active(), noon))
			}
			to := must(from.after(step, next))
			cut(t, a, stepRecord{Version: stateVersion, Step: step, From: from.ids(), To: to.generations()}, next, to, point)

			again := must(LoadAuthority(interrupted, noon))
			undone, err := again.Recover(noon)
			if err != nil {
				t.Fatalf("%s, %s: %v", step, point, err)
			}
			counted := point == "counted" || point == "linked" || point == "some erased"
			want := from
			if counted {
				want = to
			}
			if got := again.current(); !slices.Equal(got.ids(), want.ids()) || !slices.Equal(got.roles(), want.roles()) || (undone == "") != counted {
				t.Errorf("%s, %s: %v %v, undone %q", step, point, got.ids(), got.roles(), undone)
			}
			var expected []string
			for _, g := range want {
				expected = append(expected, g.ID+".crt", g.ID+".key")
				if g.Cross != nil {
					expected = append(expected, g.ID+".cross.crt")
				}
			}
			expected = append(expected, stateFile, activeKey, activeCert)
			slices.Sort(expected)
			var there []string
			for _, entry := range must(os.ReadDir(interrupted)) {
				there = append(there, entry.Name())
			}
			if !slices.Equal(there, expected) {
				t.Errorf("%s, %s: the files are %v, want %v", step, point, there, expected)
			}
			if target := must(os.Readlink(filepath.Join(interrupted, activeKey))); target != want.active().ID+".key" {
				t.Errorf("%s, %s: active.key leads to %s", step, point, target)
			}
		}
	}
}

// cut does a step as Rotate does, up to a point.
func cut(t *testing.T, a *Authority, record stepRecord, next *Generation, to set, point string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(writeRecord(filepath.Join(a.dir, stepFile), record))
	if point == "begun" {
		return
	}
	if next != nil {
		check(writeGeneration(a.dir, next))
		if point == "some of the files" {
			check(os.Remove(certFile(a.dir, next.ID)))
			return
		}
	}
	if point == "some of the files" || point == "all files" {
		return
	}
	check(writeRecord(filepath.Join(a.dir, stateFile), to.state(a.stands())))
	if point == "counted" {
		return
	}
	check(link(a.dir, to.active()))
	if point == "linked" {
		return
	}
	for _, id := range record.From {
		if !slices.Contains(to.ids(), id) {
			check(os.Remove(keyFile(a.dir, id)))
		}
	}
}

// The cross certificate is what standard verifiers take as leading from what the new
// CA signs to the old one, whatever made that.
func TestCrossSigning(t *testing.T) {
	s, _ := newRotating(t)
	old := s.authority.Bundle()
	s.step(t, Prepare)
	s.step(t, Activate)
	chain := s.issued(t, "kubemaster-01")
	if len(chain) != 2 || !accepts(old, chain) || accepts(old, chain[:1]) {
		t.Errorf("%d certificates, by the old CA alone accepted %v", len(chain), accepts(old, chain))
	}
	cross, next := chain[1], s.authority.Active().Certificate
	if cross.SerialNumber.Cmp(next.SerialNumber) == 0 || !cross.MaxPathLenZero || cross.NotAfter.After(next.NotAfter) {
		t.Errorf("the cross certificate: %+v", cross)
	}
	s.step(t, Retire)
	if chain := s.issued(t, "kubemaster-01"); len(chain) != 2 {
		t.Error("the cross certificate goes before members have the new CA")
	}
	s.step(t, Finish)
	if chain := s.issued(t, "kubemaster-01"); len(chain) != 1 || !accepts(s.authority.Bundle(), chain) {
		t.Errorf("after the rotation %d certificates come", len(chain))
	}
}

// Who has certificates by a generation, and who has fetched a bundle with it, comes
// from the ledger, and is the same when that is read again.
func TestEvidence(t *testing.T) {
	s, _ := newRotating(t)
	order := func(name string, by Asker) {
		t.Helper()
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		if _, err := s.Issue(context.Background(), noon, Order{Subject: Subject{profile: client, name: name}, Key: must(PublicKeyOf(key.Public())), Claim: Supersede, Asker: by}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := Asker{"SHA256:one", "10.0.0.1"}, Asker{"SHA256:two", "10.0.0.2"}
	order("a", one)
	order("b", two)
	order("c", two)
	old := s.authority.Active()
	s.step(t, Prepare)
	next := s.authority.Rotation().Next
	expect := func(what string, got []Lasting, want string) {
		t.Helper()
		var names []string
		for _, l := range got {
			names = append(names, l.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%s: %v, want %s", what, names, want)
		}
	}
	l := s.ledger
	expect("by the old one", l.Unexpired(old, noon), "a b c")
	expect("by the new one", l.Unexpired(next, noon), "")
	expect("not fetched", l.Unfetched(next, noon), "a b c")
	l.NoteFetch(noon, Fetch{By: Asker{"SHA256:one", "10.0.0.9"}}, next) // another machine
	l.NoteFetch(noon, Fetch{By: two}, next)
	order("d", one) // it waits for those before it
	expect("not fetched", l.Unfetched(next, noon), "a d")
	l.NoteFetch(noon, Fetch{By: Asker{"SHA256:a", "10.0.0.7"}, Key: l.Hold("a").Key}, next)
	s.step(t, Activate)
	order("b", two)
	expect("not fetched", l.Unfetched(next, noon), "d")
	expect("by the old one", l.Unexpired(old, noon), "a b c d")
	expect("by the new one", l.Unexpired(next, noon), "b")
	if _, err := l.Release(context.Background(), noon, "d", one); err != nil {
		t.Fatal(err)
	}
	expect("not fetched", l.Unfetched(next, noon), "")
	expect("by the old one", l.Unexpired(old, noon), "a b c")
	expect("by the old one later", l.Unexpired(old, noon.Add(clientLife+time.Second)), "")

	lines := l.Head().Seq
	l.NoteFetch(noon, Fetch{By: two}, next) // no news
	order("e", one)
	if got := l.Head().Seq - lines; got != 2 { // the certificate and its commit
		t.Errorf("a fetch that is no news made lines: %d", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, _, err := OpenLedger(l.dir, LedgerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.ledger = again
	expect("read again, by the old one", again.Unexpired(old, noon), "a b c")
	expect("read again, not fetched", again.Unfetched(next, noon), "e")
}

// A fetch counts for the machine that made it, and for one rotation.
func TestFetchedByWhom(t *testing.T) {
	s, _ := newRotating(t)
	l := s.ledger
	keys := []PublicKey{}
	for range 2 {
		keys = append(keys, must(PublicKeyOf(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public())))
	}
	order := func(now time.Time, key PublicKey, by Asker) {
		t.Helper()
		if _, err := s.Issue(context.Background(), now, Order{Subject: Subject{profile: client, name: "a"}, Key: key, Claim: Supersede, Asker: by}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := Asker{"SHA256:one", "10.0.0.1"}, Asker{"SHA256:two", "10.0.0.2"}
	order(noon, keys[0], one)
	s.step(t, Prepare)
	next := s.authority.Rotation().Next
	l.NoteFetch(noon, Fetch{By: one}, next)
	waits := func(what string, now time.Time, want int) {
		t.Helper()
		// A line that somebody waits for comes after those that nobody does.
		if err := l.rotate(context.Background(), noon, Change{Step: Activate}, next); err != nil {
			t.Fatal(err)
		}
		if got := len(l.Unfetched(next, now)); got != want {
			t.Errorf("%s: %d are waited for, want %d", what, got, want)
		}
	}
	waits("fetched", noon, 0)
	order(noon, keys[0], two)
	waits("the same key from elsewhere", noon, 0)
	order(noon, keys[1], two)
	waits("another key, asked for as before", noon, 0)
	order(noon, keys[0], one)
	waits("another machine", noon, 1)
	waits("one that sleeps", noon.Add(3*24*time.Hour), 1)
	waits("one that is gone", noon.Add(forgotten+clientLife+time.Second), 0)
	l.NoteFetch(noon, Fetch{By: one}, next)
	waits("fetched again", noon, 0)
	if err := l.rotate(context.Background(), noon, Change{Step: Abort}, next); err != nil {
		t.Fatal(err)
	}
	waits("in another rotation", noon, 1)
}

// No step lets a CA sign that ends before what it would sign, nor one that was judged by
// what is not so any more.
func TestStepThatComesTooLate(t *testing.T) {
	s, _ := newRotating(t)
	s.step(t, Prepare)
	s.step(t, Activate)
	old := s.authority.Rotation().Old
	late := old.Certificate.NotAfter.Add(-memberLife + time.Second)
	back := Change{Step: Rollback, Version: s.authority.Rotation().Version, Agree: agreed}
	if err := s.Rotate(context.Background(), late, back); !errors.Is(err, ErrRetry) || !strings.Contains(err.Error(), "expires at") {
		t.Errorf("rollback to a CA that ends: %v", err)
	}
	back.Version--
	if err := s.Rotate(context.Background(), noon, back); !errors.Is(err, ErrRetry) || !strings.Contains(err.Error(), "just now") {
		t.Errorf("a step that was judged before another one: %v", err)
	}
	back.Version++
	if err := s.Rotate(context.Background(), late.Add(-time.Minute), back); err != nil {
		t.Error(err)
	}
}

// A step that counts and could not be brought to its end is, before the next one.
func TestStepWithoutItsEnd(t *testing.T) {
	s, dir := newRotating(t)
	for _, step := range []Step{Prepare, Activate, Retire} {
		s.step(t, step)
	}
	old := s.authority.Rotation().Old
	// A directory in the place of the certificate cannot be removed as a file is.
	if err := errors.Join(os.Remove(certFile(dir, old.ID)), os.MkdirAll(filepath.Join(certFile(dir, old.ID), "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := s.try(Finish, agreed); err == nil || errors.Is(err, ErrRetry) {
		t.Errorf("finish: %v", err)
	}
	if s.authority.Rotation().Phase != Resting {
		t.Errorf("it does not count: %s", s.authority.Rotation().Phase)
	}
	if err := os.RemoveAll(certFile(dir, old.ID)); err != nil {
		t.Fatal(err)
	}
	if undone, err := s.authority.Recover(noon); undone != "" || err != nil {
		t.Errorf("undone %q, %v", undone, err)
	}
	if n := len(must(os.ReadDir(dir))); n != 5 {
		t.Errorf("%d files are left", n)
	}
}
