package signer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/durable"
)

// A ledger is a directory with a file for each UTC day on which something was
// recorded. Names sort as the days do, and the chain runs through all files.
const fileLayout = "2006-01-02.jsonl"

var filePattern = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}\.jsonl$`)

func ledgerFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries { // sorted by name
		if filePattern.MatchString(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// DamageError says where a ledger is not what was written.
type DamageError struct {
	File   string
	Line   int
	Reason string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the ledger is damaged at %s:%d: %s; restore the file from a backup", e.File, e.Line, e.Reason)
}

var (
	errBrokenChain = errors.New("the line does not carry the hash of the line before it")
	errUnfinished  = errors.New("the line is not finished")
)

// tail is where the committed part of a ledger ends.
type tail struct {
	file string // name of the last file; empty: no file yet
	size int64  // bytes of it that are committed
	torn int64  // bytes after them, from a batch that was never answered
	head Head
}

// Summary is what Verify found.
type Summary struct {
	Files int
	First uint64 // number of the first line that is kept
	Head  Head
	Torn  int64 // bytes of an unfinished batch at the end; nobody was answered
}

// ReadExpected gives what Expected does of a ledger on disk, which a daemon may be
// writing to. The error is Verify's.
func ReadExpected(dir string, now time.Time) ([]*Hold, error) {
	all := newHolds(0)
	if _, err := Verify(dir, func(e Entry) { all.apply(e) }); err != nil {
		return nil, err
	}
	return all.expected(now), nil
}

// Verify reads a whole ledger, checks every line and its place in the chain,
// and calls visit, if it is not nil, for each committed one. It may run beside
// the daemon. The error is a *DamageError where the ledger is not what was
// written.
func Verify(dir string, visit func(Entry)) (Summary, error) {
	var s Summary
	t, err := replay(dir, func(e Entry) {
		if s.First == 0 {
			s.First = e.Seq
		}
		if visit != nil {
			visit(e)
		}
	})
	if err != nil {
		return Summary{}, err
	}
	names, err := ledgerFiles(dir)
	if err != nil {
		return Summary{}, err
	}
	s.Files, s.Head, s.Torn = len(names), t.head, t.torn
	return s, nil
}

// contains says whether a ledger whose chain was checked goes through head. It reads no
// more than the files from where head would be on. Where retention removed the lines
// around it, it is taken to.
func contains(dir string, head Head) (bool, error) {
	names, err := ledgerFiles(dir)
	if err != nil {
		return false, fmt.Errorf("reading the ledger: %w", err)
	}
	later := false
	for _, name := range slices.Backward(names) {
		before, begun, err := begins(filepath.Join(dir, name))
		switch {
		case err != nil:
			return false, err
		case !begun:
		case before.Seq > head.Seq:
			later = true
		case before.Seq == head.Seq:
			return before == head, nil
		default:
			found := false
			t, err := replayFile(dir, name, before, func(e Entry) {
				// A line carries the hash of the one before it.
				found = found || e.Seq == head.Seq+1 && e.Prev == head.Hash
			})
			return err == nil && (found || t.head == head), err
		}
	}
	return later, nil
}

// begins gives the head that a file goes on from; none if it has no whole line yet.
func begins(path string) (before Head, begun bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return Head{}, false, fmt.Errorf("reading the ledger: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	line, err := bufio.NewReader(file).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return Head{}, false, nil
	} else if err != nil {
		return Head{}, false, fmt.Errorf("reading the ledger: %w", err)
	}
	return anchor(bytes.TrimSuffix(line, []byte("\n"))), true, nil
}

func replay(dir string, visit func(Entry)) (tail, error) {
	names, err := ledgerFiles(dir)
	if err != nil {
		return tail{}, fmt.Errorf("reading the ledger: %w", err)
	}
	var t tail
	for i, name := range names {
		if i > 0 && t.torn > 0 {
			return tail{}, &DamageError{filepath.Join(dir, t.file), 0, "it ends in the middle of a batch, and a later file goes on"}
		}
		if t, err = replayFile(dir, name, t.head, visit); err != nil {
			return tail{}, err
		}
	}
	return t, nil
}

// replayFile follows the chain from head through one file. What stands after
// the last commit mark is counted, not visited.
func replayFile(dir, name string, head Head, visit func(Entry)) (tail, error) {
	path := filepath.Join(dir, name)
	file, err := os.Open(path)
	if err != nil {
		return tail{}, fmt.Errorf("reading the ledger: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	if err != nil {
		return tail{}, fmt.Errorf("reading the ledger: %w", err)
	}
	var (
		// Not what the daemon appends meanwhile.
		lines  = bufio.NewReaderSize(io.LimitReader(file, info.Size()), 1<<16)
		t      = tail{file: name, head: head}
		batch  []Entry
		offset int64
	)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		offset += int64(len(line))
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return tail{}, fmt.Errorf("reading the ledger: %w", err)
		}
		content, whole := bytes.CutSuffix(line, []byte("\n"))
		if number == 1 && head == (Head{}) {
			head = anchor(content)
		}
		entry, err := head.follow(content)
		if err == nil && !whole {
			err = errUnfinished
		}
		if err != nil {
			rest, readErr := io.ReadAll(lines)
			if readErr != nil {
				return tail{}, fmt.Errorf("reading the ledger: %w", readErr)
			}
			if torn(line, rest, t.head.Seq+1) {
				offset += int64(len(rest))
				break
			}
			return tail{}, damage(path, number, content, rest, err)
		}
		if batch = append(batch, entry); entry.Event != committed {
			continue
		}
		for _, e := range batch {
			visit(e)
		}
		batch, t.size, t.head = batch[:0], offset, head
	}
	t.torn = offset - t.size
	return t, nil
}

// anchor gives the head that the first line of a ledger claims to follow:
// nothing, or lines that retention removed.
func anchor(line []byte) Head {
	var e Entry
	if err := durable.DecodeStrict(line, &e); err != nil || e.Seq <= 1 {
		return Head{}
	}
	return Head{e.Seq - 1, e.Prev}
}

// torn says whether the rest of a file, from a line that does not follow, is
// what a crash leaves of the batch that begins with the line number first: an
// unfinished line, or blocks that were never written and read as zeros, and no
// later batch's mark.
func torn(line, rest []byte, first uint64) bool {
	if bytes.HasSuffix(line, []byte("\n")) && bytes.IndexByte(line, 0) < 0 {
		return false
	}
	for line := range bytes.Lines(slices.Concat(line, rest)) {
		// Zeros may stand before the mark on the same line.
		line = bytes.TrimSuffix(line[bytes.LastIndexByte(line, 0)+1:], []byte("\n"))
		var e Entry
		if durable.DecodeStrict(line, &e) == nil && e.Event == committed && e.First != first {
			return false
		}
	}
	return true
}

// damage says which line was changed, given the first one that does not follow
// and what comes after it. A line's hash stands in the next one, so where the
// chain breaks either may be wrong: the one whose hash the line after it does
// not carry.
func damage(path string, number int, content, rest []byte, err error) error {
	if !errors.Is(err, errBrokenChain) || number == 1 {
		return &DamageError{path, number, err.Error()}
	}
	next, _, _ := bytes.Cut(rest, []byte("\n"))
	var e Entry
	if durable.DecodeStrict(next, &e) == nil && e.Prev != sha256.Sum256(content) {
		return &DamageError{path, number, "the next line does not carry its hash"}
	}
	return &DamageError{path, number - 1, "the next line does not carry its hash"}
}
