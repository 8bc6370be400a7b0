package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/signerd/signerd/internal/crashpoint"
	"github.com/signerd/signerd/internal/durable"
)

// The versions of the forms.
const (
	journalVersion = 1
	receiptVersion = 1
)

// journal is how far first-boot has come. Every change of it is durable before
// the next step begins.
type journal struct {
	Version int       `json:"version"`
	Plan    plan      `json:"plan"`
	Begun   time.Time `json:"begun"`
	Done    []string  `json:"done"`             // the steps
	Found   found     `json:"found"`            // what was there before
	Undoing bool      `json:"undoing,omitzero"` // a join that failed is being undone

	dir string
}

// found is what the machine had before anything changed.
type found struct {
	Fresh   []string          `json:"fresh,omitempty"`  // data of the distribution's etcd that nobody used
	Moved   map[string]string `json:"moved,omitempty"`  // what is out of the way, from where to where
	EtcdUp  bool              `json:"etcd_up,omitzero"` // the distribution's etcd ran
	Enabled bool              `json:"enabled,omitzero"` // it was to start at boot
}

func journalPath(dir string) string { return filepath.Join(dir, "journal.json") }
func receiptPath(dir string) string { return filepath.Join(dir, "receipt.json") }

// readJournal gives the journal in dir, or nil if nothing was begun.
func readJournal(dir string) (*journal, error) {
	j, err := recorded[journal](journalPath(dir), journalVersion)
	if err != nil {
		return nil, fmt.Errorf("reading the journal of an earlier run, which says how far it came: %w", err)
	}
	if j != nil {
		j.dir = dir
	}
	return j, nil
}

// write makes the journal as it is durable.
func (j *journal) write() error {
	if err := record(journalPath(j.dir), j, 0o600); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

// recorded reads a state file; nil if there is none.
func recorded[T any](path string, version int) (*T, error) {
	state := new(T)
	err := durable.LoadState(path, version, state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return state, err
}

// record writes a state file. Tests cut the power around it.
func record(path string, state any, mode fs.FileMode) error {
	return crashpoint.Around(func() error { return durable.SaveState(path, state, mode) })
}

func (j *journal) done(step string) bool { return slices.Contains(j.Done, step) }

// mark records that a step is done.
func (j *journal) mark(step string) error {
	if j.done(step) {
		return nil
	}
	j.Done = append(j.Done, step)
	return j.write()
}

// forget ends a join that was undone.
func (j *journal) forget() error {
	if err := os.Remove(journalPath(j.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the journal: %w", err)
	}
	return durable.SyncDir(j.dir)
}

// ReadReceipt gives what was done on this machine; nil if nothing was finished.
func ReadReceipt() (*Summary, error) { return readReceipt(StateDir) }

// receipt is what stays of a setup.
type receipt struct {
	Version int `json:"version"`
	Summary
}

func readReceipt(dir string) (*Summary, error) {
	r, err := recorded[receipt](receiptPath(dir), receiptVersion)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the receipt of an earlier run: %w", err)
	case r == nil:
		return nil, nil
	}
	return &r.Summary, nil
}

// writeReceipt says that all is done. From here on nothing runs again.
func writeReceipt(dir string, s *Summary) error {
	if err := record(receiptPath(dir), receipt{receiptVersion, *s}, 0o644); err != nil {
		return fmt.Errorf("writing the receipt: %w", err)
	}
	return nil
}
