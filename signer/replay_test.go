package signer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

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
		if live := len(l.Expected(noon)); live != names || cut != int64(len(content)-ends[names-1]) {
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
