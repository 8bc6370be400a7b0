package signer

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

func openLedger(t testing.TB, dir string, options LedgerOptions) *Ledger {
	t.Helper()
	l, _, err := OpenLedger(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closeLedger(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// issue is the line of a client's certificate.
func issue(name, key string, at time.Time) Entry {
	return Entry{
		Event: Issued, Time: at, Serial: fmt.Sprintf("%032x", rand.Uint64()), Profile: client.name, Name: name,
		NotAfter: at.Add(client.life), Generation: "12345678", Key: key, SSHKey: "SHA256:x", Source: "10.0.0.1",
	}
}

func take(t testing.TB, l *Ledger, e Entry, claim Claim) error {
	t.Helper()
	return l.Take(t.Context(), e, claim)
}

func TestHolds(t *testing.T) {
	const hour = time.Hour
	type step struct {
		what  string
		after time.Duration // since noon
		name  string
		key   string
		claim Claim
		want  error
	}
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{})
	for _, s := range []step{
		{"a free name", 0, "a", "k1", Ask, nil},
		{"the same key again", hour, "a", "k1", Ask, nil},
		{"another key", 2 * hour, "a", "k2", Ask, ErrHeld},
		{"another name", 2 * hour, "b", "k2", Ask, nil},
		{"one key may hold two names", 2 * hour, "c", "k2", Ask, nil},
		{"a renewal by the key itself", 3 * hour, "a", "k1", Renew, nil},
		{"a renewal of what another holds", 3 * hour, "a", "k2", Renew, ErrHeld},
		{"a renewal of what nobody holds", 3 * hour, "z", "k1", Renew, ErrHeld},
		{"a literal key supersedes", 4 * hour, "a", "k3", Supersede, nil},
		{"the superseded key", 4 * hour, "a", "k1", Ask, ErrHeld},
		{"the superseded key by itself", 4 * hour, "a", "k1", Renew, ErrHeld},
		{"just before it lapses", 28 * hour, "a", "k1", Ask, ErrHeld},
		{"renewal just before it lapses", 28 * hour, "a", "k3", Renew, nil},
		{"after it lapsed, another key", 53 * hour, "a", "k1", Ask, nil},
		{"after it lapsed, by itself", 27 * hour, "b", "k2", Renew, ErrHeld},
	} {
		if err := take(t, l, issue(s.name, s.key, noon.Add(s.after)), s.claim); !errors.Is(err, s.want) {
			t.Errorf("%s: %v; want %v", s.what, err, s.want)
		} else if errors.Is(err, ErrHeld) && s.claim == Ask && !strings.Contains(err.Error(), "until 2026-11-2") {
			t.Errorf("%s: %v does not say until when", s.what, err)
		}
	}
	// What the lines add up to does not depend on having been there.
	later := noon.Add(54 * hour)
	before := l.Live(later)
	closeLedger(t, l)
	l = openLedger(t, dir, LedgerOptions{})
	defer closeLedger(t, l)
	if after := l.Live(later); fmt.Sprint(deref(before)) != fmt.Sprint(deref(after)) || len(after) != 1 {
		t.Errorf("after a restart: %v; before: %v", deref(after), deref(before))
	}
}

func deref(holds []*Hold) []Hold {
	var values []Hold
	for _, h := range holds {
		value := *h
		value.previous = nil
		values = append(values, value)
	}
	return values
}

func TestRelease(t *testing.T) {
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	defer closeLedger(t, l)
	if held, err := l.Release(t.Context(), noon, "a", Asker{}); held != nil || err != nil {
		t.Errorf("releasing what nobody holds: %v, %v", held, err)
	}
	if err := take(t, l, issue("a", "k1", noon), Ask); err != nil {
		t.Fatal(err)
	}
	if held, err := l.Release(t.Context(), noon, "a", Asker{}); err != nil || held == nil || held.Key != "k1" {
		t.Errorf("releasing a name: %v, %v", held, err)
	}
	if err := take(t, l, issue("a", "k1", noon), Renew); !errors.Is(err, ErrHeld) {
		t.Errorf("the released key by itself: %v", err)
	}
	if err := take(t, l, issue("a", "k2", noon), Ask); err != nil {
		t.Errorf("another key after the release: %v", err)
	}
}

// The key of a live certificate is a way in; a member's until its name is
// released.
func TestHeldBy(t *testing.T) {
	s := newTestSigner(t, "")
	clientKey, memberKey := must(PublicKeyOf(p256Key.Public())), must(PublicKeyOf(rsa2048.Public()))
	for _, order := range []Order{
		{Subject: must(everyClient.Subject("kubemaster-01")), Key: clientKey},
		{Subject: must(MemberSubject("etcd-1", addresses("10.0.0.11"))), Key: memberKey},
		{Subject: SelfSubject(), Key: memberKey},
	} {
		if _, err := s.Issue(t.Context(), noon, order); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		key  PublicKey
		at   time.Duration
		want string
	}{
		{clientKey, 0, "kubemaster-01"},
		{clientKey, client.life, "kubemaster-01"},
		{clientKey, client.life + time.Second, ""},
		{memberKey, 0, "etcd-1"}, // and not signerd's own name
		{memberKey, 2 * member.life, "etcd-1"},
	} {
		var names []string
		for _, h := range s.ledger.HeldBy(test.key, noon.Add(test.at)) {
			names = append(names, h.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("after %s the key holds %q, want %q", test.at, got, test.want)
		}
	}
	if _, err := s.ledger.Release(t.Context(), noon, "etcd-1", Asker{}); err != nil {
		t.Fatal(err)
	}
	if held := s.ledger.HeldBy(memberKey, noon); len(held) != 0 {
		t.Errorf("after the release the key holds %v", deref(held))
	}
}

// A member's renewal is what its last line has, and only that.
func TestRepeats(t *testing.T) {
	s := newTestSigner(t, "")
	key, other := must(PublicKeyOf(p256Key.Public())), must(PublicKeyOf(rsa2048.Public()))
	subject := func(list ...string) Subject { return must(MemberSubject("etcd-1", addresses(list...))) }
	if s.ledger.Repeats(subject("10.0.0.11"), key) {
		t.Error("an unknown member renews")
	}
	if _, err := s.Issue(t.Context(), noon, Order{Subject: subject("10.0.0.11", "10.0.0.21"), Key: key}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		subject Subject
		key     PublicKey
		want    bool
	}{
		{subject("10.0.0.11", "10.0.0.21"), key, true},
		{subject("10.0.0.21", "10.0.0.11"), key, false}, // the first is what the others dial
		{subject("10.0.0.11"), key, false},
		{subject("10.0.0.11", "10.0.0.21"), other, false},
	} {
		if got := s.ledger.Repeats(test.subject, test.key); got != test.want {
			t.Errorf("%v repeats: %v, want %v", test.subject.addresses, got, test.want)
		}
		claim := s.Check(noon, Order{Subject: test.subject, Key: test.key, Claim: Renew})
		if (claim == nil) != test.want {
			t.Errorf("%v may renew by itself: %v, want %v", test.subject.addresses, claim, test.want)
		}
	}
}

// A certificate that never left the signer holds no name.
func TestVoid(t *testing.T) {
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	defer closeLedger(t, l)
	first, second := issue("a", "k1", noon), issue("a", "k2", noon)
	for _, step := range []Entry{first, second.void(noon, errors.New("another serial")), second} {
		claim := Ask
		if step.Key == "k2" {
			claim = Supersede
		}
		if err := take(t, l, step, claim); err != nil {
			t.Fatal(err)
		}
	}
	l.Note(second.void(noon, errors.New("the client went away")))
	if err := take(t, l, issue("b", "k9", noon), Ask); err != nil { // the note is before it
		t.Fatal(err)
	}
	if h := l.Hold("a"); h == nil || h.Key != "k1" {
		t.Errorf("after the void %v holds the name; want k1", h)
	}
}

// A clock that jumps ahead, and back, costs no name and no line.
func TestClockJump(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{Retention: 60 * 24 * time.Hour})
	defer closeLedger(t, l)
	for day := range 3 {
		if err := take(t, l, issue(fmt.Sprintf("day-%d", day), "k1", noon.AddDate(0, 0, day)), Ask); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(t, l, issue("jump", "k1", noon.AddDate(5, 0, 0)), Ask); err != nil {
		t.Fatal(err)
	}
	if err := take(t, l, issue("day-2", "k2", noon.AddDate(0, 0, 2).Add(time.Hour)), Ask); !errors.Is(err, ErrHeld) {
		t.Errorf("after the jump another key for a live name: %v", err)
	}
	if names := must(ledgerFiles(dir)); len(names) != 4 {
		t.Errorf("the jump left %v", names)
	}
}

// Voids take back their own certificates, in whatever order they come.
func TestVoidsInAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}, {0}, {1}} {
		l := openLedger(t, t.TempDir(), LedgerOptions{})
		base := issue("a", "k0", noon.Add(-23*time.Hour))
		issued := []Entry{issue("a", "k1", noon), issue("a", "k2", noon.Add(time.Second))}
		for _, e := range slices.Concat([]Entry{base}, issued) {
			if err := take(t, l, e, Supersede); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range order {
			l.Note(issued[i].void(noon, errors.New("gone")))
		}
		if err := take(t, l, issue("b", "k", noon), Ask); err != nil { // the notes are before it
			t.Fatal(err)
		}
		want := map[int]string{2: "k0"}[len(order)]
		if len(order) == 1 {
			want = []string{"k2", "k1"}[order[0]]
		}
		if h := l.Hold("a"); h == nil || h.Key != want {
			t.Errorf("voids %v: %+v holds the name, want %s", order, h, want)
		}
		closeLedger(t, l)
	}
}

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

// A member's addresses are its own, also those that etcd does not know of.
func TestMembersAddresses(t *testing.T) {
	s := newTestSigner(t, "")
	one, two := must(PublicKeyOf(p256Key.Public())), must(PublicKeyOf(rsa2048.Public()))
	order := func(name string, key PublicKey, list ...string) Order {
		return Order{Subject: must(MemberSubject(name, addresses(list...))), Key: key}
	}
	if _, err := s.Issue(t.Context(), noon, order("etcd-1", one, "10.0.0.11", "192.168.0.11")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issue(t.Context(), noon, order("etcd-2", two, "10.0.0.12", "192.168.0.11")); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "belongs to the member etcd-1") {
		t.Errorf("another member's second address: %v", err)
	}
	if _, err := s.Issue(t.Context(), noon, order("etcd-2", two, "10.0.0.12")); err != nil {
		t.Errorf("an address of its own: %v", err)
	}
	if _, err := s.ledger.Release(t.Context(), noon, "etcd-1", Asker{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issue(t.Context(), noon, order("etcd-2", two, "10.0.0.12", "192.168.0.11")); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

// Whoever comes after Close is told that nothing was recorded.
func TestClosed(t *testing.T) {
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	closeLedger(t, l)
	if err := take(t, l, issue("a", "k", noon), Ask); !errors.Is(err, ErrUnrecorded) {
		t.Errorf("%v", err)
	}
	l.Note(issue("a", "k", noon))
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

func TestPerNameRate(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{PerNamePerHour: 3})
	for i := range 3 {
		if err := take(t, l, issue("a", "k1", noon.Add(time.Duration(i)*time.Minute)), Ask); err != nil {
			t.Fatal(err)
		}
	}
	closeLedger(t, l)
	l = openLedger(t, dir, LedgerOptions{PerNamePerHour: 3})
	defer closeLedger(t, l)
	if err := take(t, l, issue("a", "k1", noon.Add(59*time.Minute)), Ask); !errors.Is(err, ErrRetry) || !strings.Contains(err.Error(), "2026-11-22T13:00:00Z") {
		t.Errorf("a fourth in the hour: %v", err)
	}
	if err := take(t, l, issue("b", "k1", noon.Add(59*time.Minute)), Ask); err != nil {
		t.Errorf("another name: %v", err)
	}
	if err := take(t, l, issue("a", "k1", noon.Add(61*time.Minute)), Ask); err != nil {
		t.Errorf("when the first is an hour old: %v", err)
	}
}

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

// Two keys race for one name: exactly one gets it, every time.
func TestRace(t *testing.T) {
	races := 100
	if long {
		races = 1000
	}
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	defer closeLedger(t, l)
	for i := range races {
		name := fmt.Sprintf("name-%d", i)
		var winners atomic.Int32
		var group sync.WaitGroup
		start := make(chan struct{})
		for _, key := range []string{"k1", "k2"} {
			group.Go(func() {
				<-start
				if err := take(t, l, issue(name, key, noon), Ask); err == nil {
					winners.Add(1)
				} else if !errors.Is(err, ErrHeld) {
					t.Errorf("race %d: %v", i, err)
				}
			})
		}
		close(start)
		group.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("race %d has %d winners", i, n)
		}
	}
}

// Requests that come together share a commit mark.
func TestGroupCommit(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{})
	l.mu.Lock() // the writer waits with what it has
	const requests = 200
	var group sync.WaitGroup
	for i := range requests {
		group.Go(func() {
			if err := take(t, l, issue(fmt.Sprintf("name-%d", i), "k", noon), Ask); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(10 * time.Second); len(l.queue) < requests/2 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	l.mu.Unlock()
	group.Wait()
	closeLedger(t, l)
	marks := 0
	if _, err := Verify(dir, func(e Entry) {
		if e.Event == committed {
			marks++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if marks > requests/2+2 {
		t.Errorf("%d marks for %d lines of which half waited together", marks, requests)
	}
}

func TestSecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{})
	defer closeLedger(t, l)
	if _, _, err := OpenLedger(dir, LedgerOptions{}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("a second ledger in one directory: %v", err)
	}
}

// writtenLedger makes a ledger of three batches on one day and gives the file's
// content and where each batch ends.
func writtenLedger(t testing.TB) (content []byte, ends []int) {
	t.Helper()
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{})
	for i := range 3 {
		if err := take(t, l, issue(fmt.Sprintf("name-%d", i), "k", noon), Ask); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(l.file.size))
	}
	closeLedger(t, l)
	return must(os.ReadFile(filepath.Join(dir, "2026-11-22.jsonl"))), ends
}

func ledgerWith(t testing.TB, content []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "2026-11-22.jsonl"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A crash cuts the file anywhere in the last batch, or leaves blocks of it that
// read as zeros: the batches before it are all there, nothing of it is, and the
// ledger goes on.
func TestCrashInTheLastBatch(t *testing.T) {
	content, ends := writtenLedger(t)
	check := func(what string, content []byte, names int) {
		dir := ledgerWith(t, content)
		l, cut, err := OpenLedger(dir, LedgerOptions{})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if live := len(l.Live(noon)); live != names || cut != int64(len(content)-ends[names-1]) {
			t.Errorf("%s: %d names live, %d bytes cut; want %d names", what, live, cut, names)
		}
		if err := take(t, l, issue("next", "k", noon), Ask); err != nil {
			t.Errorf("%s: the next line: %v", what, err)
		}
		closeLedger(t, l)
		if s, err := Verify(dir, nil); err != nil || s.Torn != 0 || s.Head.Seq != uint64(2*names+2) {
			t.Errorf("%s: after the next line: %+v, %v", what, s, err)
		}
	}
	for end := ends[1]; end < ends[2]; end++ {
		check(fmt.Sprintf("cut at byte %d", end), content[:end], 2)
	}
	check("not cut", content, 3)
	for _, hole := range [][2]int{{ends[1], ends[2]}, {ends[1], ends[1] + 50}, {ends[1] + 20, ends[1] + 100}, {ends[2] - 30, ends[2]}} {
		zeroed := bytes.Clone(content)
		clear(zeroed[hole[0]:hole[1]])
		check(fmt.Sprintf("zeros at %v", hole), zeroed, 2)
	}
}

// A changed byte before the last mark stops the daemon, and its line is named.
func TestDamageIsNamed(t *testing.T) {
	content, ends := writtenLedger(t)
	for i := range ends[1] {
		damaged := bytes.Clone(content)
		damaged[i] ^= 1 << (i % 7)
		line := bytes.Count(content[:i], []byte("\n")) + 1
		_, err := Verify(ledgerWith(t, damaged), nil)
		e, ok := errors.AsType[*DamageError](err)
		if !ok || e.Line != line || filepath.Base(e.File) != "2026-11-22.jsonl" {
			t.Errorf("byte %d of line %d, %q to %q: %v", i, line, content[i], damaged[i], err)
		}
		if _, _, err := OpenLedger(ledgerWith(t, damaged), LedgerOptions{}); err == nil {
			t.Errorf("byte %d: the ledger opens", i)
		}
		// A zero is what a crash may leave, but not with a later batch's mark
		// behind it.
		damaged[i] = 0
		if _, err := Verify(ledgerWith(t, damaged), nil); err == nil {
			t.Errorf("byte %d as zero: the ledger passes", i)
		}
	}
	// A line that is gone, or there twice, or out of turn.
	lines := bytes.SplitAfter(content, []byte("\n"))
	for what, order := range map[string][]int{"gone": {0, 1, 3, 4, 5}, "twice": {0, 1, 2, 2, 3, 4, 5}, "swapped": {0, 1, 3, 2, 4, 5}} {
		var damaged []byte
		for _, i := range order {
			damaged = append(damaged, lines[i]...)
		}
		if _, err := Verify(ledgerWith(t, damaged), nil); err == nil {
			t.Errorf("a line that is %s passes", what)
		} else if _, ok := errors.AsType[*DamageError](err); !ok {
			t.Errorf("a line that is %s: %v", what, err)
		}
	}
}

// A day has a file; the chain runs through all; retention removes the oldest.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{Retention: 3 * 24 * time.Hour})
	var heads []Head
	for day := range 6 {
		if err := take(t, l, issue("a", "k", noon.AddDate(0, 0, day)), Ask); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, l.Head())
	}
	// A clock that goes back begins no earlier file.
	if err := take(t, l, issue("b", "k", noon), Ask); err != nil {
		t.Fatal(err)
	}
	names := must(ledgerFiles(dir))
	if want := "[2026-11-23.jsonl 2026-11-24.jsonl 2026-11-25.jsonl 2026-11-26.jsonl 2026-11-27.jsonl]"; fmt.Sprint(names) != want {
		t.Errorf("the files are %v, want %s", names, want)
	}
	s, err := Verify(dir, nil)
	if err != nil || s.First != 3 || s.Head != l.Head() {
		t.Errorf("%+v, %v; want lines from 3 on", s, err)
	}
	for i, head := range heads {
		if there, err := l.Contains(head); err != nil || !there {
			t.Errorf("the head of day %d is not in the ledger: %v", i, err)
		}
	}
	for what, head := range map[string]Head{
		"beyond the end": {l.Head().Seq + 2, heads[5].Hash},
		"another hash":   {heads[4].Seq, heads[3].Hash},
		"another end":    {l.Head().Seq, heads[3].Hash},
	} {
		if there, err := l.Contains(head); err != nil || there {
			t.Errorf("a head %s is in the ledger: %v", what, err)
		}
	}
	closeLedger(t, l)

	if err := os.Remove(filepath.Join(dir, "2026-11-25.jsonl")); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir, nil); err == nil || !strings.Contains(err.Error(), "2026-11-26.jsonl:1:") {
		t.Errorf("a file in the middle is gone: %v", err)
	}
}

// A write that fails takes no name, leaves the file as it was, and the next one
// passes when the cause is gone.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{})
	if err := take(t, l, issue("a", "k1", noon), Ask); err != nil {
		t.Fatal(err)
	}
	good := l.file.file
	l.file.file = must(os.Open("/dev/full")) // every write and truncation fails
	if err := take(t, l, issue("b", "k1", noon), Ask); !errors.Is(err, ErrUnrecorded) {
		t.Errorf("a write that fails: %v", err)
	}
	if l.Hold("b") != nil || len(l.HeldBy(PublicKey{spki: []byte("k1")}, noon)) != 0 {
		t.Error("the name is held all the same")
	}
	l.file.file = good
	if err := take(t, l, issue("b", "k2", noon), Ask); err != nil {
		t.Errorf("after the cause is gone: %v", err)
	}
	head := l.Head()
	closeLedger(t, l)
	if s, err := Verify(dir, nil); err != nil || s.Head != head || s.Head.Seq != 4 {
		t.Errorf("%+v, %v", s, err)
	}
}

// FuzzReplay: whatever the file holds, it is read, or refused with a place; and
// what is read can be written on.
func FuzzReplay(f *testing.F) {
	content, ends := writtenLedger(f)
	f.Add(content)
	f.Add(content[:ends[1]])
	f.Add(content[ends[0]:])
	f.Add(content[:ends[2]-10])
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := ledgerWith(t, content)
		s, err := Verify(dir, nil)
		if err != nil {
			if _, ok := errors.AsType[*DamageError](err); !ok {
				t.Fatalf("%v has no place", err)
			}
			return
		}
		l, cut, err := OpenLedger(dir, LedgerOptions{})
		if err != nil || cut != s.Torn || l.Head() != s.Head {
			t.Fatalf("verified as %+v, opens with %d cut: %v", s, cut, err)
		}
		if err := l.Take(t.Context(), issue("next", "k", noon.AddDate(100, 0, 0)), Ask); err != nil && !errors.Is(err, ErrHeld) {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(dir, nil); err != nil {
			t.Fatalf("after a line more: %v", err)
		}
	})
}
