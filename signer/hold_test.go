package signer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
	before := l.Expected(later)
	closeLedger(t, l)
	l = openLedger(t, dir, LedgerOptions{})
	defer closeLedger(t, l)
	if after := l.Expected(later); fmt.Sprint(deref(before)) != fmt.Sprint(deref(after)) || len(after) != 3 {
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
		{Subject: selfSubject(), Key: memberKey},
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
	for day := range settledFiles - 3 { // it stays ahead over midnights
		if err := take(t, l, issue("jump", "k1", noon.AddDate(5, 0, day)), Ask); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(t, l, issue("day-2", "k2", noon.AddDate(0, 0, 2).Add(time.Hour)), Ask); !errors.Is(err, ErrHeld) {
		t.Errorf("after the jump another key for a live name: %v", err)
	}
	if names := must(ledgerFiles(dir)); len(names) != settledFiles {
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
	// What a clock that was ahead let through is in nobody's way when it is right again.
	ahead := noon.Add(48 * time.Hour)
	for range 3 {
		if err := take(t, l, issue("c", "k1", ahead), Ask); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(t, l, issue("c", "k1", ahead), Ask); !errors.Is(err, ErrRetry) {
		t.Errorf("a fourth by that clock: %v", err)
	}
	if err := take(t, l, issue("c", "k1", noon.Add(time.Hour)), Ask); err != nil {
		t.Errorf("by the right one: %v", err)
	}
}

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

// What stood before a hold is kept as far as it can matter, and no further.
func TestWhatIsKeptBefore(t *testing.T) {
	h := newHolds(0)
	chain := func() (n int) {
		for hold := h.byName["a"].hold; hold != nil; hold = hold.previous {
			n++
		}
		return n
	}
	var entries []Entry
	for i := range 20 * voidDepth {
		e := issue("a", "k", noon.Add(time.Duration(i)*time.Second))
		e.Serial = fmt.Sprint(i)
		entries = append(entries, e)
		h.apply(e)
		if n := chain(); n > voidDepth+voidDepth/4+1 || i >= voidDepth && n < voidDepth {
			t.Fatalf("%d holds are kept after %d", n, i+1)
		}
	}
	for i := range voidDepth - 1 {
		last := len(entries) - 1 - i
		h.apply(entries[last].void(noon, errors.New("x")))
		if got := h.byName["a"].hold.Serial; got != entries[last-1].Serial {
			t.Errorf("after %s was void, %s holds the name", entries[last].Serial, got)
		}
	}
	for i := range 3 * voidDepth {
		h.apply(issue("a", "k", noon.Add(time.Hour+time.Duration(i)*voidWindow/2)))
		if n := chain(); n > 4 {
			t.Fatalf("%d holds are kept, of which most are too old", n)
		}
	}
}

// Who should have renewed and did not is told, from two thirds of a certificate's
// life until a week after it; who renewed in time, or was released, is not.
func TestMissed(t *testing.T) {
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	defer closeLedger(t, l)
	for _, e := range []Entry{
		issue("kubemaster-01", "k1", noon), issue("kubemaster-02", "k2", noon), issue("kubemaster-03", "k3", noon),
		issue("kubemaster-02", "k2", noon.Add(8*time.Hour)),
	} {
		if err := take(t, l, e, Ask); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Release(t.Context(), noon.Add(time.Hour), "kubemaster-03", Asker{}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]string{
		15 * time.Hour:             "kubemaster-01 kubemaster-02",
		17 * time.Hour:             "kubemaster-01! kubemaster-02",
		25 * time.Hour:             "kubemaster-01! kubemaster-02!",
		24*time.Hour + forgotten:   "kubemaster-02!",
		33*time.Hour + forgotten:   "",
		24*time.Hour + forgotten/2: "kubemaster-01! kubemaster-02!",
	} {
		var names []string
		for _, h := range l.Expected(noon.Add(at)) {
			name := h.Name
			if h.Missed(noon.Add(at)) {
				name += "!"
			}
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("after %s: %q, want %q", at, got, want)
		}
	}
}
