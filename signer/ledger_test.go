package signer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// Whoever comes after Close is told that nothing was recorded.
func TestClosed(t *testing.T) {
	l := openLedger(t, t.TempDir(), LedgerOptions{})
	closeLedger(t, l)
	if err := take(t, l, issue("a", "k", noon), Ask); !errors.Is(err, ErrUnrecorded) {
		t.Errorf("%v", err)
	}
	l.Note(issue("a", "k", noon))
}

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

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

// A day has a file; the chain runs through all; retention removes the oldest, once enough
// days have passed to be sure of it.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir, LedgerOptions{Retention: 3 * 24 * time.Hour})
	var heads []Head
	for day := range 3 + settledFiles + 2 {
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
	if len(names) != 3+settledFiles+1 || names[0] != "2026-11-23.jsonl" {
		t.Errorf("the files are %v", names)
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
	// The day's file may be in the making.
	begun := filepath.Join(dir, "2026-12-05.jsonl")
	for _, text := range []string{"", `{"seq":20,"prev":"`} {
		if err := os.WriteFile(begun, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if there, err := l.Contains(heads[5]); err != nil || !there {
			t.Errorf("beside the file %q the head is not in the ledger: %v", text, err)
		}
	}
	if err := os.Remove(begun); err != nil {
		t.Fatal(err)
	}
	closeLedger(t, l)
	if there, err := contains(t.TempDir(), heads[0]); err != nil || there {
		t.Errorf("a head is in no ledger: %v", err)
	}
	// What comes before the head is not read, and the file that it is in is.
	damaged := filepath.Join(dir, "2026-11-26.jsonl")
	whole := must(os.ReadFile(damaged))
	if err := os.WriteFile(damaged, append([]byte("{}"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if there, err := contains(dir, heads[4]); err != nil || !there {
		t.Errorf("a head after the damage: %v, %v", there, err)
	}
	if _, err := contains(dir, heads[3]); err == nil || !strings.Contains(err.Error(), "2026-11-26.jsonl") {
		t.Errorf("a head in what is damaged: %v", err)
	}
	if err := os.WriteFile(damaged, whole, 0o600); err != nil {
		t.Fatal(err)
	}

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
